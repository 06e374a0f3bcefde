package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
)

// DrillFile holds the date of the last drill, in the node's directory. It is no
// file of the reference's, whose scripts do not mind it.
const DrillFile = "db/last-key-drill.txt"

// NoteDrill records that a backup of the root key has been proved to open and
// to belong to this node.
func (d *Dir) NoteDrill(now time.Time) error {
	return durable.Replace(d.file(filepath.FromSlash(DrillFile)), []byte(now.Format(time.DateOnly)+"\n"), 0o644)
}

// LastDrill is the date of the last drill of the node in the given directory;
// zero if there was none.
func LastDrill(dir string) (time.Time, error) {
	s, err := readLine(filepath.Join(dir, filepath.FromSlash(DrillFile)))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	date, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("holds %q instead of a date", excerpt.Of(s))
	}
	return date, nil
}
