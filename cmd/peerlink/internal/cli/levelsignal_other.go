//go:build !unix

package cli

import (
	"context"
	"log/slog"
)

// handleLevelSignals does nothing, because the system has no such signals.
func handleLevelSignals(context.Context, *slog.LevelVar, *slog.Logger) {}
