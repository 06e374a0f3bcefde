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
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/internal/logthrottle"
	"peerlink/internal/pendingconns"
	"peerlink/internal/socket"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

// defaultListen is the usual port of STOMP servers, on loopback.
const defaultListen = "127.0.0.1:61613"

// Config holds the parameters of a [Door].
type Config struct {
	Store    *embedded.Store
	StateDir string // folder for the passcode, the Unix socket and the addresses; it must exist
	// Listen is a loopback address and port, such as 127.0.0.1:61613; port 0 means any
	// free port. With "" or "none" there is only the Unix socket.
	Listen string
	// TCP is a listener at the address Listen that is open already, or nil. A door that is open closes it.
	TCP       net.Listener
	Inbox     string   // name in the destination of SUBSCRIBE: "accounts_in", "creditors_in" or "debtors_in"
	Exchanges []string // names in the destinations of SEND: "to_creditors", "to_debtors", "creditors_out" or "debtors_out"
	// Owner identifies the node, as in [embedded.Options], so that [DialNode] can check
	// which node the state folder belongs to.
	Owner    string
	Messages Messages // nil: all messages are stored
	// Bound is closed when the queues of the peers are bound: before that, a SEND waits, because a
	// message for a peer whose queues are not bound yet would be taken for one without a peer.
	// Messages can be consumed before: on a full disk that may be what makes it possible to bind
	// the queues. nil: SENDs do not wait.
	Bound <-chan struct{}
	Log   *slog.Logger // nil: [slog.Default]
}

