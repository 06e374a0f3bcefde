package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/admin"
	"peerlink/broker/embedded"
	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

// countErrors is a [slog.Handler] that counts errors.
type countErrors struct {
	slog.Handler
	n *atomic.Int64
}

func (c countErrors) Enabled(context.Context, slog.Level) bool { return true }

func (c countErrors) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelError {
		c.n.Add(1)
	}
	return nil
}

// While the service does not check its files, though it should, the watchdog of the service manager gets
// nothing, and /healthz answers 503, so that the service is started again; both end with the stall.
func TestWatchdogOfStalledService(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no service manager here has a watchdog")
	}
	dir, err := os.MkdirTemp("", "watchdog") // paths of Unix sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))

	node := linktest.New(t, nodetype.AccountingAuthority)
	stall, resume := node.StallPolls(t)
	node.Start()
	var refused atomic.Int64
	log := slog.New(countErrors{slog.DiscardHandler, &refused})
	stalled := stalledCheck(node.Service, node.Store)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go feedWatchdog(ctx, node.Service, stalled, log)
	server, err := admin.Open(admin.Config{
		Listen: []admin.Listen{{Address: "127.0.0.1:0"}}, Status: node.Service.Status, Stalled: stalled, Log: log, Level: new(slog.LevelVar),
		BrokerHealth: func() error { return nil }, Queues: func(context.Context) (embedded.Stats, error) { return embedded.Stats{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(ctx)
	health := func(want int) error {
		res, err := http.Get("http://" + server.Addresses()[0] + "/healthz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != want {
			return fmt.Errorf("/healthz answers %s, want %d", res.Status, want)
		}
		return nil
	}
	// fed returns how many notifications have come.
	fed := func() (n int) {
		manager.SetReadDeadline(time.Now().Add(time.Millisecond))
		for buf := make([]byte, 100); ; n++ {
			if _, err := manager.Read(buf); err != nil {
				return n
			}
		}
	}
	isFed := func() error {
		if fed() == 0 {
			return errors.New("the watchdog is not fed")
		}
		return nil
	}
	linktest.Eventually(t, "a notification", isFed)
	linktest.Eventually(t, "a healthy service", func() error { return health(http.StatusOK) })

	stall()
	moreRefused := func(than int64) func() error {
		return func() error {
			if n := refused.Load(); n <= than {
				return fmt.Errorf("%d times, want more than %d", n, than)
			}
			return nil
		}
	}
	linktest.Eventually(t, "the stall", moreRefused(0))
	fed() // before the stall
	linktest.Eventually(t, "the watchdog to be due again", moreRefused(refused.Load()+2))
	if n := fed(); n > 0 {
		t.Errorf("the watchdog was fed %d times during the stall", n)
	}
	if err := health(http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}
	resume()
	linktest.Eventually(t, "the end of the stall", isFed)
	linktest.Eventually(t, "a healthy service", func() error { return health(http.StatusOK) })
}
