package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"peerlink/broker/embedded"
	"peerlink/internal/durable"
	"peerlink/internal/pause"
	"peerlink/internal/repeats"
	"peerlink/internal/socket"
	"peerlink/stomp"
)

// DefaultListen is the address that STOMP servers usually have, on this
// machine only.
const DefaultListen = "127.0.0.1:61613"

// Config says what is behind the door, and where it is.
type Config struct {
	Store    *embedded.Store
	StateDir string // folder for the passcode, the Unix socket and the addresses; it must exist
	// Listen is a loopback address and port, such as [DefaultListen]; port 0
	// takes any that is free. With "" or "none" there is only the Unix socket.
	Listen    string
	Inbox     string   // what SUBSCRIBE may name: "accounts_in", "creditors_in" or "debtors_in"
	Exchanges []string // what SEND may name: "to_creditors", "to_debtors", "creditors_out" or "debtors_out"
	// Types tells whether this node sends messages of an SMP type to its
	// peers. nil means that all are taken.
	Types func(smpType string) bool
	Log   *slog.Logger // nil: [slog.Default]
}

func (c *Config) check() error {
	switch {
	case c.Store == nil:
		return errors.New("local: Config has no Store")
	case c.Inbox == "":
		return errors.New("local: Config has no Inbox")
	case len(c.Exchanges) == 0:
		return errors.New("local: Config has no Exchanges")
	}
	return nil
}

// Door is the local door; see the package comment.
type Door struct {
	store    *embedded.Store
	names    destinations
	types    func(string) bool
	passcode *passcode
	bounds   bounds
	log      *slog.Logger

	lock        *flock.Flock // of the state folder
	listeners   []net.Listener
	connections chan struct{} // holds a token for each that has shown the passcode
	close       func() error
	repeats     *repeats.Repeats // whoever may connect could fill the log otherwise
}

// Open makes the passcode if there is none, and opens the door: clients can
// connect, and wait for [Door.Serve] to answer. It reports [ErrNotLoopback],
// [ErrExposed], [ErrInUse], or why it can not listen.
func Open(cfg Config) (*Door, error) { return open(cfg, defaultBounds()) }

func open(cfg Config, b bounds) (*Door, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Door{
		store:       cfg.Store,
		names:       destinations{inbox: cfg.Inbox, exchanges: cfg.Exchanges},
		types:       cfg.Types,
		bounds:      b,
		log:         cfg.Log,
		connections: make(chan struct{}, b.connections),
		repeats:     repeats.New(),
	}
	if d.types == nil {
		d.types = func(string) bool { return true }
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.log = d.log.With("door", "local")
	var err error
	if d.lock, err = lockDoor(cfg.StateDir); err != nil {
		return nil, err
	}
	if err = d.renewPasscode(cfg.StateDir); err == nil {
		d.passcode, err = openPasscode(cfg.StateDir)
	}
	if err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	d.close = sync.OnceValue(func() error { return d.closeOnce(cfg.StateDir) })
	if err := d.listen(cfg.StateDir, cfg.Listen); err != nil {
		return nil, errors.Join(err, d.closeListeners())
	}
	return d, nil
}

// renewPasscode makes another passcode if the last door did not close in good
// order and had a TCP port: whoever has listened there since may have been shown
// the old one. One that the operator has chosen is his to change.
func (d *Door) renewPasscode(stateDir string) error {
	last, err := readAddresses(stateDir)
	if errors.Is(err, ErrNotOpen) || err == nil && last.TCP == "" {
		return nil
	}
	path := filepath.Join(stateDir, passcodeFile)
	secret, err := readPasscode(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !isMade(secret):
		d.log.Warn("the service did not end in good order, and others may have listened on the port for applications meanwhile and have been shown the passcode, which was chosen by hand: choose another", "file", path, "port", last.TCP)
		return nil
	}
	if err := durable.Replace(path, []byte(newPasscode()+"\n"), 0o600); err != nil {
		return fmt.Errorf("make another passcode for local applications: %w", err)
	}
	d.log.Warn("the service did not end in good order, and others may have listened on the port for applications meanwhile and have been shown the passcode: there is a new one, which applications have to read", "file", path, "port", last.TCP)
	return nil
}

// listen opens the Unix socket and, unless it is not wanted, the TCP port, and
// writes down where they are.
func (d *Door) listen(stateDir, address string) error {
	var found addresses
	wantTCP := address != "" && address != "none"
	unix, err := listenUnix(filepath.Join(stateDir, socketFile))
	switch {
	case err == nil:
		d.listeners = append(d.listeners, unix)
		found.Unix = socketFile
	case wantTCP && errors.Is(err, socket.ErrPathTooLong):
		d.log.Warn("local applications can connect by TCP only", "err", err)
	default:
		return err
	}
	if wantTCP {
		tcp, err := listenTCP(address)
		if err != nil {
			return err
		}
		d.listeners = append(d.listeners, tcp)
		found.TCP = tcp.Addr().String()
	}
	if err := writeAddresses(stateDir, found); err != nil {
		return fmt.Errorf("write down where local applications can connect: %w", err)
	}
	return nil
}

// Addrs are the addresses on which the door listens.
func (d *Door) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(d.listeners))
	for i, l := range d.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Close closes the door to new connections, also before [Door.Serve] was
