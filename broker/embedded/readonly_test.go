package embedded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where SQLite can not make its files beside the store, the error says what is to be
// looked at.
func TestCanNotMakeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages.db")
	if err := os.Mkdir(path+"-shm", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{})
	if err == nil {
		s.Close()
		t.Fatal("it opens")
	}
	if !strings.Contains(err.Error(), "look at their owner and mode") {
		t.Error(err)
	}
}
