//go:build !unix

package cli

import (
	"context"
	"log/slog"
)

// obeyLevelSignals does nothing, because the system has no such signals.
func obeyLevelSignals(context.Context, *slog.LevelVar, *slog.Logger) {}
