package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/cmd/peerlink/internal/cli"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// runMain is the environment variable that, if set, makes the test binary behave as peerlink.
const runMain = "PEERLINK_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		os.Exit(cli.Main(os.Args[1:]))
	}
	// What services record about themselves must not stay on the machine.
	states, err := os.MkdirTemp("", "peerlink-states-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_STATE_HOME", states)
	code := rabbittest.Run(m)
	os.RemoveAll(states)
	os.RemoveAll(built.dir)
	os.Exit(code)
}

// built is the folder of the peerlink binary. The binary is built as by "make build", except
// that making and opening encrypted keys and shares takes little time.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// build returns the folder of the peerlink binary, which is built on the first call.
func build(t *testing.T) (dir string) {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "peerlink-bin-"); built.err != nil {
			return
		}
		c := exec.Command("go", "build", "-tags", "peerlink_test_cost", "-o", filepath.Join(built.dir, "peerlink"+exe()), ".")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build: %v", built.err)
	}
	return built.dir
}

// program returns the path of the peerlink binary. It is built without the race detector,
// which would make a process several times slower. Races are detected in the tests of the
// packages, and in processes that run the test binary and whose exit code is checked: a
// process that is killed does not report the races it has detected.
func program(t *testing.T) string {
	t.Helper()
	return filepath.Join(build(t), "peerlink"+exe())
}

// shortTempDir makes a folder whose path is short even if TMPDIR is long: sockets are in it.
func shortTempDir(t *testing.T) string {
	t.Helper()
	parent := ""
	if runtime.GOOS != "windows" {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "pl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The scenarios in testdata/script use the commands of the peerlink binary as an operator
// would.
func TestScripts(t *testing.T) {
	t.Parallel()
	bin := build(t)
	testscript.Run(t, testscript.Params{
		Dir:         "testdata/script",
		WorkdirRoot: shortTempDir(t),
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			// The scripts must not depend on settings of the machine.
			env.Setenv("NO_COLOR", "1")
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".s"))
			for i := range 4 {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				env.Setenv(fmt.Sprintf("ADDR%d", i), l.Addr().String())
				l.Close()
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "pass"), []byte("correct horse battery staple\n"), 0o600)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "openssl":
				_, err := exec.LookPath("openssl")
				return err == nil, nil
			case "sshagent":
				return hasSSHAgent(), nil
			case "softhsm":
				return hasSoftHSM(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"snapshot":    snapshot,
			"readenv":     readEnv,
			"fingerprint": fingerprintOf,
			"unchanged":   unchanged,
			"waitfor":     waitFor,
			"zipadd":      zipAdd,
			"truncate":    truncate,
			"publish":     publish,
			"waitaside":   waitAside,
			"jsondoc":     jsondoc,
			"sshagent":    sshAgent,
			"agentkey":    agentKey,
			"aside":       aside,
			"proxy":       startProxy,
			"https":       serveHTTPS,
		},
	})
}

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// readenv NAME FILE sets a variable to the content of a file of one line.
func readEnv(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// fingerprint NAME BUNDLE sets the variables NAME and NAMEWORDS to the fingerprint of a bundle's root
// key and its words, which the owner of the key would read out on the telephone.
func fingerprintOf(ts *testscript.TestScript, neg bool, args []string) {
	b, err := infobundle.Read([]byte(ts.ReadFile(args[1])), time.Now())
	ts.Check(err)
	ts.Setenv(args[0], pki.Fingerprint(b.Root.PublicKey))
	ts.Setenv(args[0]+"WORDS", strings.Join(pki.FingerprintWords(b.Root.PublicKey), " "))
}

// snapshot DIR records the content of a directory.
func snapshot(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv("SNAPSHOT", fingerprint(ts, args[0]))
}

// unchanged DIR fails if any byte in the directory has changed since the last snapshot.
func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	if fingerprint(ts, args[0]) != ts.Getenv("SNAPSHOT") {
		ts.Fatalf("%s has changed", args[0])
	}
}

func fingerprint(ts *testscript.TestScript, dir string) string {
	h := sha256.New()
	ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v\n", path, fi.Mode())
		if e.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(h, "%x\n", sha256.Sum256(data))
		return err
	}))
	return fmt.Sprintf("%x", h.Sum(nil))
}

// waitfor FILE TEXT waits until the file contains the text.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s does not contain %q:\n%s", args[0], args[1], data)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
