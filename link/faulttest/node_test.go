//go:build linux

package faulttest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/logwriter"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node"
	"peerlink/stomp"
)

// nodeSettings are the settings of a node's process, which it reads from the
// environment.
type nodeSettings struct {
	Dir, Listen, Cert, Key string
	State                  string        // folder of the embedded broker and the door
	Broker                 string        // URL of RabbitMQ; empty for the embedded broker
	Clock                  time.Duration // how far its clock is ahead; each line of the standard input sets a new value
}

const settingsVariable = "PEERLINK_FAULTTEST_NODE"

func TestMain(m *testing.M) {
	text := os.Getenv(settingsVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	os.Exit(runNode(text))
}

// runNode runs the process of a node, and returns its exit code.
func runNode(settings string) int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	output := logwriter.New(os.Stderr, func(dropped uint64) []byte { return fmt.Appendf(nil, "%d records were dropped\n", dropped) })
	defer output.Close(2 * time.Second)
	var s nodeSettings
	err := json.Unmarshal([]byte(settings), &s)
	if err == nil {
		err = s.run(output)
	}
	if err != nil {
		fmt.Fprintln(output, err)
		return 1
	}
	return 0
}

// These times are as short as a busy machine allows. The bound of a standstill follows
// from them.
const (
	retryMax         = 500 * time.Millisecond
	handshakeTimeout = 3 * time.Second
	connectTimeout   = 3 * time.Second
	heartBeat        = 500 * time.Millisecond
	heartBeatGrace   = 2 * time.Second
	pollInterval     = 100 * time.Millisecond
)

// serving is what a node's process logs when it has started.
const serving = "msg=serving"

// run runs the process of a node: the same parts as in "peerlink serve", with shorter
// times, and a clock that can be set wrong.
func (s nodeSettings) run(output io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(output, nil))
	dir, err := node.Open(s.Dir)
	if err != nil {
		return err
	}
	cfg := link.Config{
		Dir: dir, Log: log, Recheck: hangups(), Now: clockFrom(os.Stdin, s.Clock),
		RetryMin: 5 * time.Millisecond, RetryMax: retryMax,
		HandshakeTimeout: handshakeTimeout, ConnectTimeout: connectTimeout, PollInterval: pollInterval,
		HeartBeat: stomp.HeartBeat{Send: heartBeat, Receive: heartBeat, Grace: heartBeatGrace},
	}
	if cfg.Certificate, err = link.LoadCertificate(dir, s.Cert, s.Key); err != nil {
		return err
	}
	if s.Broker != "" {
		return s.onRabbitMQ(ctx, cfg)
	}
	return s.onStore(ctx, cfg)
}

// hangups returns a channel with a value for each SIGHUP.
func hangups() <-chan struct{} {
	signals, recheck := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			select {
			case recheck <- struct{}{}:
			default:
			}
		}
	}()
	return recheck
}

// clockFrom returns a clock that is ahead by the value in the last line of r.
func clockFrom(r io.Reader, ahead time.Duration) func() time.Time {
	var offset atomic.Int64
	offset.Store(int64(ahead))
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if d, err := time.ParseDuration(lines.Text()); err == nil {
				offset.Store(int64(d))
			}
		}
	}()
	return func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
}

func (s nodeSettings) onRabbitMQ(ctx context.Context, cfg link.Config) error {
	b, err := rabbitmq.Open(s.Broker, rabbitmq.Options{Logger: cfg.Log})
	if err != nil {
		return err
	}
	defer b.Close()
	cfg.Broker, cfg.AllQueues = b, true
	return s.serve(ctx, cfg)
}

func (s nodeSettings) onStore(ctx context.Context, cfg link.Config) error {
	store, err := embedded.Open(storePath(s.State), embedded.Options{Logger: cfg.Log})
	if err != nil {
		return err
	}
	defer store.Close()
	cfg.Broker = store
	kind := cfg.Dir.Identity().Type
	bound := make(chan struct{})
	cfg.Serving = func() { close(bound) }
	door, err := local.Open(local.Config{
		Store: store, Bound: bound, StateDir: s.State, Listen: "none", Inbox: kind.Inbox(), Exchanges: kind.Outboxes(), Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	doorCtx, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	doorErr := make(chan error, 1)
	go func() { doorErr <- door.Serve(doorCtx) }()
	err = s.serve(ctx, cfg)
	closeDoor()
	if e := <-doorErr; err == nil {
		err = e
	}
	if e := store.Close(); err == nil {
		err = e
	}
	return err
}

func (s nodeSettings) serve(ctx context.Context, cfg link.Config) error {
	listener, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return err
	}
	cfg.Log.Info("serving")
	return link.New(cfg).Run(ctx, listener)
}

func storePath(state string) string { return filepath.Join(state, "messages.db") }
