package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/broker/rabbitmq"
	"peerlink/internal/activation"
	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/node"
)

// The four commands of the reference implementation, with the same options, environment variables
// and defaults, so that peerlink's container image can replace the reference's (section "RabbitMQ
// objects of the reference" of the messages specification). They are commands of peerlink. Each
// also runs if the program is started by a link with the command's name.
//
// Differences from the reference: SIGTERM is not a failure (exit code 0), and wrong usage of a
// service has exit code 64, as with "serve", instead of 2. The default size of buffers is the same
// as for "serve" instead of 100 messages, which would be slow.
const (
	swptServer     = "swpt-server"
	swptClient     = "swpt-client"
	swptDrainer    = "swpt-drainer"
	configureQueue = "configure-queue"
)

// commandName returns the command that the name of the program selects, if the program was started by a link with the
// name of a command.
func commandName(program string) []string {
	name := strings.TrimSuffix(filepath.Base(program), ".exe")
	if slices.Contains([]string{swptServer, swptClient, swptDrainer, configureQueue}, name) {
		return []string{name}
	}
	return nil
}

func (a *app) swptServerCommand() *cobra.Command {
	var s swptSettings
	c := &cobra.Command{
		Use:   swptServer,
		Short: "Accept the connections of all active peers, as the reference's command of this name",
		Args:  noArgs,
	}
	s.portOption(c)
	proxyFromFlag(c, &s.proxyFrom)
	s.certificateOptions(c)
	s.commonOptions(c)
	s.serverBufferOption(c, "b")
	return a.swpt(c, &s, func(ctx context.Context, d *node.Dir, cfg link.Config, _ []string) error {
		var err error
		if cfg.Certificate, err = loadCertificate(d, filepath.Clean(s.serverCert), filepath.Clean(s.serverKey), cfg.Log); err != nil {
			return err
		}
		listeners, err := s.listeners(c.Flags())
		if err != nil {
			return err
		}
		cfg.Log.Info("serving", "node", d.Identity().String(), "listen", addressesOf(listeners))
		return link.NewReceiveOnly(cfg).Run(ctx, listeners...)
	})
}

func (a *app) swptClientCommand() *cobra.Command {
	var s swptSettings
	c := &cobra.Command{
		Use:   swptClient + " PEER_NODE_ID QUEUE_NAME",
		Short: "Send what is in a queue to a peer, as the reference's command of this name",
		Long: `Sends what is in a queue to a peer, over one connection. It ends, with exit code 1,
when there is no connection (any more), to be started again. While
another process sends from the queue, it waits.`,
		Args: someArgs(2, 2),
	}
	s.certificateOptions(c)
	s.commonOptions(c)
	outboundProxyFlags(c, &s.proxy)
	s.clientBufferOption(c, "b")
	return a.swpt(c, &s, func(ctx context.Context, d *node.Dir, cfg link.Config, args []string) error {
		var err error
		if cfg.Proxy, err = s.proxy.config(ctx, func(text string) { cfg.Log.Warn(text) }); err != nil {
			return err
		}
		if cfg.Certificate, err = loadCertificate(d, filepath.Clean(s.serverCert), filepath.Clean(s.serverKey), cfg.Log); err != nil {
			return err
		}
		return link.NewQueueSender(cfg, args[0], args[1]).Run(ctx)
	})
}

func (a *app) swptDrainerCommand() *cobra.Command {
	var s swptSettings
	c := &cobra.Command{
		Use:   swptDrainer + " PEER_NODE_ID QUEUE_NAME",
		Short: "Answer what is queued for a deactivated peer, as the reference's command of this name",
		Args:  someArgs(2, 2),
	}
	s.commonOptions(c)
	s.clientBufferOption(c, "b")
	s.serverBufferOption(c, "B")
	return a.swpt(c, &s, func(ctx context.Context, _ *node.Dir, cfg link.Config, args []string) error {
		return link.NewQueueDrainer(cfg, args[0], args[1]).Run(ctx)
	})
}

func (a *app) configureQueueCommand() *cobra.Command {
	var s swptSettings
	c := &cobra.Command{
		Use:   configureQueue + " PEER_NODE_ID QUEUE_NAME",
		Short: "Make a queue for the messages to a peer, as the reference's command of this name",
		Args:  someArgs(2, 2),
	}
	s.commonOptions(c)
	return a.swpt(c, &s, func(ctx context.Context, d *node.Dir, cfg link.Config, args []string) error {
		id, queue := args[0], args[1]
		p, err := d.Peer(id)
		if err != nil {
			return err
		}
		if p.SubCA == nil || p.Deactivated != "" {
			return fmt.Errorf("peer %s is %s: it needs no queue", id, p.State())
		}
		view, err := link.View(d, p)
		if err != nil {
			return err
		}
		q, err := link.BindingOf(d, p, view, link.DefaultQueuePattern)
		if err != nil {
			return err
		}
		q.Queues = []string{queue}
		if err := cfg.Broker.Bind(ctx, q); err != nil {
			return err
		}
		cfg.Log.Info("queue is configured", "peer", id, "queue", queue)
		return nil
	})
}

