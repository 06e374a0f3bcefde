package node

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// drillFile holds the date of the last drill. It is no file of the reference's,
// whose scripts do not mind it.
const drillFile = "last-key-drill.txt"

// NoteDrill records that a backup of the root key has been proved to open and
// to belong to this node.
func (d *Dir) NoteDrill(now time.Time) error {
	return writeFile(d.file("db", drillFile), []byte(now.Format(time.DateOnly)+"\n"), 0o644)
}

// LastDrill is the date of the last drill; zero if there was none.
func (d *Dir) LastDrill() (time.Time, error) {
	s, err := readLine(d.file("db", drillFile))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	date, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s holds %q instead of a date", d.file("db", drillFile), clip(s))
	}
	return date, nil
}
