package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
)

// DrillFile is the name, relative to the node's directory, of the file with the date of the
// last successful drill. A drill is a test of a backup of the root key. The reference scripts
// do not use this file.
const DrillFile = "db/last-key-drill.txt"

// RecordDrill records that a backup of the root key was tested successfully: it could
// be decrypted, and holds the key of this node.
func (d *Dir) RecordDrill(ctx context.Context, now time.Time) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return durable.Replace(d.file(filepath.FromSlash(DrillFile)), []byte(now.Format(time.DateOnly)+"\n"), 0o644)
}

// LastDrill returns the date of the last successful drill of the node in the given
// directory, or the zero Time if there was none.
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
		return time.Time{}, fmt.Errorf("%s: expected a date, not %q", DrillFile, excerpt.Of(s))
	}
	return date, nil
}
