//go:build !unix

package cli

import (
	"context"
	"log/slog"
)

// handleLevelSignals does nothing, because the system has no SIGUSR1 and SIGUSR2, which change the log level elsewhere.
func handleLevelSignals(context.Context, *slog.LevelVar, *slog.Logger) {}
