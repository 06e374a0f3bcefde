package embedded

import (
	"errors"
	"fmt"
	"os"
)

// ErrGone is the [Trouble] of a store whose files were removed, moved or replaced
// while it was open. What is written to them then is in no folder, and lost when
// the process ends, so nothing is confirmed until they are back.
var ErrGone = errors.New("embedded: the message store is not where it was opened")

// fileIdentity remembers which file has a name.
type fileIdentity struct {
	path string
	file os.FileInfo
}

func newFileIdentity(path string) (fileIdentity, error) {
	fi, err := os.Stat(path)
	return fileIdentity{path, fi}, err
}

// check reports [ErrGone] if the name leads to another file, or to none.
func (p fileIdentity) check() error {
	fi, err := os.Stat(p.path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w; put it back, or restart the service to begin an empty one", ErrGone, err)
	case !os.SameFile(fi, p.file):
		return fmt.Errorf("%w: %s is another file now; put the old one back, or restart the service to use this one", ErrGone, p.path)
	}
	return nil
}
