package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// errInterrupted is the error of a command that was waiting for input when a signal arrived that
// ends the process. errEndOfInput, which wraps it, is the error if the input ended (Ctrl-D) before
// anything was typed.
var (
	errInterrupted = errors.New("interrupted")
	errEndOfInput  = fmt.Errorf("%w: the input has ended, and nothing was typed", errInterrupted)
)

// interruptible calls wait and returns its result, or errInterrupted as soon as ctx is done. In the
// latter case wait continues, because reading from a terminal or a pipe, and opening a named pipe,
// cannot be interrupted. That is acceptable because the process is about to end.
func interruptible[T any](ctx context.Context, wait func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil {
		return none, errInterrupted
	}
	ch := make(chan result, 1)
	go func() {
		value, err := wait()
		ch <- result{value, err}
	}()
	select {
	case <-ctx.Done():
		return none, errInterrupted
	case got := <-ch:
		return got.value, got.err
	}
}

// maxRead is the maximum size of one read of an input in bytes.
const maxRead = 64 << 10

// An input reads a file, a pipe or a terminal, until ctx is done. After an error, all reads return
// the same error, so that one Ctrl-D (io.EOF) is sufficient on a terminal.
type input struct {
	ctx      context.Context
	file     *os.File
	standard bool // standard input
	err      error
}

func (in *input) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	data, err := interruptible(in.ctx, func() ([]byte, error) {
		data := make([]byte, min(len(p), maxRead)) // not p, which must not be written after Read has returned
		n, err := in.file.Read(data)
		return data[:n], err
	})
	in.err = err
	defer clear(data) // it may be a passphrase
	return copy(p, data), err
}

// standardInput returns the only reader of standard input.
func (a *app) standardInput(ctx context.Context) *input {
	if a.input == nil {
		a.input = &input{ctx: ctx, file: a.stdin, standard: true}
	}
	return a.input
}

// openInput opens a file, or standard input if path is "-". It also returns the name of the input
// for error messages.
func (a *app) openInput(ctx context.Context, path string) (in *input, name string, err error) {
	if path == "-" {
		return a.standardInput(ctx), "standard input", nil
	}
	f, err := interruptible(ctx, func() (*os.File, error) { return os.Open(path) })
	return &input{ctx: ctx, file: f}, path, err
}

// Close closes the file, unless it is standard input.
func (in *input) Close() error {
	if in.standard {
		return nil
	}
	return in.file.Close()
}

// readLine reads a line from standard input, without the spaces around it.
func (a *app) readLine(ctx context.Context) (string, error) {
	if a.lines == nil {
		a.lines = bufio.NewReader(a.standardInput(ctx))
	}
	line, err := a.lines.ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
		if line == "" {
			err = errEndOfInput
		}
	}
	return strings.TrimSpace(line), err
}

// ask asks a question on the terminal, and repeats it until check accepts the answer. A wrong answer
// must not lose earlier answers.
func (a *app) ask(ctx context.Context, question string, check func(answer string) error) (string, error) {
	return a.askAtMost(ctx, math.MaxInt, question, check)
}

// askAtMost is like ask, but returns the error of check after the given number of wrong answers.
func (a *app) askAtMost(ctx context.Context, times int, question string, check func(answer string) error) (string, error) {
	if !isTerminal(a.stdin) {
		return "", usagef("missing: %s", question)
	}
	for wrong := 0; ; {
		fmt.Fprintf(a.stderr, "%s: ", question)
		answer, err := a.readLine(ctx)
		if err != nil {
			fmt.Fprintln(a.stderr)
			return "", err
		}
		if answer == "" {
			continue
		}
		err = check(answer)
		if err == nil {
			return answer, nil
		}
		if wrong++; wrong == times {
			return "", err
		}
		a.printMessage("%v.", err)
	}
}

// readBounded reads a file, a pipe or a terminal. If there are more than max bytes, it returns the
// first max+1 bytes and an error.
func readBounded(ctx context.Context, path string, max int64) ([]byte, error) {
	return interruptible(ctx, func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, max+1))
		if err == nil && int64(len(data)) > max {
			err = fmt.Errorf("%s is larger than %d bytes", path, max)
		}
		return data, err
	})
}
