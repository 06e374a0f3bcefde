package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node"
)

// serveFlags are the settings of the service.
type serveFlags struct {
	listen                peerAddress
	serverCert, serverKey string
	broker, queuePattern  string
	deadLetterSuffix      string
	management            string
	queueType             string
	state, localListen    string
	logLevel, logFormat   string
	follow                followSettings
	publish               publishSettings
	admin                 string
	adminExposed          bool
	allowRootKey          bool
	limits                limitFlags
	timeouts              timeouts // set by environment variables only
	proxyFrom             prefixes
	proxy                 outboundProxy

	logDropped func() uint64             // returns the number of dropped log records
	sockets    map[string][]net.Listener // that systemd has opened, by name
	stopping   func()                    // must be called when the service begins to end by itself; see limitStop
}

// acquireSpread is the period over which a service on RabbitMQ spreads the start of consuming its
// queues, so that a service that starts at the same time on another machine gets half of the
// queues.
const acquireSpread = 3 * time.Second

// serveName is the name of the command that runs the service.
const serveName = "serve"

// replacedInServe are the reference's variables that have an effect on the reference's four commands, but not on
// "serve". The values say, in the log, what applies instead.
var replacedInServe = map[string]string{
	"SWPT_SERVER_BUFFER": "1000 messages are on their way into RabbitMQ at most",
	"SWPT_CLIENT_BUFFER": "2000 messages are taken out of each queue ahead at most",
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	var check bool
	c := &cobra.Command{
		Use:   serveName,
		Short: "Keep the links to all peers, and the door for the node's applications",
		Long: `Keeps a link to every registered peer: accepts their connections, and dials their
servers to send what the node's applications have put into the queues. Peers
that are added, that move or are deactivated are noticed within seconds.

The server certificate and its key are those that "peerlink init" has made beside
the node's directory, unless others are given. --check prints every setting in
effect, and where it comes from, checks everything, and exits: with 0 if the
service could run.

The node's applications connect to it by STOMP, on --local-listen and on a Unix
socket in the state folder, with the passcode in the file passcode there:

  SEND      /exchange/to_creditors/<routing key>    and to_debtors, creditors_out, debtors_out
  SUBSCRIBE /queue/accounts_in                      or creditors_in, debtors_in

With --broker amqp://user:password@host:port/vhost (or amqps://), the messages
are kept in RabbitMQ instead, with the exchanges and queues of the reference
implementation. Applications connect to RabbitMQ itself: the service has no socket
for them and no state folder (--state has no effect), and "send" and "tail" do not
apply. RabbitMQ needs its plugin rabbitmq_random_exchange. A password is best given
in the environment.
Each queue of a peer ("peer queues") has a connection of its own, and several
services may share the work of one node.

In a network from which other machines are reached through a proxy only, --proxy
names it. It is used for the connections to peers; info-bundles are fetched without it,
because the addresses in their URLs could not be checked. A password is best given in
--proxy-password-file.

A peer that moves is found again if it publishes its info-bundle, which is then
fetched (--follow). With --publish this node publishes its own; name the URL in
nodeinfo/stomp.toml, as info-bundle-urls = ["http://…"]. The first https:// URL there
is also announced to the peers that this node connects to, so that they find it when all
that they know is dead. See docs/moving.md.

Messages that are still queued for a peer when it is deactivated are answered on
behalf of the peer, so that the applications can release what they hold for it.

Listening TCP sockets that systemd has opened (a socket unit) are used instead of
opening them, and no connection is refused while the service is restarted. Their
names (FileDescriptorName=) are links for --listen, which is also that of a socket
without a name, local for --local-listen, admin and publish. See docs/operations.md.

The resources that one peer can use are bounded, and a connection with nothing to
send is closed until there is something: see the flags, and docs/security.md.

The exit code is 1 after a failure, and 64 if the arguments or the configuration
are wrong: then restarting the service does not help.

SIGTERM ends the service in good order. SIGHUP makes it check everything at once:
the server certificate, the node's directory, the queues, and the info-bundles that
peers publish. SIGUSR1 changes the log level to debug, SIGUSR2 back. The service
needs no root key, and does not run if other users can read the root key in the
node's directory. With --allow-root-key it only warns if that key is encrypted
(where a folder is mounted with everything in it), and still does not run if the
key is not encrypted.`,
		Example: `  peerlink -C my-node serve
  peerlink -C my-node serve --check
  peerlink -C my-node serve --server-cert server.crt --server-key server.key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.readNodedataURL(cmd); err != nil {
				return err
			}
			if err := f.takeSockets(cmd.Flags()); err != nil {
				return err
			}
			if check {
				return a.checkServe(cmd, f)
			}
			return a.serve(cmd.Context(), f)
		},
	}
	c.Flags().BoolVar(&check, "check", false, "print every setting in effect, check everything that the service needs, and exit")
	f.add(a, c)
	return c
}

// add adds the flags to a command.
func (f *serveFlags) add(a *app, c *cobra.Command) {
	flags := c.Flags()
	f.listen = ":1234"
	flags.Var(&f.listen, "listen", "`ADDRESS` where peers connect, or only its port")
	fromEnv(flags, "listen", "PEERLINK_LISTEN", "SWPT_SERVER_PORT")
	serverCertFlags(c, &f.serverCert, &f.serverKey)
	proxyFromFlag(c, &f.proxyFrom)
	outboundProxyFlags(c, &f.proxy)
	brokerFlag(c, &f.broker)
	queuePatternFlag(c, &f.queuePattern)
	deadLetterSuffixFlag(c, &f.deadLetterSuffix)
	managementFlag(c, &f.management)
	queueTypeFlag(c, &f.queueType)
	a.stateFlag(c, &f.state)
	flags.StringVar(&f.localListen, "local-listen", "127.0.0.1:61613", "loopback `ADDRESS` for the node's applications, \"none\" for the Unix socket only")
	fromEnv(flags, "local-listen", "PEERLINK_LOCAL_LISTEN")
	followFlags(c, &f.follow)
	publishFlags(c, &f.publish)
	flags.StringVar(&f.admin, "admin", "", "`ADDRESS` of the dashboard, metrics and health checks, beside admin.sock in the state folder: loopback such as 127.0.0.1:1235, unix:/path, or none (then not even the socket); default "+defaultDashboard+" if it is free")
	fromEnv(flags, "admin", "PEERLINK_ADMIN")
	flags.BoolVar(&f.adminExposed, "admin-exposed", false, "allow an --admin address that other machines can reach; nothing can be changed there")
	fromEnv(flags, "admin-exposed", "PEERLINK_ADMIN_EXPOSED")
	flags.StringVar(&f.logLevel, "log-level", "info", "`LEVEL`: error, warning, info or debug")
	fromEnv(flags, "log-level", "PEERLINK_LOG_LEVEL", "APP_LOG_LEVEL")
	flags.StringVar(&f.logFormat, "log-format", "text", "`FORMAT`: text or json")
	fromEnv(flags, "log-format", "PEERLINK_LOG_FORMAT", "APP_LOG_FORMAT")
	flags.BoolVar(&f.allowRootKey, "allow-root-key", false, "run beside an encrypted root key that other users can read, and only warn: each of them can try its passphrase")
	fromEnv(flags, "allow-root-key", "PEERLINK_ALLOW_ROOT_KEY")
	f.limits.add(c)
}

// readNodedataURL sets the node's directory from the reference's environment variable, if it is not given otherwise.
func (a *app) readNodedataURL(cmd *cobra.Command) error {
	v := os.Getenv("SWPT_NODEDATA_URL")
	if v == "" || os.Getenv("PEERLINK_DIR") != "" || cmd.Flags().Changed("dir") {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "file" || u.Host != "" || !filepath.IsAbs(u.Path) {
		return usagef("SWPT_NODEDATA_URL is %q: expected a directory as file:///path/to/it", v)
	}
	a.dir = u.Path
	return nil
}

func (a *app) serve(ctx context.Context, f serveFlags) error {
	log, level, err := a.newLogger(&a.stderr, f.logLevel, f.logFormat, false)
	if err != nil {
		return err
	}
	f.logDropped = a.logDropped
	late := errStopsLate
	if f.broker == embeddedBroker {
		late = errStoreStopsLate
	}
	var stopped func()
	f.stopping, stopped = a.limitStop(ctx, maxServiceStop, late)
	defer stopped()
	if err := f.checkAddresses(); err != nil {
		return err
	}
	guard.ConfineService()
	handleLevelSignals(ctx, level, log)
	reportVariables(log, replacedInServe)
	cfg, err := a.serviceConfig(ctx, &f, log)
	if cfg.Broker != nil {
		defer cfg.Broker.Close()
	}
	if err != nil {
		return err
	}
	if cfg.Proxy != nil {
		log.Info("peers are connected to through a proxy", "proxy", cfg.Proxy.String())
	}
	cfg.Recheck = sighups(ctx)
	stopPublishing, err := f.publish.start(ctx, cfg.Dir, f.inherited(socketPublish), log)
	if err != nil {
		return err
	}
	defer stopPublishing()
	if cfg.Broker != nil {
		err = serveRabbitMQ(ctx, f, cfg, level)
	} else {
		err = serveEmbedded(ctx, f, cfg, level)
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// serviceConfig returns the configuration of the links, after checking the flags, the node's directory,
// and the server certificate. It opens no port, and does not connect to a broker; the caller must close
// the broker in the configuration, if there is one, also after an error. It sets defaults in f.
func (a *app) serviceConfig(ctx context.Context, f *serveFlags, log *slog.Logger) (cfg link.Config, err error) {
	if f.timeouts, err = timeoutsFromEnvironment(); err != nil {
		return cfg, err
	}
	cfg = link.Config{Log: log, ProxyFrom: f.proxyFrom, HandshakeTimeout: f.timeouts.handshake}
	if cfg.Follow, err = f.follow.config(); err != nil {
		return cfg, err
	}
	if cfg.Proxy, err = f.proxy.config(ctx, func(text string) { log.Warn(text) }); err != nil {
		return cfg, err
	}
	if err := f.limits.set(&cfg, f.broker); err != nil {
		return cfg, err
	}
	if err := f.setBroker(&cfg); err != nil {
		return cfg, err
	}
	if cfg.Dir, err = a.open(); err != nil {
		return cfg, err
	}
	if err := checkRootKey(cfg.Dir, f.allowRootKey, log); err != nil {
		return cfg, err
	}
	warnOpenDirectory(a.dir, log)
	a.serverFiles(&f.serverCert, &f.serverKey)
	cfg.Certificate, err = loadCertificate(cfg.Dir, f.serverCert, f.serverKey, log)
	return cfg, err
}

// setBroker checks the flags for the broker. It opens a RabbitMQ broker, which does not connect yet. It does not open
// the embedded broker, because that writes files.
func (f *serveFlags) setBroker(cfg *link.Config) error {
	if f.broker == embeddedBroker {
		if f.queuePattern != string(link.DefaultQueuePattern) || f.queueType != string(rabbitmq.Classic) || f.deadLetterSuffix != defaultDeadLetterSuffix || f.management != "" {
			return usagef("--queue-pattern, --queue-type, --dead-letter-suffix and --management are for RabbitMQ, and the broker is the embedded one")
		}
		return nil
	}
	pattern, err := link.ParseQueuePattern(f.queuePattern)
	if err != nil {
		return usagef("--queue-pattern: %v", err)
	}
	b, err := openRabbitMQ(f.broker, rabbitmq.Options{
		Logger: cfg.Log, QueueType: rabbitmq.QueueType(f.queueType), DeadLetterSuffix: f.deadLetterSuffix, Management: f.management,
		ConnectTimeout: f.timeouts.connect, ConfirmTimeout: f.timeouts.confirm,
	})
	if err != nil {
		return err
	}
	cfg.Broker, cfg.AllQueues, cfg.QueuePattern = b, true, pattern
	cfg.AcquireSpread = acquireSpread
	return nil
}

// setFormerQueuePatterns sets in cfg the patterns of queue names that are recorded in the node's
// directory. It records the present pattern there, unless that is the default one, so that its
// queues are found after the pattern is changed.
func setFormerQueuePatterns(ctx context.Context, cfg *link.Config) error {
	known, err := cfg.Dir.QueuePatterns()
	if err != nil {
		return err
	}
	for _, s := range known {
		if p, err := link.ParseQueuePattern(s); err == nil {
			cfg.FormerQueuePatterns = append(cfg.FormerQueuePatterns, p)
		}
	}
	cfg.KeepQueuePatterns = true
	if err := recordQueuePattern(ctx, cfg.Dir, cfg.QueuePattern); err != nil {
		cfg.Log.Warn("the queue pattern can not be recorded in the node's directory: before it is changed, wait until the queues with such names are empty", "pattern", cfg.QueuePattern, "err", err)
	}
	return nil
}

// recordQueuePattern records a pattern of queue names in the node's directory, unless it is the default
// one.
func recordQueuePattern(ctx context.Context, d *node.Dir, pattern link.QueuePattern) error {
	if pattern == link.DefaultQueuePattern {
		return nil
	}
	return d.RecordQueuePatterns(ctx, string(pattern))
}

// serveRabbitMQ runs the links and then closes the broker. After an error the broker may be open,
// so the caller must close it too. There is no lock, because several services can use the same
// RabbitMQ and share the queues.
func serveRabbitMQ(ctx context.Context, f serveFlags, cfg link.Config, level *slog.LevelVar) error {
	if err := setFormerQueuePatterns(ctx, &cfg); err != nil {
		return err
	}
	listeners, err := linkListeners(f.sockets[socketLinks], f.listen)
	if err != nil {
		return err
	}
	warnUnusedStore(cfg.Dir, f.state, cfg.Log)
	adminConfig := admin.Config{Level: level, LogDropped: f.logDropped}
	cfg.Log.Info("applications connect to RabbitMQ itself: this service has no local door for them")
	err = runLinks(ctx, f, cfg, listeners, "", adminConfig)
	f.stopping()
	return errors.Join(err, cfg.Broker.Close())
}

// serveEmbedded runs the links and the local door for applications on the same store.
func serveEmbedded(ctx context.Context, f serveFlags, cfg link.Config, level *slog.LevelVar) error {
	d, log := cfg.Dir, cfg.Log
	state, err := openState(d, f.state)
	if err != nil {
		return err
	}
	warnOpenState(state, log)
	warnStateInside(d, state, log)
	unlock, err := lockState(state)
	if err != nil {
		return err
	}
	defer unlock()
	go warnOtherStores(ctx, d, state, log) // a service that hangs must not delay this one
	store, err := openStore(d, storePath(state), embedded.Options{
		Logger: log, Service: true,
		PeerQuota: int64(f.limits.quota), MinFree: minFree, Reserve: reserve,
	})
	if err != nil {
		return err
	}
	defer store.Close()
	defer f.stopping() // before the store is closed
	cfg.Broker = store
	if cfg.Outbox, err = link.NewOutbox(d); err != nil {
		return err
	}

	listeners, err := linkListeners(f.sockets[socketLinks], f.listen)
	if err != nil {
		return err
	}
	bound := make(chan struct{})
	cfg.Serving = func() { close(bound) }
	door, err := local.Open(local.Config{
		Store:     store,
		Bound:     bound,
		StateDir:  state,
		Owner:     storeOwner(d),
		Listen:    f.localListen,
		TCP:       f.inherited(socketLocal),
		Inbox:     d.Identity().Type.Inbox(),
		Exchanges: d.Identity().Type.Outboxes(),
		Messages:  cfg.Outbox,
		Log:       log,
	})
	if err != nil {
		closeListeners(listeners)
		return fmt.Errorf("the door for applications: %w", err)
	}

	// The door stays open until the links have ended. Messages that applications send meanwhile are stored.
	doorCtx, closeDoor := context.WithCancel(context.WithoutCancel(ctx))
	defer closeDoor()
	serviceCtx, stopService := context.WithCancel(ctx)
	defer stopService()
	doorErr := make(chan error, 1)
	go func() {
		err := door.Serve(doorCtx)
		if err != nil {
			stopService()
		}
		doorErr <- err
	}()
	adminConfig := admin.Config{Queues: store.Stats, Applications: door.Counts, Level: level, LogDropped: f.logDropped}
	err = runLinks(serviceCtx, f, cfg, listeners, state, adminConfig)
	f.stopping()
	closeDoor()
	err = errors.Join(err, <-doorErr)
	if closeErr := store.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close the message store: %w", closeErr))
	}
	return err
}

// peerAddress is the address to which peers connect. Without a host, it means all addresses of the machine.
type peerAddress string

// Set parses an address.
func (p *peerAddress) Set(s string) error {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		s = ":" + s
	}
	if checkHostPort(s) != nil {
		return errors.New("expected an address like :1234 or 192.0.2.1:1234, or a port")
	}
	*p = peerAddress(s)
	return nil
}

// checkHostPort returns an error if a string can not be an address on which to listen: host:port with the number of the
// port, where the host may be missing. Whether the name of a host can be resolved is not checked.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	isName := strings.Trim(host, "0123456789.") != "" && !strings.ContainsFunc(host, isNoHostByte)
	if err == nil && host != "" && !isName {
		_, err = netip.ParseAddr(host)
	}
	return err
}

// isNoHostByte reports whether a character can not be in the name of a host.
func isNoHostByte(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
}

func (p *peerAddress) String() string { return string(*p) }

// Type returns the type shown in the help.
func (*peerAddress) Type() string { return "ADDRESS" }

// lockName is the name of the file that is locked in the state folder.
const lockName = "serve.lock"

// lockState locks the state folder, which only one service may use at a time.
func lockState(state string) (unlock func(), err error) {
	l := durable.NewFlock(filepath.Join(state, lockName))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", state, durable.ExplainOpen(l.Path(), err))
	}
	if !ok {
		return nil, fmt.Errorf("another \"peerlink serve\" is running with the state folder %s", state)
	}
	// The lock file may have been removed while another service holds its lock, so the folder itself is locked too, on
	// systems that support it. A folder that other users can open is not: they could hold its lock for ever.
	if fi, err := os.Stat(state); err != nil || fi.Mode().Perm()&0o044 != 0 {
		return func() { l.Unlock() }, nil
	}
	folder := flock.New(state, flock.SetFlag(os.O_RDONLY))
	if ok, err := folder.TryLock(); err == nil && !ok {
		l.Unlock()
		return nil, fmt.Errorf("another \"peerlink serve\" is running with the state folder %s", state)
	}
	return func() { folder.Close(); l.Unlock() }, nil
}
