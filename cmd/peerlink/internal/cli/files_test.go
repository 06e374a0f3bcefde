package cli

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reading maps each command to arguments with which it reads every file that it
// accepts, and to several lines of arguments if it does not accept all of them at
// once. Names in braces are files that makeInputFiles makes.
var reading = map[string][]string{
	"":                      {""},
	"bundle create":         {"out.zip --key={key} --passphrase-file={pass}"},
	"bundle inspect":        {"{bundle}"},
	"check":                 {"--key=key --server-cert={server.crt} --server-key={server.key}"},
	"dashboard":             {"--state=state"},
	"doctor":                {"--server-cert={server.crt} --server-key={server.key} --proxy=http://me@127.0.0.1:1 --proxy-password-file={pass}"},
	"fulfil":                {"{request} new-answer --yes --key={key} --passphrase-file={pass}"},
	"init":                  {"creditors-agent -C new-node --server localhost:1 --passphrase-file={pass}", "accounting-authority --id random --list={registry} -C new-node2 --server localhost:1 --passphrase-file=pass"},
	"key drill":             {"--key={key} --passphrase-file={pass}", "{share1} {share2}"},
	"key join":              {"{share1} {share2} --out joined.key --passphrase-file={pass}"},
	"key passphrase":        {"--key={key} --passphrase-file={pass} --new-passphrase-file={pass2}"},
	"key split":             {"--shares 3 --threshold 2 --out new-shares --text --key={key} --passphrase-file={pass}"},
	"links":                 {"--state=state"},
	"log-level":             {"--state=state"},
	"message check":         {"--peer BOB --direction in --type ConfigureAccount {message}"},
	"peer add":              {"{other.zip} --key={key} --passphrase-file={pass}", "{peer.crt}", "{other-aa.zip} -C peer --registry={registry}", "other-aa.zip -C peer --registry=registry --registry-key={public.key}"},
	"peer deactivate":       {"BOB"},
	"peer follow":           {"BOB on"},
	"peer list":             {""},
	"peer name":             {"BOB"},
	"peer queues":           {"BOB 2"},
	"peer register":         {"{peer.crt}"},
	"peer remove":           {"BOB"},
	"peer replace":          {"BOB {other-ca.zip} --subnet=new --fingerprint=FINGERPRINT --key={key} --passphrase-file={pass}", "1234abcd {other-aa.zip} -C peer --registry={registry}", "1234abcd other-aa.zip -C peer --registry=registry --registry-key={public.key}"},
	"peer resume":           {"BOB"},
	"peer show":             {"BOB"},
	"peer sign":             {"{other.zip} --key={key} --passphrase-file={pass}", "{other-aa.zip} -C peer --registry={registry}", "other-aa.zip -C peer --registry=registry --registry-key={public.key}"},
	"peer suspend":          {"BOB"},
	"ping":                  {"BOB --server-cert={server.crt} --server-key={server.key} --proxy=http://me@127.0.0.1:1 --proxy-password-file={pass}"},
	"queue drop":            {"BOB --all --yes --state=state --save=saved"},
	"queue list":            {"--state=state"},
	"queue retry":           {"BOB --all --state=state"},
	"queue show":            {"BOB --state=state"},
	"request file":          {"{answer}"},
	"request forget":        {"7"},
	"request list":          {""},
	"request new":           {"new-request --csr={server.csr}", "new-request --peer={other.zip}", "new-request --replace=BOB={other-ca.zip} --subnet=new --fingerprint=FINGERPRINT", "new-request -C peer --peer=other-aa.zip --registry={registry}", "new-request -C peer --peer=other-aa.zip --registry=registry --registry-key={public.key}"},
	"send":                  {"BOB {message} --state=new-state"},
	"serve":                 {"--listen 127.0.0.1:0 --local-listen none --state=new-state --server-cert={server.crt} --server-key={server.key} --proxy=http://me@127.0.0.1:1 --proxy-password-file={pass}"},
	"server-cert issue":     {"new.key new.crt --key={key} --passphrase-file={pass}"},
	"server-cert inspect":   {"{server.crt}"},
	"server-cert list":      {""},
	"server-cert renew":     {"{server.key} {server.crt} --key={key} --passphrase-file={pass}"},
	"server-cert request":   {"new.key new.csr"},
	"server-cert revoke":    {"{server.crt}"},
	"server-cert sign":      {"{server.csr} new.crt --key={key} --passphrase-file={pass}"},
	"state adopt":           {"--yes --state=state"},
	"state backup":          {"new-backup --state=state"},
	"state export":          {"--broker=amqp://127.0.0.1:1 --state=state"},
	"state restore":         {"{backup} --state=new-state"},
	"tail":                  {"--state=state"},
	"verify":                {"--trusted={node/root-ca.crt} --untrusted={peer.crt} {server.crt}"},
	"swpt-server":           {"--server-port=0 --broker-url=amqp://127.0.0.1:1 --server-cert={server.crt} --server-key={server.key}"},
	"swpt-client":           {"BOB q --broker-url=amqp://127.0.0.1:1 --server-cert={server.crt} --server-key={server.key} --proxy=http://me@127.0.0.1:1 --proxy-password-file={pass}"},
	"swpt-drainer":          {"BOB q --broker-url=amqp://127.0.0.1:1"},
	"configure-queue":       {"BOB q --broker-url=amqp://127.0.0.1:1"},
	"completion bash":       {""},
	"completion fish":       {""},
	"completion powershell": {""},
	"completion zsh":        {""},
	"help":                  {""},
	"man":                   {"manual"},
	"version":               {""},
	"demo":                  nil, // reads no files
}

