package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"peerlink/link"
)

// tellManager tells the service manager (systemd's sd_notify) something, if there is one
// that wants to know.
func tellManager(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the service manager can not be told", "state", state, "err", err)
	}
}

// feedWatchdog tells the service manager that the service is alive, as often as
// it wants to know, until ctx is done. The status takes every lock there is: of
// a service that hangs there is no word.
func feedWatchdog(ctx context.Context, s *link.Service, log *slog.Logger) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog can not be fed", "err", err)
	}
	if limit <= 0 {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.Status()
			tellManager(log, daemon.SdNotifyWatchdog)
		}
	}
}
