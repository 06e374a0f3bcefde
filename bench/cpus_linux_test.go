package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpus are CPUs that a process keeps to; nil stands for all.
type cpus = *unix.CPUSet

// halves divides the CPUs that this process may use between what is measured and
// those who have machines of their own in real life. Both are nil if there is no
// way to do that.
func halves(b *testing.B) (measured, others cpus) {
	b.Helper()
	all := new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, all); err != nil {
		b.Logf("processors are shared with what is not measured: %v", err)
		return nil, nil
	}
	if all.Count() < 2 {
		b.Log("processors are shared with what is not measured: there is one only")
		return nil, nil
	}
	measured, others = new(unix.CPUSet), new(unix.CPUSet)
	for cpu, taken := 0, 0; taken < all.Count(); cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if taken++; 2*taken <= all.Count()+1 {
			measured.Set(cpu)
		} else {
			others.Set(cpu)
		}
	}
	return measured, others
}

// startOn starts a process that keeps to the given CPUs.
func startOn(set cpus, c *exec.Cmd) error {
	if set == nil {
		return c.Start()
	}
	// A process inherits the CPUs of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, before); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, set); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, before)
	return c.Start()
}

// keepTo makes this process keep to the given CPUs until b ends.
func keepTo(b *testing.B, set cpus) {
	b.Helper()
	if set == nil {
		return
	}
	before := new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, before); err != nil {
		b.Fatal(err)
	}
	if err := moveThreads(set); err != nil {
		b.Fatal(err)
	}
	procs := runtime.GOMAXPROCS(set.Count())
	b.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		if err := moveThreads(before); err != nil {
			b.Error(err)
		}
	})
}

// moveThreads moves all threads of this process. A thread begins where the one is
// that has made it, so those that came meanwhile are looked for, until there are
// none.
func moveThreads(set cpus) error {
	for moved := -1; moved != 0; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		moved = 0
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			now := new(unix.CPUSet)
			if err := unix.SchedGetaffinity(id, now); err == unix.ESRCH || err == nil && *now == *set {
				continue
			}
			if err := unix.SchedSetaffinity(id, set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("thread %d: %w", id, err)
			}
			moved++
		}
	}
	return nil
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
