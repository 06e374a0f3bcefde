//go:build !unix

package cli

import (
	"context"
	"log/slog"
)

// obeyLevelSignals does nothing: there are no such signals here.
func obeyLevelSignals(context.Context, *slog.LevelVar, *slog.Logger) {}
