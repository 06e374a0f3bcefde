// Command ci runs the parts of "make test" so that somebody can watch them: there is
// a line of output at least every 20 seconds, and a list of what was skipped at the end.
//
//	bin/ci step LABEL COMMAND...   a command
//	bin/ci unit COMMAND... [-- COMMAND...]   "go test" with arguments, one or several at the same time
//	bin/ci fuzz DURATION           every fuzz target, some at once
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: step LABEL COMMAND... | unit COMMAND... [-- COMMAND...] | fuzz DURATION"))
	}
	var err error
	switch rest := os.Args[2:]; os.Args[1] {
	case "step":
		err = step(rest[0], exec.Command(rest[1], rest[2:]...))
	case "unit":
		err = unit(rest)
	case "fuzz":
		err = fuzz(rest[0])
	default:
		err = fmt.Errorf("%q: expected step, unit or fuzz", os.Args[1])
	}
	fail(err)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// maxQuiet is the longest time without a line of output.
const maxQuiet = 20 * time.Second

// output is standard output, to which a line is added when nothing has been written
// for a while.
type output struct {
	mu    sync.Mutex
	begin time.Time
	last  time.Time
	doing func() string
	done  chan struct{}
}

func newOutput(doing func() string) *output {
	o := &output{begin: time.Now(), last: time.Now(), doing: doing, done: make(chan struct{})}
	go o.watch()
	return o
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = time.Now()
	return os.Stdout.Write(b)
}

func (o *output) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-o.done:
			return
		case <-tick.C:
		}
		o.mu.Lock()
		quiet := time.Since(o.last) > maxQuiet
		o.mu.Unlock()
		if quiet {
			fmt.Fprintf(o, "... %s, for %v\n", o.doing(), time.Since(o.begin).Round(time.Second))
		}
	}
}

func (o *output) stop() { close(o.done) }

// step runs a command.
func step(label string, c *exec.Cmd) error {
	o := newOutput(func() string { return label })
	defer o.stop()
	fmt.Fprintln(o, label)
	c.Stdout, c.Stderr = o, o
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	return nil
}

// event is one of "go test -json"; see "go doc test2json".
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// tests follows the events of "go test -json".
type tests struct {
	out *output

	mu      sync.Mutex           // guards what follows
	running map[string]time.Time // packages
	text    map[string][]string  // output of tests that have not ended, and of packages, by name
	skipped []string
}

// unit runs one or several "go test", separated by "--", at the same time, and shows what they show without
// -json.
func unit(commands []string) (err error) {
	t := &tests{running: make(map[string]time.Time), text: make(map[string][]string)}
	t.out = newOutput(t.doing)
	defer t.out.stop()
	race := slices.Contains(commands, "-race")
	errs := make(chan error)
	n := 0
	for ; len(commands) > 0; n++ {
		command := commands
		if i := slices.Index(commands, "--"); i >= 0 {
			command, commands = commands[:i], commands[i+1:]
		} else {
			commands = nil
		}
		go func() { errs <- t.run(command) }()
	}
	for range n {
		err = errors.Join(err, <-errs)
	}
	t.report(race)
	return err
}

// run runs one "go test".
func (t *tests) run(command []string) error {
	fmt.Fprintln(t.out, strings.Join(command, " "))
	c := exec.Command(command[0], append([]string{command[1], "-json"}, command[2:]...)...)
	c.Stderr = t.out
	r, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) != nil:
			t.out.Write(line)
		default:
			t.note(e)
		}
		if err != nil {
			break
		}
	}
	return c.Wait()
}

// doing names the packages whose tests run.
func (t *tests) doing() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for p, since := range t.running {
		list = append(list, fmt.Sprintf("%s (%v)", p, time.Since(since).Round(time.Second)))
	}
	if list == nil {
		return "tests are being compiled"
	}
	slices.Sort(list)
	return "tests run: " + strings.Join(list, ", ")
}

func (t *tests) note(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		t.running[e.Package] = time.Now()
	case "build-output":
		io.WriteString(t.out, e.Output)
	case "output":
		if e.Test == "" {
			t.line(e.Output)
		} else {
			t.text[name] = append(t.text[name], e.Output)
		}
	case "skip", "pass", "fail":
		t.end(e, name)
	}
}

// line shows a line that belongs to a package: its closing line, or what its
// processes have written.
func (t *tests) line(text string) {
	if text != "PASS\n" && !strings.HasPrefix(text, "coverage:") && !strings.HasSuffix(text, "[no test files]\n") {
		io.WriteString(t.out, text)
	}
}

func (t *tests) end(e event, name string) {
	if e.Test == "" {
		delete(t.running, e.Package)
		return
	}
	text := t.text[name]
	delete(t.text, name)
	for _, line := range text {
		_, reason, found := strings.Cut(line, "_test.go:")
		if found && (e.Action == "skip" || strings.Contains(reason, ": skipped")) {
			_, reason, _ = strings.Cut(reason, ": ")
			top, _, _ := strings.Cut(e.Test, "/")
			s := fmt.Sprintf("%s %s: %s", e.Package, top, strings.TrimSpace(reason))
			if !slices.Contains(t.skipped, s) { // once for all its subtests
				t.skipped = append(t.skipped, s)
			}
		}
	}
	if e.Action == "fail" {
		for _, line := range text {
			io.WriteString(t.out, line)
		}
	}
}

