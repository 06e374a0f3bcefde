package embedded

import (
	"path/filepath"
	"strings"
	"testing"
)

// Where SQLite can not make its files beside the store, the error says what is to be
// looked at.
func TestCanNotMakeFiles(t *testing.T) {
	c, err := dial(filepath.Join(t.TempDir(), "missing", "messages.db"))
	if err == nil {
		c.close()
		t.Fatal("it opens")
	}
	if err := explain(err); !strings.Contains(err.Error(), "look at their owner and mode") {
		t.Error(err)
	}
}
