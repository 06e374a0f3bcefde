package embedded

import (
	"path/filepath"
	"strings"
	"testing"
)

// If SQLite cannot create its files beside the store, the error advises what to check.
func TestCanNotMakeFiles(t *testing.T) {
	c, err := openConn(filepath.Join(t.TempDir(), "missing", "messages.db"))
	if err == nil {
		c.close()
		t.Fatal("a file in a missing folder was opened")
	}
	if err := explain(err); !strings.Contains(err.Error(), "look at their owner and mode") {
		t.Error(err)
	}
}