// notRead lists the flags with files that the command does not read: output files,
// and files that are read only later.
var notRead = []string{
	"init --key", "check --key", // the key may be kept on another machine
	"key split --out", "queue drop --save", "demo --keep",
	"serve --publish-file", "doctor --publish-file", // read when a client requests it
	// State folders, which are created if they are missing; without a service or
	// messages, the commands read nothing in them.
	"dashboard --state", "doctor --state", "links --state", "log-level --state", "tail --state", "send --state", "serve --state",
	"queue drop --state", "queue list --state", "queue retry --state", "queue show --state",
	"state adopt --state", "state backup --state", "state export --state", "state restore --state",
	"request new --bundle", "server-cert renew --csr", // output files
}

// damages lists the defects that the tests give to a needed file; put creates the
// defect at path.
var damages = []struct {
	name string
	put  func(path string) error
}{
	{"missing", func(string) error { return nil }},
	{"empty", func(path string) error { return os.WriteFile(path, nil, 0o600) }},
	{"garbage", func(path string) error { return os.WriteFile(path, []byte("\x00\xff-----BEGIN \x1b[31m\n7"), 0o600) }},
	{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	{"unreadable", func(path string) error { return os.WriteFile(path, []byte("text"), 0) }},
}

// runCLI runs a command line in this process, with an empty standard input.
func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return runCLIContext(ctx, t, args...)
}

func runCLIContext(ctx context.Context, t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out, errs bytes.Buffer
	a := &app{stdin: null, stdout: &out, stderr: &errs}
	code = a.run(ctx, args)
	a.closeLogs()
	return code, out.String(), errs.String()
}

// inputFiles is what the first call of makeInputFiles has made: passphrases cost seconds of processor time.
var inputFiles struct {
	bob     string
	entries []inputFile // folders before what is in them
}

// inputFile is a file or folder in inputFiles.
type inputFile struct {
	path string
	mode fs.FileMode
	data []byte
}

