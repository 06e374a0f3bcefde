//go:build unix

package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"peerlink/admin"
)

// handleLevelSignals sets the log level to debug on SIGUSR1, and back to its initial value on SIGUSR2,
// until ctx is done.
func handleLevelSignals(ctx context.Context, level *slog.LevelVar, log *slog.Logger) {
	initial := level.Level()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				to := initial
				if s == syscall.SIGUSR1 {
					to = slog.LevelDebug
				}
				admin.SetLevel(level, to, log)
			}
		}
	}()
}
