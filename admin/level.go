package admin

import (
	"fmt"
	"log/slog"
)

// ParseLevel parses a log level: error, warning (or warn), info or debug.
func ParseLevel(s string) (slog.Level, error) {
	switch s {
	case "error":
		return slog.LevelError, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "info":
		return slog.LevelInfo, nil
	case "debug":
		return slog.LevelDebug, nil
	}
	return 0, fmt.Errorf("%.20q is no log level: expected error, warning, info or debug", s)
}

// levelName is the inverse of [ParseLevel].
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warning"
	case l >= slog.LevelInfo:
		return "info"
	default:
		return "debug"
	}
}

// SetLevel changes v, the level of log, and logs the change at level info if that is
// enabled by the old or the new level.
func SetLevel(v *slog.LevelVar, level slog.Level, log *slog.Logger) {
	old := v.Level()
	v.Set(min(old, level)) // until the change is logged
	if old != level {
		log.Info("log level changed", "from", levelName(old), "to", levelName(level))
	}
	v.Set(level)
}