// Messages is what a [Door] needs to know about the messages of applications.
type Messages interface {
	// Check returns an error if a message that is sent to an exchange with a routing key
	// can never be sent to the peer.
	Check(exchange, routingKey string, m *broker.Outgoing) error
	// Answer returns the message for the inbox that answers a message which is routed to no
	// peer, or nil: then the message is set aside. It must be quick.
	Answer(m *broker.Outgoing) *broker.Incoming
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

// Door is a STOMP server for the node's own applications, on loopback and on a Unix socket;
// see the package comment.
type Door struct {
	store        *embedded.Store
	destinations destinations
	messages     Messages
	bound        <-chan struct{}                         // see Config; may be nil
	unroutable   func(*broker.Outgoing) *broker.Incoming // see [embedded.Sending]
	passcode     *passcode
	bounds       bounds
	log          *slog.Logger

	lock           *flock.Flock // of the state folder
	listeners      []net.Listener
	addresses      addresses     // of the listeners
	retryAddresses func() error  // writes addresses to the address file; nil if open has written it
	connections    chan struct{} // has an element for each connection that has sent the passcode
	close          func() error
	logLimiter     *logthrottle.Limiter // clients could fill the log otherwise
	counts         [len(resultNames)]atomic.Uint64
}

// Open opens the door, and generates the passcode if the file does not exist: clients can
// connect, and wait for [Door.Serve]. With a TCP port, a generated passcode is always
// replaced by a new one, and is made invalid when the door is closed. Open returns an error if
// the address is not a loopback address, if other users can read the passcode, if a door
// is open on the state folder already, or if it cannot listen.
func Open(cfg Config) (*Door, error) { return open(cfg, defaultBounds()) }

func open(cfg Config, b bounds) (*Door, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Door{
		store:        cfg.Store,
		destinations: destinations{inbox: cfg.Inbox, exchanges: cfg.Exchanges},
		messages:     cfg.Messages,
		bound:        cfg.Bound,
		bounds:       b,
		log:          cfg.Log,
		connections:  make(chan struct{}, b.connections),
		logLimiter:   logthrottle.New(),
		addresses:    addresses{Owner: cfg.Owner},
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.log = d.log.With("door", "local")
	d.unroutable = func(*broker.Outgoing) *broker.Incoming { return nil }
	if d.messages != nil {
		d.unroutable = d.messages.Answer
	}
	var err error
	if d.lock, err = lockDoor(cfg.StateDir); err != nil {
		return nil, err
	}
	d.close = sync.OnceValue(func() error { return d.doClose(cfg.StateDir) })
	if err := d.open(cfg.StateDir, cfg.Listen, cfg.TCP); err != nil {
		return nil, errors.Join(err, d.closeListeners())
	}
	return d, nil
}

// open listens, and only then generates the passcode: no other process that has listened
// on the port before can have received it.
func (d *Door) open(stateDir, address string, tcp net.Listener) error {
	if err := d.invalidateOldPasscode(stateDir, address); err != nil {
		return err
	}
	if err := d.listen(stateDir, address, tcp); err != nil {
		return err
	}
	var err error
	if d.passcode, err = openPasscode(stateDir); err != nil {
		return err
	}
	d.retryAddresses = func() error { return writeAddresses(stateDir, d.addresses) }
	err = d.retryAddresses()
	switch {
	case err == nil:
		d.retryAddresses = nil
	case d.addresses.Unix == "":
		return fmt.Errorf("write the addresses of the local door: %w", err)
	default:
		d.log.Warn("the file with the addresses of the local door can not be written: local applications can connect by the Unix socket, and by TCP once it is written", "err", err)
	}
	return nil
}

// addressFilePause is the time between attempts to write the address file.
const addressFilePause = time.Second

// awaitAddressFile tries again to write the address file until it is written, unless open
// has written it. It returns false if ctx is done before. Until the file is written no
// connection is accepted by TCP: otherwise the next door could not determine that there
// was a TCP port (see invalidateOldPasscode).
func (d *Door) awaitAddressFile(ctx context.Context) bool {
	if d.retryAddresses == nil {
		return true
	}
	for wait.Sleep(ctx, addressFilePause) == nil {
		if d.retryAddresses() == nil {
			d.log.Info("the address file is written, local applications are accepted by TCP")
			return true
		}
	}
	return false
}

// invalidateOldPasscode makes a generated passcode invalid before a door with a TCP port opens, or
// if the previous door had a TCP port and crashed, so that it did not do that
// (also if its address file cannot be read, so that this cannot be excluded): another
// process may have listened on the port since, and received the passcode. A passcode
// chosen by the operator is kept; after a crash, a warning is logged.
func (d *Door) invalidateOldPasscode(stateDir, address string) error {
	last, err := readAddresses(stateDir)
	crashed := !errors.Is(err, errNotOpen) && (err != nil || last.TCP != "")
	if !crashed && !wantsTCP(address) {
		return nil
	}
	path := filepath.Join(stateDir, passcodeFile)
	chosen, err := invalidateGenerated(path)
	if chosen && crashed {
		d.log.Warn("the service did not end in good order, and others may have listened on the port for applications meanwhile and have been shown the passcode, which was chosen by hand: choose another", "file", path, "port", last.TCP)
	}
	return err
}

// wantsTCP reports whether [Config.Listen] is an address.
func wantsTCP(address string) bool { return address != "" && address != "none" }

// listen opens the Unix socket and, if there is an address, the TCP port. If the path of the
// socket is too long, it opens only the TCP port.
func (d *Door) listen(stateDir, address string, tcp net.Listener) error {
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
		if tcp, err = listenTCP(address, tcp); err != nil {
			return err
		}
		d.listeners = append(d.listeners, tcp)
		d.addresses.TCP = tcp.Addr().String()
	}
	return nil
}

// Addrs returns the addresses on which the door listens.
func (d *Door) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(d.listeners))
	for i, l := range d.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Close closes the door for new connections. It may be called before [Door.Serve], or
// without it. Further calls do nothing.
func (d *Door) Close() error { return d.close() }

