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
	b.Log("the measured nodes share their CPUs with other processes: this system cannot restrict a process to some CPUs")
	return nil, nil
}

func startOn(_ cpus, c *exec.Cmd) error { return c.Start() }

func keepTo(*testing.B, cpus) {}

func restrict(*testing.B, cpus) (restore func()) { return func() {} }

func processorTime() time.Duration { return 0 }
