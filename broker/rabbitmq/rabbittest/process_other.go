//go:build !unix

package rabbittest

import (
	"os"
	"time"
)

// process is not implemented on systems without process groups.
type process struct {
	ended chan struct{}
}

func startProcess([]string, string, []string, *os.File) (*process, error) { return nil, ErrMissing }

func (*process) kill()                     {}
func (*process) stop(time.Duration) error  { return ErrMissing }
func (*process) pause(time.Duration) error { return ErrMissing }
func (*process) resume() error             { return ErrMissing }
