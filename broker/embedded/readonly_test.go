package embedded

import (
	"path/filepath"
	"strings"
	"testing"
)

// If SQLite can not create its files beside the store, the error has advice what to check.
func TestCanNotMakeFiles(t *testing.T) {
	c, err := openConn(filepath.Join(t.TempDir(), "missing", "messages.db"))
	if err == nil {
		c.close()
		t.Fatal("it opens")
	}
	if err := explain(err); !strings.Contains(err.Error(), "look at their owner and mode") {
		t.Error(err)
	}
}
