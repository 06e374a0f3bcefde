//go:build !linux

package bench

import (
	"os/exec"
	"testing"
	"time"
)

type cpus = *struct{}

func halves(b *testing.B) (measured, others cpus) {
	b.Helper()
	b.Log("processors are shared with what is not measured: on this system a process can not be kept to some of them")
	return nil, nil
}

func startOn(_ cpus, c *exec.Cmd) error { return c.Start() }

func keepTo(*testing.B, cpus) {}

func processorTime() time.Duration { return 0 }
