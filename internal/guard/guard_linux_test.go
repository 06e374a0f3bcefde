package guard

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// After ProtectProcess, and after ConfineService, the memory cannot be dumped, neither to
// a file nor by a debugger of the same user.
func TestProcess(t *testing.T) {
	protections := map[string]func(){"process": ProtectProcess, "service": ConfineService}
	if protect := protections[os.Getenv("GUARD_TEST_CHILD")]; protect != nil {
		protect()
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		var core unix.Rlimit
		if err != nil || dumpable != 0 || unix.Getrlimit(unix.RLIMIT_CORE, &core) != nil || core.Cur != 0 {
			t.Fatalf("dumpable %d (%v), core limit %d", dumpable, err, core.Cur)
		}
		// The program still works, also with later allocations.
		if s := strings.Repeat("x", 64<<20); len(s) != 64<<20 {
			t.Fatal("no memory")
		}
		return
	}
	for name := range protections {
		c := exec.Command(os.Args[0], "-test.run=^TestProcess$")
		c.Env = append(os.Environ(), "GUARD_TEST_CHILD="+name)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
