package cli

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"peerlink/admin"
	"peerlink/internal/excerpt"
	"peerlink/internal/logwriter"
	"peerlink/internal/terminal"
)

// flushTimeout is the time limit for writing the rest of the log when the service ends.
const flushTimeout = 2 * time.Second

// serviceOutput is an output of a service. Writing to it never blocks.
type serviceOutput struct {
	*logwriter.Writer
	file io.Writer // the underlying output
}

// openLog makes one of the outputs a serviceOutput, for the service's log and its final messages: so the program that
// reads the output can neither block the service by not reading, nor end it by closing the pipe (SIGPIPE). handler
// returns the handler that writes the records.
func (a *app) openLog(output *io.Writer, handler func(io.Writer) slog.Handler) *slog.Logger {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP) // SIGHUP: see sighups
	notice := func(dropped uint64) []byte {
		var b bytes.Buffer
		slog.New(handler(&b)).Warn("records of the log were dropped: nobody has read it, or it could not be written", "records", dropped)
		return b.Bytes()
	}
	w := serviceOutput{logwriter.New(raw(*output), notice), raw(*output)}
	a.logs = append(a.logs, w.Writer)
	*output = terminal.NewWriter(w)
	return slog.New(handler(*output))
}

// closeLogs writes the rest of the logs, each for at most flushTimeout.
func (a *app) closeLogs() {
	for _, l := range a.logs {
		l.Close(flushTimeout)
	}
}

// logDropped returns the number of dropped log records.
func (a *app) logDropped() (n uint64) {
	for _, l := range a.logs {
		n += l.Dropped()
	}
	return n
}

// sighups returns a channel that receives a value after SIGHUP, until ctx is done. Several signals
// may cause one value.
func sighups(ctx context.Context) <-chan struct{} {
	recheck := make(chan struct{}, 1)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return // SIGHUP has no effect from now on, and does not end the process
			}
			select {
			case recheck <- struct{}{}:
			default: // an earlier signal is still pending
			}
		}
	}()
	return recheck
}

// logAttr omits attributes whose value is nil, and shortens texts and errors that are too long for
// a log.
func logAttr(_ []string, attr slog.Attr) slog.Attr {
	text := ""
	switch v := attr.Value.Any().(type) {
	case nil:
		return slog.Attr{}
	case string:
		text = v
	case error:
		text = v.Error()
	}
	if len(text) > maxErrorText {
		attr.Value = slog.StringValue(excerpt.Limit(text, maxErrorText))
	}
	return attr
}

// newLogger returns the log and the variable for its level. In JSON, a failure of the command is
// logged instead of printed. If reference is set, JSON records have all members of the reference's
// records.
func (a *app) newLogger(output *io.Writer, level, format string, reference bool) (*slog.Logger, *slog.LevelVar, error) {
	l, err := admin.ParseLevel(level)
	if err != nil {
		return nil, nil, usagef("--log-level: %v", err)
	}
	v := new(slog.LevelVar)
	v.Set(l)
	switch format {
	case "text":
		o := &slog.HandlerOptions{Level: v, ReplaceAttr: logAttr}
		return a.openLog(output, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, o) }), v, nil
	case "json":
		a.failureLog = a.openLog(output, func(w io.Writer) slog.Handler { return jsonHandler(w, v, reference) })
		return a.failureLog, v, nil
	}
	return nil, nil, usagef("--log-format %q: expected text or json", format)
}
