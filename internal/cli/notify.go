package cli

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"peerlink/broker"
	"peerlink/link"
)

// notifyTimeout is how long the service manager may take to accept a message.
const notifyTimeout = time.Second

// tellManager sends a message to the service manager, if there is one that wants to
// know.
func tellManager(log *slog.Logger, state string) {
	if err := notifyManager(state); err != nil {
		log.Warn("the service manager can not be told", "state", state, "err", err)
	}
}

// notifyManager is systemd's sd_notify, which would wait for a manager that hangs.
func notifyManager(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = c.Write([]byte(state))
	return err
}

// stalledCheck returns what reports that a part of the service hangs.
func stalledCheck(s *link.Service, b broker.Broker) func() error {
	return func() error {
		err := s.Stalled()
		if store, ok := b.(interface{ Stalled() error }); ok {
			err = errors.Join(err, store.Stalled())
		}
		return err
	}
}

// feedWatchdog tells the service manager that the service goes on, as often as it
// wants to know, until ctx is done. The status takes every lock there is: of a
// service in which something hangs there is no word.
func feedWatchdog(ctx context.Context, s *link.Service, stalled func() error, log *slog.Logger) {
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
			if err := stalled(); err != nil {
				log.Error("the service manager's watchdog is not fed", "err", err)
				continue
			}
			tellManager(log, daemon.SdNotifyWatchdog)
		}
	}
}
