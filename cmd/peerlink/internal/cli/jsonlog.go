package cli

import (
	"context"
	"io"
	"log/slog"
)

// jsonHandler returns a handler that writes the log in JSON. Each record has, in addition to the
// members of slog, the member "levelname", which the reference's log pipelines read. If reference is
// set, each record has all members of the reference's records.
func jsonHandler(w io.Writer, level slog.Leveler, reference bool) slog.Handler {
	return &referenceHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: jsonAttr}), reference}
}

// jsonAttr is logAttr with durations in seconds, as a number.
func jsonAttr(groups []string, attr slog.Attr) slog.Attr {
	attr = logAttr(groups, attr)
	if attr.Value.Kind() == slog.KindDuration {
		attr.Value = slog.Float64Value(attr.Value.Duration().Seconds())
	}
	return attr
}

// referenceHandler adds the members of the reference's records.
type referenceHandler struct {
	slog.Handler
	all bool // not only "levelname"
}

func (h *referenceHandler) Handle(ctx context.Context, r slog.Record) error {
	added := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	added.AddAttrs(slog.String("levelname", levelName(r.Level)))
	if h.all {
		added.AddAttrs(
			slog.String("asctime", r.Time.Format("2006-01-02T15:04:05-0700")),
			slog.String("name", "peerlink"),
			slog.String("message", r.Message),
		)
	}
	r.Attrs(func(a slog.Attr) bool {
		added.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, added)
}

func (h *referenceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &referenceHandler{h.Handler.WithAttrs(attrs), h.all}
}

func (h *referenceHandler) WithGroup(name string) slog.Handler {
	return &referenceHandler{h.Handler.WithGroup(name), h.all}
}

// levelName returns Python's name for a level.
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}
