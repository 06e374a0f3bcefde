// Command ci runs the parts of "make test" so that somebody can watch them: there is
// a line of output at least every 20 seconds, and a list of what was skipped at the end.
//
//	bin/ci step LABEL COMMAND...   a command
//	bin/ci unit COMMAND...         "go test" with arguments
//	bin/ci fuzz DURATION           every fuzz target, one after the other
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: step LABEL COMMAND... | unit COMMAND... | fuzz DURATION"))
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

// silence is the longest time without a line of output.
const silence = 20 * time.Second

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
		quiet := time.Since(o.last) > silence
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
	command []string
	out     *output
	running map[string]time.Time // packages
	mu      sync.Mutex           // guards running

	text    map[string][]string // output of tests that have not ended, and of packages, by name
	skipped []string
}

// unit runs "go test", and shows what it shows without -json.
func unit(command []string) error {
	t := &tests{command: command, running: make(map[string]time.Time), text: make(map[string][]string)}
	t.out = newOutput(t.doing)
	defer t.out.stop()
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
	err = c.Wait()
	t.report()
	return err
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
	name := e.Package + " " + e.Test
	switch e.Action {
	case "start":
		t.mu.Lock()
		t.running[e.Package] = time.Now()
		t.mu.Unlock()
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
		t.mu.Lock()
		delete(t.running, e.Package)
		t.mu.Unlock()
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

// report says what was skipped, and shows what tests wrote that did not end.
func (t *tests) report() {
	for name, text := range t.text {
		fmt.Fprintf(t.out, "--- has not ended: %s\n%s", name, strings.Join(text, ""))
	}
	if !slices.Contains(t.command, "-race") {
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

// fuzz runs every function named Fuzz... for a time.
func fuzz(duration string) error {
	now := "the fuzz targets are being found"
	o := newOutput(func() string { return now })
	defer o.stop()
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	cache, err := exec.Command(goCommand, "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	found := filepath.Join(strings.TrimSpace(string(cache)), "fuzz") // inputs worth keeping: where "go test -fuzz" has them
	list, err := exec.Command(goCommand, "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}", "./...").Output()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "peerlink-fuzz-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	binary := filepath.Join(work, "test")
	for line := range strings.Lines(string(list)) {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if !hasTargets(dir) {
			continue
		}
		now = "compiling the fuzz targets of " + pkg
		// Once for all targets of the package, which "go test" would link for each.
		// SQLite is only linked, no target calls it: there is nothing to optimize.
		c := exec.Command(goCommand, "test", "-c", "-fuzz", ".", "-vet=off", "-gcflags=all=-dwarf=false", "-gcflags=modernc.org/...=-dwarf=false -N -l", "-o", binary, pkg)
		c.Stdout, c.Stderr = o, o
		if err := c.Run(); err != nil {
			return err
		}
		// What parsers cost is exact without the race detector only.
		now = "costs " + pkg
		c = exec.Command(binary, "-test.run", "Cost$")
		c.Dir = dir
		c.Stdout, c.Stderr = o, o
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w", now, err)
		}
		c = exec.Command(binary, "-test.list", "^Fuzz")
		c.Dir = dir // for the seeds in testdata
		targets, err := c.Output()
		if err != nil {
			return err
		}
		for _, target := range strings.Fields(string(targets)) {
			now = "fuzz " + pkg + " " + target
			fmt.Fprintln(o, now)
			var text bytes.Buffer
			c := exec.Command(binary, "-test.run", "^$", "-test.fuzz", "^"+target+"$", "-test.fuzztime", duration, "-test.fuzzcachedir", filepath.Join(found, pkg))
			c.Dir = dir
			c.Stdout = io.MultiWriter(o, &text)
			c.Stderr = c.Stdout
			if err := c.Run(); err != nil {
				if !timeIsOver(target, text.String()) {
					return fmt.Errorf("%s: %w", now, err)
				}
				fmt.Fprintln(o, "nothing was found: the end of the time was taken for a failure (https://go.dev/issue/75804)")
			}
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
