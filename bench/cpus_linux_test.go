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

// cpus is the set of CPUs on which a process runs; nil stands for all CPUs.
type cpus = *unix.CPUSet

// halves divides the CPUs that this process may use between the measured nodes and the
// processes that would run on other machines in production. Both results are nil if the CPUs
// cannot be divided.
func halves(b *testing.B) (measured, others cpus) {
	b.Helper()
	all := new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, all); err != nil {
		b.Logf("the measured nodes share their CPUs with other processes: %v", err)
		return nil, nil
	}
	if all.Count() < 2 {
		b.Log("the measured nodes share their CPUs with other processes: there is only one CPU")
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

// startOn starts a process that runs only on the given CPUs.
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

// keepTo restricts this process to the given CPUs until b ends.
func keepTo(b *testing.B, set cpus) {
	b.Helper()
	b.Cleanup(restrict(b, set))
}

// restrict restricts this process to the given CPUs until restore is called.
func restrict(b *testing.B, set cpus) (restore func()) {
	b.Helper()
	if set == nil {
		return func() {}
	}
	before := new(unix.CPUSet)
	if err := unix.SchedGetaffinity(0, before); err != nil {
		b.Fatal(err)
	}
	if err := moveThreads(set); err != nil {
		b.Fatal(err)
	}
	procs := runtime.GOMAXPROCS(set.Count())
	return func() {
		runtime.GOMAXPROCS(procs)
		if err := moveThreads(before); err != nil {
			b.Error(err)
		}
	}
}

// moveThreads restricts all threads of this process to the given CPUs. A new thread inherits
// the CPUs of its creator, so moveThreads lists the threads repeatedly until it finds none
// that it has to move.
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

// processorTime returns the processor time that this process has used.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
