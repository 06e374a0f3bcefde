package guard

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// After Process the memory can not be dumped, neither into a file nor by a
// debugger of the same user.
func TestProcess(t *testing.T) {
	if os.Getenv("GUARD_TEST_CHILD") != "" {
		Process()
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		var core unix.Rlimit
		if err != nil || dumpable != 0 || unix.Getrlimit(unix.RLIMIT_CORE, &core) != nil || core.Cur != 0 {
			t.Fatalf("dumpable %d (%v), core limit %d", dumpable, err, core.Cur)
		}
		// The program still works, also with what it allocates from now on.
		if s := strings.Repeat("x", 64<<20); len(s) != 64<<20 {
			t.Fatal("no memory")
		}
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestProcess$")
	c.Env = append(os.Environ(), "GUARD_TEST_CHILD=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
