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
	"peerlink/internal/logthrottle"
	"peerlink/internal/pendingconns"
	"peerlink/internal/socket"
	"peerlink/internal/wait"
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
	// Types reports whether this node sends messages of an SMP type to its
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
	addresses   addresses     // of the listeners
	announce    func() error  // writes them down; nil: that is done
	connections chan struct{} // holds a token for each that has shown the passcode
	close       func() error
	repeats     *logthrottle.Limiter // clients could fill the log otherwise
}

// Open opens the door, and makes the passcode if there is none: clients can
// connect, and wait for [Door.Serve] to answer. A passcode that was made here lasts
// until the door is closed, if that has a TCP port, and is not one of an earlier door
// then. It reports [ErrNotLoopback],
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
		repeats:     logthrottle.New(),
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
	d.close = sync.OnceValue(func() error { return d.closeOnce(cfg.StateDir) })
	if err := d.open(cfg.StateDir, cfg.Listen); err != nil {
		return nil, errors.Join(err, d.closeListeners())
	}
	return d, nil
}

// open listens, and only then makes another passcode, which nobody else who has
// listened on the port can have been shown.
func (d *Door) open(stateDir, address string) error {
	if err := d.forgetPasscode(stateDir, address); err != nil {
		return err
	}
	if err := d.listen(stateDir, address); err != nil {
		return err
	}
	var err error
	if d.passcode, err = openPasscode(stateDir); err != nil {
		return err
	}
	d.announce = func() error { return writeAddresses(stateDir, d.addresses) }
	err = d.announce()
	switch {
	case err == nil:
		d.announce = nil
	case d.addresses.Unix == "":
		return fmt.Errorf("write down where local applications can connect: %w", err)
	default:
		d.log.Warn("where local applications can connect can not be written down: they can connect by the Unix socket, and by TCP when it is", "err", err)
	}
	return nil
}

// announcePause is the time between attempts to write down the addresses.
const announcePause = time.Second

// announced waits until it is written down where the door listens, and reports whether
// that is so. Until then nobody is accepted by TCP: the next door would not know that
// there was a TCP port (see forgetPasscode).
func (d *Door) announced(ctx context.Context) bool {
	if d.announce == nil {
		return true
	}
	for wait.Sleep(ctx, announcePause) == nil {
		if d.announce() == nil {
			d.log.Info("local applications can connect by TCP again")
			return true
		}
	}
	return false
}

// forgetPasscode removes the passcode before a door with a TCP port opens, and if the
// last door had one and has not removed it: whoever has listened there since may have
// been shown it. One that the operator has chosen is his to change.
func (d *Door) forgetPasscode(stateDir, address string) error {
	last, err := readAddresses(stateDir)
	crashed := !errors.Is(err, ErrNotOpen) && (err != nil || last.TCP != "")
	if !crashed && !wantsTCP(address) {
		return nil
	}
	path := filepath.Join(stateDir, passcodeFile)
	chosen, err := removeMade(path)
	if chosen && crashed {
		d.log.Warn("the service did not end in good order, and others may have listened on the port for applications meanwhile and have been shown the passcode, which was chosen by hand: choose another", "file", path, "port", last.TCP)
	}
	return err
}

// wantsTCP reports whether an address is one, see [Config.Listen].
func wantsTCP(address string) bool { return address != "" && address != "none" }

// listen opens the Unix socket and, unless it is not wanted, the TCP port.
func (d *Door) listen(stateDir, address string) error {
	wantTCP := wantsTCP(address)
	unix, err := listenUnix(filepath.Join(stateDir, socketFile))
	switch {
	case err == nil:
		d.listeners = append(d.listeners, unix)
		d.addresses.Unix = socketFile
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
		d.addresses.TCP = tcp.Addr().String()
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
	if d.addresses.TCP != "" { // an application must have nothing to show to the next one who listens there
		_, removeErr := removeMade(filepath.Join(stateDir, passcodeFile))
		err = errors.Join(err, removeErr)
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
			if l.Addr().Network() == "unix" || d.announced(ctx) {
				d.accept(ctx, l, &running)
			}
			cancel() // one listener has gone, so has the door
		})
	}
	running.Wait()
	return d.Close()
}

// acceptPause is the time between attempts while connections can not be
// accepted, for want of file descriptors for example.
const acceptPause = 200 * time.Millisecond

// accept accepts connections until the listener is closed. None waits for others
// that have not shown the passcode: when these are too many, the oldest one of the
// user that has most of them is closed.
func (d *Door) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) {
	pending := pendingconns.New[int](d.bounds.opening)
	for n := 0; ; n++ {
		nc, err := l.Accept()
		switch {
		case err == nil:
			log := d.log.With("conn", fmt.Sprintf("%s#%d", l.Addr().Network(), n))
			c := newOpeningConn(ctx, nc, pending)
			running.Go(func() { d.serve(ctx, c, log) })
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		d.repeats.Log(d.log, slog.LevelWarn, logthrottle.Key{Kind: "accept"}, "can not accept connections of local applications", "err", err)
		if !pending.Evict() {
			_ = wait.Sleep(ctx, acceptPause)
		}
	}
}

// serve serves one connection.
func (d *Door) serve(ctx context.Context, c *openingConn, log *slog.Logger) {
	defer c.done()
	conn := stomp.NewConn(c.nc, frameLimits())
	defer conn.Close()
	admitted := false
	defer func() {
		if admitted {
			<-d.connections
		}
	}()
	opening, cancel := context.WithTimeoutCause(c.ctx, d.bounds.connectTime, stomp.ErrConnectTimeout)
	defer cancel()
	err := conn.Accept(opening, stomp.HeartBeat{}, func(connect *stomp.Frame) error {
		if err := d.authenticate(opening, connect); err != nil {
			return err
		}
		select {
		case d.connections <- struct{}{}:
			admitted = true
			return c.admit()
		default:
			return refusef("too many connections: %d are open already", d.bounds.connections)
		}
	})
	if err != nil {
		d.notConnected(c, log, err)
		return
	}
	log.Debug("a local application has connected")
	err = newSession(d, conn, log).run(ctx)
	log.Debug("a local application is gone", "err", err)
}

// notConnected logs why a connection has ended before it was a session.
func (d *Door) notConnected(c *openingConn, log *slog.Logger, err error) {
	switch {
	case context.Cause(c.ctx) == errCrowdedOut:
		if c.user >= 0 {
			log = log.With("user", c.user)
		}
		d.repeats.Log(log, slog.LevelWarn, logthrottle.Key{Kind: "crowded out"}, "too many connections of local applications that have not shown the passcode: the oldest one is closed", "max", d.bounds.opening)
	case errors.Is(err, io.EOF): // somebody looked whether the door is there
	default:
		d.repeats.Log(log, slog.LevelInfo, logthrottle.Key{Kind: "connect"}, "a local application could not connect", "err", err)
	}
}

// authenticate checks the passcode of a client. A wrong one costs time, also
// when there was none.
func (d *Door) authenticate(ctx context.Context, connect *stomp.Frame) error {
	given, ok := connect.Get("passcode")
	if ok && d.passcode.matches(given) {
		return nil
	}
	if wait.Sleep(ctx, d.bounds.guessPause) != nil {
		return context.Cause(ctx)
	}
	if !ok {
		return refusef("passcode header missing: the passcode lies in the file %s", d.passcode.path)
	}
	return refusef("wrong passcode: the right one lies in the file %s", d.passcode.path)
}