// swptSettings are the settings of the four commands.
type swptSettings struct {
	// Options, each of which has an environment variable.
	port                       int
	proxyFrom                  prefixes
	proxy                      outboundProxy
	serverCert, serverKey      string
	nodedata, broker           string
	serverBuffer, clientBuffer int // in messages; 0: not set
	logLevel, logFormat        string

	// Set by environment variables only.
	maxConns int
	timeouts timeouts
}

// listeners returns the sockets where peers connect: those that systemd has opened, or one at the port.
func (s *swptSettings) listeners(flags *pflag.FlagSet) ([]net.Listener, error) {
	sockets, err := activation.Take(socketLinks)
	if err != nil {
		return nil, usagef("%v", err)
	}
	addr := peerAddress(fmt.Sprint(":", s.port))
	list := sockets[socketLinks]
	if isGiven(flags, "server-port") && len(list) > 0 && !slices.ContainsFunc(list, s.hasPort) {
		return nil, usagef("--server-port is %d, and systemd has opened %s: leave out the former, or set ListenStream= in the socket unit to the same", s.port, addressesOf(list))
	}
	return linkListeners(list, addr)
}

// hasPort reports whether a listener is at the port, at any address.
func (s *swptSettings) hasPort(l net.Listener) bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && addr.Port == s.port
}

func (s *swptSettings) portOption(c *cobra.Command) {
	c.Flags().IntVarP(&s.port, "server-port", "p", 1234, "TCP `PORT` to accept connections on")
	fromEnv(c.Flags(), "server-port", "SWPT_SERVER_PORT")
}

func (s *swptSettings) certificateOptions(c *cobra.Command) {
	c.Flags().StringVarP(&s.serverCert, "server-cert", "c", "/etc/swpt/server.crt", "the server certificate, a PEM `FILE`")
	fromEnv(c.Flags(), "server-cert", "SWPT_SERVER_CERT")
	c.Flags().StringVarP(&s.serverKey, "server-key", "k", "/secrets/swpt-server.key", "its unencrypted key, a PEM `FILE`")
	fromEnv(c.Flags(), "server-key", "SWPT_SERVER_KEY")
}

func (s *swptSettings) commonOptions(c *cobra.Command) {
	c.Flags().StringVarP(&s.nodedata, "nodedata-url", "n", "file:///var/lib/swpt-nodedata", "`URL` of the node's directory")
	fromEnv(c.Flags(), "nodedata-url", "SWPT_NODEDATA_URL")
	s.broker = "amqp://guest:guest@localhost:5672"
	c.Flags().VarP(&brokerURLs{text: &s.broker}, "broker-url", "u", "`URL` of RabbitMQ; several for a cluster, with commas between them or as several options")
	fromEnv(c.Flags(), "broker-url", "PROTOCOL_BROKER_URL")
	c.Flags().StringVarP(&s.logLevel, "log-level", "l", "info", "error, warning, info or debug")
	fromEnv(c.Flags(), "log-level", "APP_LOG_LEVEL")
	c.Flags().StringVarP(&s.logFormat, "log-format", "f", "text", "text or json")
	fromEnv(c.Flags(), "log-format", "APP_LOG_FORMAT")
}

func (s *swptSettings) serverBufferOption(c *cobra.Command, short string) {
	c.Flags().IntVarP(&s.serverBuffer, "server-buffer", short, 0, "maximum `NUMBER` of messages on their way into RabbitMQ; not set, 1000")
	fromEnv(c.Flags(), "server-buffer", "SWPT_SERVER_BUFFER")
}

func (s *swptSettings) clientBufferOption(c *cobra.Command, short string) {
	c.Flags().IntVarP(&s.clientBuffer, "client-buffer", short, 0, "maximum `NUMBER` of messages taken out of the queue and not confirmed; not set, 2000")
	fromEnv(c.Flags(), "client-buffer", "SWPT_CLIENT_BUFFER")
}