// makeInputFiles makes, in the working folder, a node "node" with a peer, and files of every kind that
// commands read; see reading. It returns the peer's ID. Tests that call it are not parallel.
func makeInputFiles(t *testing.T) (bob string) {
	t.Helper()
	if inputFiles.bob == "" {
		bob := makeNewInputFiles(t)
		err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == "." {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			f := inputFile{path: path, mode: fi.Mode()}
			if !e.IsDir() {
				f.data, err = os.ReadFile(path)
			}
			inputFiles.entries = append(inputFiles.entries, f)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		inputFiles.bob = bob
		return bob
	}
	for _, f := range inputFiles.entries {
		var err error
		if f.mode.IsDir() {
			err = os.Mkdir(f.path, 0o700)
		} else {
			err = os.WriteFile(f.path, f.data, 0o600)
		}
		if err == nil {
			err = os.Chmod(f.path, f.mode.Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return inputFiles.bob
}

func makeNewInputFiles(t *testing.T) (bob string) {
	t.Helper()
	must := func(line string) {
		t.Helper()
		if code, _, stderr := runCLI(t, strings.Fields(line)...); code != 0 {
			t.Fatalf("peerlink %s: %d\n%s", line, code, stderr)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pass", "correct horse battery staple\n")
	write("pass2", "correct horse battery staples\n")
	const pass = " --passphrase-file pass"
	must("-C node init accounting-authority --id 1234abcd --key-type p256 --server 127.0.0.1:1" + pass)
	must("-C peer init creditors-agent --key-type p256 --server 127.0.0.1:2" + pass)
	id, err := os.ReadFile("peer/db/nodeid")
	if err != nil {
		t.Fatal(err)
	}
	bob = strings.TrimSpace(string(id))
	must("-C node bundle create node.zip" + pass)
	must("-C peer bundle create bundle" + pass)
	must("-C node peer sign bundle" + pass)
	_, stdout, _ := runCLI(t, "bundle", "inspect", "--json", "node.zip")
	_, fingerprint, _ := strings.Cut(stdout, `"sha256:`)
	fingerprint, _, _ = strings.Cut(fingerprint, `"`)
	must("-C peer peer sign node.zip --fingerprint sha256:" + fingerprint + pass)
	copyFile(t, "peer/peers/1234abcd/peercert.crt", "peer.crt")
	must("-C node peer register peer.crt")
	must("-C other init debtors-agent --key-type p256 --server 127.0.0.1:3" + pass)
	must("-C other bundle create other.zip" + pass)
	must("-C other-ca init creditors-agent --key-type p256 --server 127.0.0.1:3" + pass)
	must("-C other-ca bundle create other-ca.zip" + pass)
	_, stdout, _ = runCLI(t, "bundle", "inspect", "--json", "other-ca.zip")
	write("other-ca.fingerprint", regexp.MustCompile("sha256:[0-9a-f]{64}").FindString(stdout))
	must("-C other-aa init accounting-authority --id 1234abce --key-type p256 --server 127.0.0.1:4" + pass)
	must("-C other-aa bundle create other-aa.zip" + pass)
	must("-C node server-cert issue server.key server.crt" + pass)
	must("-C node server-cert request other.key server.csr")
	must("-C node server-cert request other2.key other.csr")
	must("-C node request new request --csr other.csr")
	must("-C node fulfil request answer --yes" + pass)
	must("-C node key split --shares 2 --threshold 2 --out shares --text" + pass)
	shares, err := filepath.Glob("shares/*.txt")
	if err != nil || len(shares) != 2 {
		t.Fatalf("shares: %v, %v", shares, err)
	}
	copyFile(t, shares[0], "share1")
	copyFile(t, shares[1], "share2")
	copyFile(t, "node/private/root-ca.key", "key")
	write("message", `{"type": "ConfigureAccount", "debtor_id": 1, "creditor_id": 1, "negligible_amount": 0.0, "config_data": "", "config_flags": 0, "seqnum": 1, "ts": "2026-01-01T12:00:00Z"}`)
	write("registry", "")
	write("public.key", "")
	return bob
}

// fillIn replaces, in a line of reading, BOB by the ID of the peer, and FINGERPRINT by that of the node in
// other-ca.zip.
func fillIn(t *testing.T, line, bob string) string {
	t.Helper()
	fingerprint, err := os.ReadFile("other-ca.fingerprint")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("BOB", bob, "FINGERPRINT", string(fingerprint)).Replace(line)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// leaves returns the root command and all commands without subcommands, by their
// names without "peerlink".
func leaves(c *cobra.Command) map[string]*cobra.Command {
	c.InitDefaultHelpCmd()
	c.InitDefaultCompletionCmd()
	found := make(map[string]*cobra.Command)
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() || !c.HasParent() {
			_, name, _ := strings.Cut(c.CommandPath(), " ")
			found[name] = c
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(c)
	return found
}

// The variable reading has every command and every flag for a file: a new command or
// flag has to be added there.
func TestReadingIsComplete(t *testing.T) {
	all := leaves((&app{}).root())
	for name, c := range all {
		lines, known := reading[name]
		if !known {
			t.Errorf("reading has no command %q", name)
			continue
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			kind, _ := pflag.UnquoteUsage(f)
			if !strings.Contains(kind, "FILE") && !strings.Contains(kind, "DIR") || slices.Contains(notRead, name+" --"+f.Name) {
				return
			}
			given := regexp.MustCompile("--" + f.Name + "=([A-Z0-9]+=)?{") // PEER=FILE
			if !given.MatchString(strings.Join(lines, " ")) {
				t.Errorf("reading has no flag --%[2]s of %[1]q", name, f.Name)
			}
		})
	}
	for name := range reading {
		if all[name] == nil {
			t.Errorf("reading has %q, which is not a command", name)
		}
	}
}

// If a file that a command needs is missing or damaged, the command ends with an
// error that names the file, and never with a panic.
func TestEveryFileMissing(t *testing.T) {
	t.Chdir(t.TempDir())
	bob := makeInputFiles(t)
	t.Run("arguments", func(t *testing.T) { testFilesMissing(t, bob) })
	t.Run("node", func(t *testing.T) { testNodeFilesMissing(t, bob) })
}

// testFilesMissing replaces the files that the arguments name.
func testFilesMissing(t *testing.T, bob string) {
	for _, name := range slices.Sorted(keys(reading)) {
		for _, line := range reading[name] {
			args := commandLine(name, fillIn(t, line, bob))
			if strings.Contains(line, "{") {
				checkNamesFile(t, "all missing", allMissing(args), "nowhere")
			}
			for i, arg := range args {
				before, rest, found := strings.Cut(arg, "{")
				if !found {
					continue
				}
				file := strings.TrimSuffix(rest, "}")
				for _, d := range damages {
					if d.name == "unreadable" && (os.Getuid() == 0 || runtime.GOOS == "windows") {
						continue // root can read everything
					}
					if d.name == "garbage" && (file == "pass2" || name == "init") {
						continue // nearly every text can be a new passphrase
					}
					path := filepath.Join(t.TempDir(), filepath.Base(file))
					if err := d.put(path); err != nil {
						t.Fatal(err)
					}
					line := slices.Clone(args)
					line[i] = before + path
					for j := range line {
						line[j] = strings.NewReplacer("{", "", "}", "").Replace(line[j])
					}
					checkNamesFile(t, d.name+" "+file, line, path)
				}
			}
		}
	}
}

// allMissing returns args with each file in braces replaced by a file that does not
// exist.
func allMissing(args []string) []string {
	var missing []string
	for _, arg := range args {
		before, name, found := strings.Cut(arg, "{")
		if found {
			arg = before + filepath.Join("nowhere", strings.TrimSuffix(name, "}"))
		}
		missing = append(missing, arg)
	}
	return missing
}

func keys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// commandLine makes the arguments of a command that works on "node".
func commandLine(name, line string) []string {
	args := append(strings.Fields(name), strings.Fields(line)...)
	switch {
	case strings.HasPrefix(name, "swpt-"), name == configureQueue:
		dir, err := filepath.Abs("node")
		if err != nil {
			panic(err)
		}
		return append(args, "--nodedata-url=file://"+dir)
	case slices.Contains(args, "-C"):
		return args
	}
	return append([]string{"-C", "node"}, args...)
}

func checkNamesFile(t *testing.T, what string, args []string, path string) {
	t.Helper()
	code, stdout, stderr := runCLI(t, args...)
	switch {
	case panicked(stderr):
		t.Errorf("%s: peerlink %s panics:\n%s", what, strings.Join(args, " "), stderr)
	case code == exitDone:
		t.Errorf("%s: peerlink %s succeeds:\n%s", what, strings.Join(args, " "), stdout)
	case !strings.Contains(stdout+stderr, filepath.Base(path)):
		t.Errorf("%s: peerlink %s does not name the file:\n%s", what, strings.Join(args, " "), stderr)
	}
}

func panicked(stderr string) bool { return strings.Contains(stderr, "goroutine ") }

// testNodeFilesMissing damages the node's directory, or the file root-ca.crt in it,
// which every command needs, and runs the commands that need no passphrase.
func testNodeFilesMissing(t *testing.T, bob string) {
	if err := os.Rename("node", "whole"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"", "root-ca.crt"} {
		for _, d := range damages {
			if d.name == "unreadable" {
				continue
			}
			if err := os.RemoveAll("node"); err != nil {
				t.Fatal(err)
			}
			if file != "" {
				if err := os.CopyFS("node", os.DirFS("whole")); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join("node", file)
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := d.put(path); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{
				"bundle create", "peer list", "peer show", "peer register", "peer queues", "peer deactivate", "peer follow", "peer sign",
				"server-cert request", "server-cert issue", "request new", "request list", "send", "serve", "tail",
				"swpt-server", "swpt-client", "swpt-drainer", "configure-queue",
			} {
				line := strings.NewReplacer("{", "", "}", "").Replace(fillIn(t, reading[name][0], bob))
				checkNamesFile(t, d.name+" "+path, commandLine(name, line), "node")
			}
		}
	}
}

// Wrong usage of a service has its own exit code, after which the systemd unit does not
// restart the service. The exit code 2, which other commands have for wrong usage, is
// also that of a Go program that panics.
func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"peer list --nonsense":            exitUsage,
		"serve --nonsense":                exitServiceUsage,
		"serve --log-level loud":          exitServiceUsage,
		"serve argument":                  exitServiceUsage,
		"-C nowhere serve":                exitFailed,
		"-C nowhere peer list":            exitFailed,
		"swpt-server --nonsense":          exitServiceUsage,
		"swpt-server --server-port 99999": exitServiceUsage,
		"swpt-client":                     exitServiceUsage,
		"swpt-drainer 1234abcd":           exitServiceUsage,
		"configure-queue":                 exitUsage,
		"version":                         exitDone,
	} {
		if code, _, stderr := runCLI(t, strings.Fields(line)...); code != want {
			t.Errorf("peerlink %s: exit code %d, want %d\n%s", line, code, want, stderr)
		}
	}
	unit, err := os.ReadFile("../../../../deploy/systemd/peerlink.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nRestart=always\n", fmt.Sprintf("\nRestartPreventExitStatus=%d\n", exitServiceUsage)} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("the unit has no %q", want)
		}
	}
}

// A command that panics has the exit code of a failure, not that of wrong usage.
func TestPanicIsFailure(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stderr: &stderr}
	code := func() (code int) {
		defer a.reportPanic(&code)
		panic("no such thing")
	}()
	if code != exitFailed || !strings.Contains(stderr.String(), "no such thing") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}
