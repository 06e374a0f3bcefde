//go:build unix

package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A hiddenPrompt is a prompt on a terminal. The terminal has no echo while the prompt is open.
// Before a signal ends or stops the process, the echo is restored.
type hiddenPrompt struct {
	fd         int
	echoState  *term.State // the state with echo
	showPrompt func()      // shows the prompt again
	stop       func()      // ends the handling of the signals that end the process
}

// hidden.prompt is the open prompt, nil if none is open. After the first prompt, SIGTSTP (Ctrl-Z)
// is handled until the process ends, because Go cannot restore the default action of a signal.
var hidden struct {
	mu     sync.Mutex
	prompt *hiddenPrompt
	handle sync.Once // starts handleStops
}

// openHiddenPrompt opens a prompt, for readHidden, which turns the echo off. echoState is the state of
// the terminal with echo. It returns a context that is also canceled by SIGQUIT (Ctrl-\) and SIGHUP,
// unless SIGHUP is ignored, as with nohup.
func openHiddenPrompt(ctx context.Context, fd int, echoState *term.State, showPrompt func()) (*hiddenPrompt, context.Context) {
	signals := []os.Signal{syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, signals...)
	p := &hiddenPrompt{fd, echoState, showPrompt, stop}
	hidden.mu.Lock()
	hidden.prompt = p
	hidden.mu.Unlock()
	if !signal.Ignored(syscall.SIGTSTP) {
		hidden.handle.Do(handleStops)
	}
	return p, ctx
}

// close ends the handling of signals, and restores the echo.
func (p *hiddenPrompt) close() {
	hidden.mu.Lock()
	defer hidden.mu.Unlock()
	hidden.prompt = nil
	term.Restore(p.fd, p.echoState)
	p.stop()
}

// readHidden reads a line from a terminal without echo. At the end of input (Ctrl-D) it returns io.EOF
// if nothing was typed before. ([term.ReadPassword] continues to wait in that case.)
func readHidden(fd int) ([]byte, error) {
	withEcho, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	withoutEcho := *withEcho
	withoutEcho.Lflag &^= unix.ECHO
	withoutEcho.Lflag |= unix.ICANON | unix.ISIG
	withoutEcho.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, setTermios, &withoutEcho); err != nil {
		return nil, err
	}
	defer unix.IoctlSetTermios(fd, setTermios, withEcho)
	var line []byte
	for {
		var char [1]byte
		n, err := unix.Read(fd, char[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == 0 && len(line) == 0:
			return nil, io.EOF
		case n == 0 || char[0] == '\n':
			return line, nil
		case char[0] == '\b':
			line = line[:max(len(line)-1, 0)]
		case char[0] != '\r':
			line = append(line, char[0])
		}
	}
}

// handleStops handles SIGTSTP from now on: it stops the process, as the default action does.
func handleStops() {
	stops, continued := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTSTP)
	go func() {
		for range stops {
			// Without a shell that can continue the process (a parent in the same session), the
			// default action does nothing.
			session, _ := unix.Getsid(0)
			if parentSession, err := unix.Getsid(os.Getppid()); err != nil || parentSession != session {
				continue
			}
			signal.Notify(continued, syscall.SIGCONT)
			stopProcess(continued)
			signal.Stop(continued)
		}
	}()
}

// stopProcess stops the process until it is continued.
func stopProcess(continued <-chan os.Signal) {
	hidden.mu.Lock()
	defer hidden.mu.Unlock()
	stop := func() {
		unix.Kill(os.Getpid(), unix.SIGSTOP)
		<-continued
	}
	p := hidden.prompt
	if p == nil {
		stop()
		return
	}
	withoutEcho, err := term.GetState(p.fd)
	term.Restore(p.fd, p.echoState)
	stop()
	if err == nil {
		term.Restore(p.fd, withoutEcho)
	}
	p.showPrompt()
}