// swpt completes one of the four commands: it makes the command call run with the common settings.
func (a *app) swpt(c *cobra.Command, s *swptSettings, run func(context.Context, *node.Dir, link.Config, []string) error) *cobra.Command {
	c.Hidden = true
	c.DisableFlagsInUseLine = true
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.complete(); err != nil {
			return err
		}
		dir, ok := strings.CutPrefix(s.nodedata, "file://")
		if !ok || !filepath.IsAbs(dir) || cmd.Flags().Changed("dir") {
			return usagef("the node's directory is named by --nodedata-url, as file:///path/to/it; got %q", s.nodedata)
		}
		// As with the reference, the log goes to standard output.
		log, _, err := a.newLogger(&a.stdout, s.logLevel, s.logFormat, true)
		if err != nil {
			return err
		}
		// Standard error is for the final messages. Like the log, it must not block the program.
		a.openLog(&a.stderr, func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
		_, stopped := a.limitStop(cmd.Context(), maxServiceStop, errStopsLate)
		defer stopped()
		guard.ConfineService()
		reportVariables(log, nil)
		b, err := rabbitmq.Open(s.broker, rabbitmq.Options{
			Logger: log, Prefetch: s.clientBuffer, MaxPending: s.serverBuffer, ConnectTimeout: s.timeouts.connect, ConfirmTimeout: s.timeouts.confirm,
		})
		if err != nil {
			return usagef("--broker-url: %v", err)
		}
		defer b.Close()
		d, err := node.Open(filepath.Clean(dir))
		if err != nil {
			return fmt.Errorf("--nodedata-url: %w", err)
		}
		// A root key that other users can read is allowed if it is encrypted: Compose mounts the whole directory of a
		// node, and Git does not preserve modes.
		if err := checkRootKey(d, true, log); err != nil {
			return err
		}
		return run(cmd.Context(), d, link.Config{
			Dir: d, Broker: b, Log: log, Recheck: sighups(cmd.Context()), Window: s.clientBuffer, HandshakeTimeout: s.timeouts.handshake, MaxConnsPerPeer: s.maxConns,
			ProxyFrom: s.proxyFrom,
			// As with the reference, other programs update the node's directory, and idle connections stay open.
			Follow: link.Follow{Off: true}, IdleTimeout: -1,
		}, args)
	}
	return c
}

// complete reads the settings that are set by environment variables only, and checks the settings that are not checked
// when they are used.
func (s *swptSettings) complete() error {
	if s.port < 0 || s.port > math.MaxUint16 {
		return usagef("--server-port %d: expected a number from 0 to %d", s.port, math.MaxUint16)
	}
	for _, n := range []int{s.serverBuffer, s.clientBuffer} {
		if n < 0 || n > math.MaxUint16 {
			return usagef("a buffer of %d messages: expected a number from 1 to %d", n, math.MaxUint16)
		}
	}
	conns, err := numberFrom(maxConnectionsVariable, 10)
	if err != nil {
		return err
	}
	s.maxConns = int(math.Ceil(conns))
	s.timeouts, err = timeoutsFromEnvironment()
	return err
}

// The reference's numeric variables that are not options.
const (
	maxConnectionsVariable = "APP_MAX_CONNECTIONS_PER_PEER"
	handshakeVariable      = "APP_SSL_HANDSHAKE_TIMEOUT"
	connectVariable        = "APP_RMQ_CONNECTION_TIMEOUT_SECONDS"
	confirmVariable        = "APP_RMQ_CONFIRMATION_TIMEOUT_SECONDS"
)

// timeouts are the time limits that the reference reads from environment variables.
type timeouts struct {
	handshake        time.Duration // of TLS
	connect, confirm time.Duration // of RabbitMQ
}

func timeoutsFromEnvironment() (t timeouts, err error) {
	for _, v := range []struct {
		d        *time.Duration
		variable string
		def      float64
	}{
		{&t.handshake, handshakeVariable, 5},
		{&t.connect, connectVariable, 10},
		{&t.confirm, confirmVariable, 20},
	} {
		seconds, err := numberFrom(v.variable, v.def)
		if err != nil {
			return t, err
		}
		*v.d = time.Duration(seconds * float64(time.Second))
	}
	return t, nil
}

// numberFrom returns a positive number of at most 1e6 from an environment variable, or def if that
// is not set.
func numberFrom(variable string, def float64) (float64, error) {
	value := os.Getenv(variable)
	if value == "" {
		return def, nil
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || !(n > 0 && n <= 1e6) { // also refuses NaN
		return 0, usagef("%s is %q: expected a positive number, at most 1000000", variable, value)
	}
	return n, nil
}
