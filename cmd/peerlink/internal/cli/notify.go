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

// notifyTimeout is the time limit for sending a message to the service manager.
const notifyTimeout = time.Second

// notifyServiceManager sends a message to the service manager, if there is one that receives notifications.
func notifyServiceManager(log *slog.Logger, state string) {
	if err := sdNotify(state); err != nil {
		log.Warn("the service manager can not be notified", "state", state, "err", err)
	}
}

// sdNotify implements systemd's sd_notify with a timeout, because sd_notify blocks if the manager
// hangs.
func sdNotify(state string) error {
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

// stalledCheck returns a function that returns an error if a part of the service hangs.
func stalledCheck(s *link.Service, b broker.Broker) func() error {
	return func() error {
		err := s.Stalled()
		if store, ok := b.(interface{ Stalled() error }); ok {
			err = errors.Join(err, store.Stalled())
		}
		return err
	}
}

// feedWatchdog sends watchdog notifications to the service manager at the interval that the manager
// has configured, until ctx is done. Before each notification it gets the status, which needs all
// locks, and calls stalled: if a part of the service hangs, no notification is sent.
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
			notifyServiceManager(log, daemon.SdNotifyWatchdog)
		}
	}
}
