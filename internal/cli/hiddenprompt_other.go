//go:build !unix

package cli

import (
	"context"

	"golang.org/x/term"
)

// A hiddenPrompt is a prompt at which the terminal has no echo, as long as it is open.
type hiddenPrompt struct {
	fd    int
	shown *term.State // with echo
}

func openHiddenPrompt(ctx context.Context, fd int, shown *term.State, _ func()) (*hiddenPrompt, context.Context) {
	return &hiddenPrompt{fd, shown}, ctx
}

// close restores the echo.
func (p *hiddenPrompt) close() { term.Restore(p.fd, p.shown) }
