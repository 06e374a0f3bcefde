//go:build !unix

package cli

import (
	"context"

	"golang.org/x/term"
)

// A hiddenPrompt is a prompt on a terminal. The terminal has no echo while the prompt is open.
type hiddenPrompt struct {
	fd        int
	echoState *term.State // the state with echo
}

func openHiddenPrompt(ctx context.Context, fd int, echoState *term.State, _ func()) (*hiddenPrompt, context.Context) {
	return &hiddenPrompt{fd, echoState}, ctx
}

// close restores the echo.
func (p *hiddenPrompt) close() { term.Restore(p.fd, p.echoState) }

// readHidden reads a line from a terminal without echo. It returns io.EOF if the input ends and
// nothing was typed before.
func readHidden(fd int) ([]byte, error) { return term.ReadPassword(fd) }