// called. Calling it again does nothing.
func (d *Door) Close() error { return d.close() }

func (d *Door) closeOnce(stateDir string) error {
	err := os.Remove(filepath.Join(stateDir, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.closeListeners())
}

func (d *Door) closeListeners() error {
	var err error
	for _, l := range d.listeners {
		err = errors.Join(err, l.Close())
	}
	return errors.Join(err, d.lock.Close()) // last: nobody else has had the port
}

// Serve serves local applications until ctx ends or the door is closed. Then it
// accepts nobody any more, waits for the messages that are on their way to
// disk, confirms them, tells the clients that it stops, and returns when every
// connection is closed. That takes some seconds where clients do not read. It
// may be called once.
func (d *Door) Serve(ctx context.Context) error {
	defer d.repeats.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		if err := d.Close(); err != nil {
			d.log.Warn("the local door does not close in good order", "err", err)
		}
	})
	defer stop()
	var running sync.WaitGroup
	for _, l := range d.listeners {
		running.Go(func() {
			d.accept(ctx, l, &running)
			cancel() // one listener has gone, so has the door
		})
	}
	running.Wait()
	return d.Close()
}

// acceptPause is the time between attempts while connections can not be
// accepted, for want of file descriptors for example.
const acceptPause = 200 * time.Millisecond

// accept accepts connections until the listener is closed. While too many
// have not shown the passcode yet, the others wait in the kernel's queue: so
// strangers can delay each other, but not those who are in.
func (d *Door) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) {
	opening := make(chan struct{}, d.bounds.opening)
	for n := 0; ; n++ {
		select {
		case opening <- struct{}{}:
		case <-ctx.Done():
			return
		}
		nc, err := l.Accept()
		switch {
		case err == nil:
			log := d.log.With("conn", fmt.Sprintf("%s#%d", l.Addr().Network(), n))
			running.Go(func() { d.serve(ctx, nc, log, sync.OnceFunc(func() { <-opening })) })
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		<-opening
		d.repeats.Tell(d.log, slog.LevelWarn, repeats.Deed{Kind: "accept"}, "can not accept connections of local applications", "err", err)
		_ = pause.For(ctx, acceptPause)
	}
}

// serve serves one connection. opened is called when it counts as one that
// has shown the passcode.
func (d *Door) serve(ctx context.Context, nc net.Conn, log *slog.Logger, opened func()) {
	defer opened()
	conn := stomp.NewConn(nc, frameLimits())
	defer conn.Close()
	admitted := false
	defer func() {
		if admitted {
			<-d.connections
		}
	}()
	opening, cancel := context.WithTimeoutCause(ctx, d.bounds.connectTime, stomp.ErrConnectTimeout)
	defer cancel()
	err := conn.Accept(opening, stomp.HeartBeat{}, func(connect *stomp.Frame) error {
		if err := d.authenticate(opening, connect); err != nil {
			return err
		}
		select {
		case d.connections <- struct{}{}:
			admitted = true
			return nil
		default:
			return refusef("too many connections: %d are open already", d.bounds.connections)
		}
	})
	if errors.Is(err, io.EOF) {
		return // somebody looked whether the door is there
	}
	if err != nil {
		d.repeats.Tell(log, slog.LevelInfo, repeats.Deed{Kind: "connect"}, "a local application could not connect", "err", err)
		return
	}
	opened()
	log.Debug("a local application has connected")
	err = newSession(d, conn, log).run(ctx)
	log.Debug("a local application is gone", "err", err)
}

// authenticate checks the passcode of a client. A wrong one costs time, also
// when there was none.
func (d *Door) authenticate(ctx context.Context, connect *stomp.Frame) error {
	given, ok := connect.Get("passcode")
	if ok && d.passcode.matches(given) {
		return nil
	}
	if pause.For(ctx, d.bounds.guessPause) != nil {
		return context.Cause(ctx)
	}
	if !ok {
		return refusef("passcode header missing: the passcode lies in the file %s", d.passcode.path)
	}
	return refusef("wrong passcode: the right one lies in the file %s", d.passcode.path)
}
