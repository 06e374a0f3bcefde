//go:build linux

package faulttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process keeps the process of a node running, as a supervisor would.
type process struct {
	name   string
	errorf func(format string, args ...any) // called for events that must not happen
	log    *tail
	done   chan struct{} // closed when the supervisor has ended

	mu           sync.Mutex
	news         sync.Cond // signals that a field below has changed
	settings     nodeSettings
	cmd          *exec.Cmd // nil if none is running
	input        io.Writer // of cmd
	output       *logPipe  // of cmd
	held         int       // number of faults that prevent it from running
	over         bool
	endedBySuite bool // the suite has ended the process
	starts       int
	failed       int   // starts that failed
	peak         int64 // maximum memory of a process, in KiB
}

// restartPause is how long the supervisor waits before it starts a process again.
const restartPause = 50 * time.Millisecond

func startProcess(name string, s nodeSettings, errorf func(format string, args ...any)) *process {
	p := &process{name: name, errorf: errorf, log: new(tail), done: make(chan struct{}), settings: s}
	p.news.L = &p.mu
	go p.supervise()
	return p
}

func (p *process) supervise() {
	defer close(p.done)
	for p.mayStart() {
		p.runOnce()
		time.Sleep(restartPause)
	}
}

// mayStart waits until the process may run. It returns false at the end of the test.
func (p *process) mayStart() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held > 0 && !p.over {
		p.news.Wait()
	}
	return !p.over
}

// runOnce starts the process, and returns when it has ended.
func (p *process) runOnce() {
	cmd, err := p.start()
	if err != nil {
		p.errorf("%s cannot be started: %v", p.name, err)
		return
	}
	err = cmd.Wait()
	p.output.end() // all of its output is in p.log
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = nil
	p.news.Broadcast()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		p.peak = max(p.peak, usage.Maxrss)
	}
	switch {
	case p.endedBySuite:
	case strings.Contains(p.log.String(), serving):
		p.errorf("%s has ended by itself, %v:\n%s", p.name, err, p.log)
	default:
		p.failed++ // its disk is full, or its certificate has expired
	}
}

func (p *process) start() (*exec.Cmd, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	settings, err := json.Marshal(p.settings)
	if err != nil {
		return nil, err
	}
	p.log.Reset()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), settingsVariable+"="+string(settings))
	output, err := newLogPipe(p.log)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = output.written
	// The process ends with the test, but not by a ^C on the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if p.input, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		output.end()
		return nil, err
	}
	p.cmd, p.output, p.endedBySuite = cmd, output, false
	p.starts++
	p.news.Broadcast()
	return cmd, nil
}

// count returns how often the process was started.
func (p *process) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// signal sends a signal to the process, if there is one.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signalLocked(s)
}

func (p *process) signalLocked(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.endedBySuite = true
	}
	// The process may have ended at this moment.
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.errorf("sending %v to %s: %v", s, p.name, err)
	}
}

// hold ends the process with a signal and prevents a restart until release is called.
// It returns when the process has ended.
func (p *process) hold(s syscall.Signal) {
	defer p.killIfLate().Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held++
	p.signalLocked(s)
	for p.cmd != nil {
		p.news.Wait()
	}
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held--
	p.news.Broadcast()
}

// end ends the process permanently, in good order.
func (p *process) end() {
	p.mu.Lock()
	p.over = true
	p.signalLocked(syscall.SIGCONT)
	p.signalLocked(syscall.SIGTERM)
	p.news.Broadcast()
	p.mu.Unlock()
	defer p.killIfLate().Stop()
	<-p.done
}

// killIfLate kills the process if it has not ended within bound.
func (p *process) killIfLate() *time.Timer {
	return time.AfterFunc(bound, func() {
		p.errorf("%s does not end within %v:\n%s", p.name, bound, p.log)
		p.signal(syscall.SIGKILL)
	})
}

// setClock sets the node's clock ahead.
func (p *process) setClock(ahead time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings.Clock = ahead
	if p.cmd != nil {
		fmt.Fprintln(p.input, ahead) // a process that has ended does not need it
	}
}

// limit lowers a resource limit of the process. undo restores it if the process is
// still running: a new process has the old limit.
func (p *process) limit(resource int, value uint64) (undo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return func() {}
	}
	cmd, old := p.cmd, unix.Rlimit{}
	if err := unix.Prlimit(cmd.Process.Pid, resource, nil, &old); err != nil {
		p.errorf("%s: reading a resource limit: %v", p.name, err)
	}
	set := func(l unix.Rlimit) {
		if err := unix.Prlimit(cmd.Process.Pid, resource, &l, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			p.errorf("%s: setting a resource limit: %v", p.name, err)
		}
	}
	set(unix.Rlimit{Cur: value, Max: old.Max})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cmd == cmd {
			set(old)
		}
	}
}

// blockLog stops reading the log of the process, and fills the pipe. undo resumes
// reading.
func (p *process) blockLog() (undo func()) {
	p.mu.Lock()
	output := p.output
	p.mu.Unlock()
	if output == nil {
		return func() {}
	}
	if err := output.block(); err != nil {
		p.errorf("%s: filling the pipe of the log: %v", p.name, err)
	}
	return output.release
}

// breakLog closes the reader of the log of the process.
func (p *process) breakLog() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.output != nil {
		p.output.read.Close()
	}
}

// logPipe is the pipe to which a process writes its log.
type logPipe struct {
	read, written *os.File
	ended         chan struct{}
	mu            sync.Mutex
	held          chan struct{} // closed when reading the log may resume
}

func newLogPipe(to io.Writer) (*logPipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	l := &logPipe{read: r, written: w, ended: make(chan struct{}), held: open}
	go l.copyTo(to)
	return l, nil
}

func (l *logPipe) copyTo(to io.Writer) {
	defer close(l.ended)
	buf := make([]byte, 16<<10)
	for {
		n, err := l.read.Read(buf)
		l.mu.Lock()
		held := l.held
		l.mu.Unlock()
		<-held
		_, _ = to.Write(bytes.ReplaceAll(buf[:n], []byte{0}, nil)) // without the zeros written by block
		if err != nil {
			return
		}
	}
}

// block stops reading the pipe, and fills it.
func (l *logPipe) block() error {
	l.mu.Lock()
	l.held = make(chan struct{})
	l.mu.Unlock()
	for range 2 { // the read in progress frees space once
		for {
			poll := []unix.PollFd{{Fd: int32(l.written.Fd()), Events: unix.POLLOUT}}
			n, err := unix.Poll(poll, 10)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			if n == 0 || poll[0].Revents&unix.POLLOUT == 0 {
				break
			}
			if _, err := l.written.Write(make([]byte, 4096)); err != nil {
				return nil // its reader is closed
			}
		}
	}
	return nil
}

func (l *logPipe) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.held:
	default:
		close(l.held)
	}
}

// end is called when the process has ended. It returns when the log has been read.
func (l *logPipe) end() {
	l.release()
	l.written.Close()
	<-l.ended
	l.read.Close()
}

// tail keeps the beginning and the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// tailHead is the number of bytes kept from the beginning, and tailSize that of all bytes kept.
const (
	tailHead = 4 << 10
	tailSize = 64 << 10
)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > tailSize {
		rest := t.buf[len(t.buf)-tailSize/2:]
		rest = rest[bytes.IndexByte(rest, '\n')+1:]
		t.buf = append(t.buf[:tailHead], append([]byte("\n[...]\n"), rest...)...)
	}
	return len(b), nil
}

func (t *tail) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = t.buf[:0]
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