func (d *Door) doClose(stateDir string) error {
	err := os.Remove(filepath.Join(stateDir, addressFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if d.addresses.TCP != "" { // without the file, no application sends the passcode to the next process that listens on the port
		_, passcodeErr := invalidateGenerated(filepath.Join(stateDir, passcodeFile))
		err = errors.Join(err, passcodeErr)
	}
	return errors.Join(err, d.closeListeners())
}

func (d *Door) closeListeners() error {
	var err error
	for _, l := range d.listeners {
		err = errors.Join(err, l.Close())
	}
	return errors.Join(err, d.lock.Close()) // unlocked last: while the state folder is locked, the port is this door's
}

// Serve serves local applications until ctx ends or the door is closed. Then it accepts
// no more connections, waits for messages that are being stored, confirms them, sends
// the clients an ERROR that it is stopping, and returns when all connections are
// closed, after at most five seconds. That is how long it takes if clients do not read. Serve may be
// called once.
func (d *Door) Serve(ctx context.Context) error {
	defer d.logLimiter.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { d.Close() })() // its error is returned below
	var running sync.WaitGroup
	for _, l := range d.listeners {
		running.Go(func() {
			if l.Addr().Network() == "unix" || d.awaitAddressFile(ctx) {
				d.accept(ctx, l, &running)
			}
			cancel() // once one listener is closed, the whole door is closed
		})
	}
	running.Wait()
	if err := d.Close(); err != nil {
		return fmt.Errorf("the local door does not close in good order: %w", err)
	}
	return nil
}

// acceptPause is the time between attempts while connections cannot be accepted, for
// example for lack of file descriptors.
const acceptPause = 200 * time.Millisecond

// accept accepts connections until the listener is closed. A connection need not wait for
// others that have not sent the passcode: when there are too many such connections, the
// oldest one of the user with the most is closed, and when accepting fails, an eighth of them.
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
		d.logLimiter.Log(d.log, slog.LevelWarn, logthrottle.Key{Kind: "accept"}, "can not accept connections of local applications", "err", err)
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
	err := conn.Accept(opening, stomp.Acceptance{MinHeartBeat: minHeartBeat, Versions: stomp.AllVersions, Check: func(connect *stomp.Frame) error {
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
	}})
	if err != nil {
		d.logNotConnected(c, log, err)
		return
	}
	log.Debug("a local application has connected")
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(d.bounds.stopTime, func() { c.nc.Close() }) // even if the client does not read
		time.AfterFunc(d.bounds.stopTime+lateTime, func() { close(late) })
	})()
	ended := make(chan error, 1)
	go func() { ended <- newSession(d, conn, log).run(ctx) }()
	select {
	case err := <-ended:
		log.Debug("the session of a local application has ended", "err", err)
	case <-late:
		log.Warn("the session of a local application does not end in time, and is left when the service stops")
	}
}

// lateTime is how much longer than bounds.stopTime a session may take to end when the door is
// closed. Then the door does not wait for it: whatever the session still does, the service must stop.
const lateTime = 500 * time.Millisecond

// logNotConnected logs why a connection has ended before its session began.
func (d *Door) logNotConnected(c *openingConn, log *slog.Logger, err error) {
	switch {
	case context.Cause(c.ctx) == errTooManyOpening:
		if c.user >= 0 {
			log = log.With("user", c.user)
		}
		d.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Kind: "crowded out"}, "too many connections of local applications that have not shown the passcode, or too few file descriptors: the oldest one of the user with the most is closed", "max", d.bounds.opening)
	case errors.Is(err, io.EOF): // the client may only have checked whether the door is open
	default:
		d.logLimiter.Log(log, slog.LevelInfo, logthrottle.Key{Kind: "connect"}, "a local application could not connect", "err", err)
	}
}

// authenticate checks the passcode of a client. If the passcode is wrong or missing,
// authenticate returns an error after a pause.
func (d *Door) authenticate(ctx context.Context, connect *stomp.Frame) error {
	given, ok := connect.Get("passcode")
	if ok && d.passcode.matches(given) {
		return nil
	}
	if wait.Sleep(ctx, d.bounds.guessPause) != nil {
		return context.Cause(ctx)
	}
	if !ok {
		return refusef("passcode header missing: the passcode is in the file %s", d.passcode.path)
	}
	return refusef("wrong passcode: the right one is in the file %s", d.passcode.path)
}
