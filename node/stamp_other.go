//go:build !linux && !darwin

package node

import (
	"io/fs"
	"time"
)

// changeTime returns the zero Time, because the system does not report change times.
func changeTime(fs.FileInfo) time.Time { return time.Time{} }
