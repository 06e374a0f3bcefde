package embedded

import (
	"errors"
	"fmt"
	"os"
)

// errGone is the [Problem] of a store whose files were removed, moved or replaced while it
// was open. Data written to them would be lost when the process ends, so no operation is
// confirmed until the files are back.
var errGone = errors.New("embedded: the message store is not where it was opened")

// fileIdentity records which file a path has led to.
type fileIdentity struct {
	path string
	file os.FileInfo
}

func newFileIdentity(path string) (fileIdentity, error) {
	fi, err := os.Stat(path)
	return fileIdentity{path, fi}, err
}

// check returns [errGone] if the path leads to another file, or to none.
func (f fileIdentity) check() error {
	fi, err := os.Stat(f.path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w; put it back, or move the other files of the store away too and restart the service to begin with an empty store", errGone, err)
	case !os.SameFile(fi, f.file):
		return fmt.Errorf("%w: %s is another file now; put the old one back, or restart the service to use this one", errGone, f.path)
	}
	return nil
}