// report lists what was skipped, and shows the output of the tests that did not end. race reports whether
// the race detector was used.
func (t *tests) report(race bool) {
	for name, text := range t.text {
		fmt.Fprintf(t.out, "--- has not ended: %s\n%s", name, strings.Join(text, ""))
	}
	if !race {
		t.skipped = append(t.skipped, "the race detector, in all tests: it needs cgo and a C compiler")
	}
	if len(t.skipped) == 0 {
		fmt.Fprintln(t.out, "no test was skipped")
		return
	}
	fmt.Fprintf(t.out, "skipped:\n")
	slices.Sort(t.skipped)
	for _, s := range t.skipped {
		fmt.Fprintf(t.out, "  %s\n", s)
	}
}

// fuzz runs every function named Fuzz... for a time. As many packages at once as
// there are processors have one worker each, so that no processor waits for a
// compiler, a linker, or the end of a target.
func fuzz(duration string) error {
	f := &fuzzing{duration: duration, goCommand: cmp.Or(os.Getenv("GO"), "go"), now: make(map[string]string)}
	f.out = newOutput(f.doing)
	defer f.out.stop()
	cache, err := exec.Command(f.goCommand, "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	f.found = filepath.Join(strings.TrimSpace(string(cache)), "fuzz")
	list, err := exec.Command(f.goCommand, "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}", "./...").Output()
	if err != nil {
		return err
	}
	if f.work, err = os.MkdirTemp("", "peerlink-fuzz-"); err != nil {
		return err
	}
	defer os.RemoveAll(f.work)
	type target struct{ pkg, dir string }
	targets := make(chan target)
	errs := make(chan error)
	workers := runtime.NumCPU()
	for range workers {
		go func() {
			var failed error
			for t := range targets {
				failed = errors.Join(failed, f.fuzzPackage(t.pkg, t.dir))
			}
			errs <- failed
		}()
	}
	for line := range strings.Lines(string(list)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if hasTargets(dir) {
			targets <- target{pkg, dir}
		}
	}
	close(targets)
	for range workers {
		err = errors.Join(err, <-errs)
	}
	return err
}

// fuzzing is what the workers of fuzz share.
type fuzzing struct {
	duration, goCommand string
	work                string // folder of the binaries
	found               string // folder of the inputs worth keeping: where "go test -fuzz" has them
	out                 *output

	mu  sync.Mutex
	now map[string]string // what is being done, by package
}

func (f *fuzzing) doing() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for pkg, what := range f.now {
		list = append(list, what+" "+pkg)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// do runs a command in a folder, and returns what it has written. what is the beginning of the
// text for doing and for the error; the package follows.
func (f *fuzzing) do(what, pkg, dir string, command ...string) (text string, err error) {
	f.mu.Lock()
	f.now[pkg] = what
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.now, pkg)
		f.mu.Unlock()
	}()
	c := exec.Command(command[0], command[1:]...)
	c.Dir = dir // for the seeds in testdata
	out, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w", what, pkg, err)
	}
	return string(out), err
}

// fuzzPackage runs the fuzz targets of a package.
func (f *fuzzing) fuzzPackage(pkg, dir string) error {
	binary := filepath.Join(f.work, strings.ReplaceAll(pkg, "/", "-"))
	// Once for all targets of the package, which "go test" would link for each.
	// SQLite is only linked, no target calls it: there is nothing to optimize.
	text, err := f.do("compiling the fuzz targets of", pkg, dir, f.goCommand, "test", "-c", "-fuzz", ".", "-vet=off",
		"-gcflags=all=-dwarf=false", "-gcflags=modernc.org/...=-dwarf=false -N -l", "-o", binary, pkg)
	if err != nil {
		io.WriteString(f.out, text)
		return err
	}
	defer os.Remove(binary)
	targets, err := f.do("listing the fuzz targets of", pkg, dir, binary, "-test.list", "^Fuzz")
	if err != nil {
		return err
	}
	for _, target := range strings.Fields(targets) {
		text, err := f.do("fuzz "+target+" of", pkg, dir, binary, "-test.run", "^$", "-test.fuzz", "^"+target+"$",
			"-test.fuzztime", f.duration, "-test.parallel", "1", "-test.fuzzcachedir", filepath.Join(f.found, pkg))
		if err != nil && timeIsOver(target, text) {
			text = "nothing was found: the end of the time was taken for a failure (https://go.dev/issue/75804)\n"
			err = nil
		}
		fmt.Fprintf(f.out, "fuzz %s %s\n%s", pkg, target, text)
		if err != nil {
			return err
		}
	}
	return nil
}

func hasTargets(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.Contains(text, []byte("\nfunc Fuzz"))
	})
}

// timeIsOver reports whether a target that failed found nothing. Before Go 1.27, the
// end of the given time is sometimes taken for a failure (https://go.dev/issue/75804):
// then the error is this one alone. A real failure has the log of the target, or names
// the input.
func timeIsOver(target, text string) bool {
	_, failure, found := strings.Cut(text, "--- FAIL: "+target+" (")
	_, failure, _ = strings.Cut(failure, "s)\n")
	return found && strings.TrimSuffix(failure, "exit status 1\n") == "    context deadline exceeded\nFAIL\n"
}
