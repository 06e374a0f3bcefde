package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// progressDelay is how long a command works before it shows its progress.
	progressDelay = time.Second
	// progressInterval is the interval between two updates.
	progressInterval = 200 * time.Millisecond
	// barWidth is the width of the bar that shows which part is done.
	barWidth = 40
)

// A progress shows on the terminal of standard error, in one line, what a command is doing, if that takes
// longer than progressDelay. Nothing else may be written to the terminal until it is stopped. The methods
// do nothing if standard error is not a terminal.
type progress struct {
	to    io.Writer // nil if nothing is to be shown
	width int
	text  string
	since time.Time

	mu          sync.Mutex
	unit        string // after the numbers, such as " MiB"
	done, total int    // total is 0 if it is not known

	quit chan struct{}
	wait sync.WaitGroup
}

// startProgress starts to show the progress of what the text describes, such as "Reading the messages".
func (a *app) startProgress(text string) *progress {
	p := &progress{text: text, since: time.Now(), width: a.width(a.stderr), quit: make(chan struct{})}
	if p.width == 0 || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.to = raw(a.stderr) // the texts are the program's own
	p.wait.Go(p.run)
	return p
}

// working is startProgress for what has no known size. It returns the function that stops it.
func (a *app) working(text string) (stop func()) { return a.startProgress(text).stop }

// set records how much is done, and how much there is in total; a total of 0 means that it is not known.
func (p *progress) set(done, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// setUnit sets what is shown after the numbers.
func (p *progress) setUnit(unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unit = unit
}

// stop removes the line from the terminal. It must be called exactly once.
func (p *progress) stop() {
	close(p.quit)
	p.wait.Wait()
}

func (p *progress) run() {
	wait := time.NewTimer(progressDelay)
	defer wait.Stop()
	shown := false
	for {
		select {
		case <-p.quit:
			if shown {
				fmt.Fprint(p.to, "\r\x1b[K")
			}
			return
		case <-wait.C:
			fmt.Fprint(p.to, "\r\x1b[K"+cutTo(p.line(), p.width-1))
			shown = true
			wait.Reset(progressInterval)
		}
	}
}

// line returns what is shown at present.
func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.total > 0:
		filled := barWidth * min(p.done, p.total) / p.total
		return fmt.Sprintf("  %s%s %d of about %d%s", strings.Repeat("█", filled), strings.Repeat("░", barWidth-filled), p.done, p.total, p.unit)
	case p.done > 0:
		return fmt.Sprintf("%s: %d%s…", p.text, p.done, p.unit)
	}
	return fmt.Sprintf("%s… %d s", p.text, int(time.Since(p.since).Seconds()))
}
