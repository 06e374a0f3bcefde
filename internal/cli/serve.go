package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node"
	"peerlink/smp"
)

// serveFlags are the settings of the service.
type serveFlags struct {
	listen, serverCert, serverKey string
	broker, state, localListen    string
	logLevel, logFormat           string
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Keep the links to all peers, and the door for the node's applications",
		Long: `Keeps a link to every registered peer: accepts their connections, and dials their
servers to send what the node's applications have put into the queues. Peers
that are added, that move or are deactivated are noticed within seconds.

The node's applications talk STOMP 1.2 with it, on --local-listen and on a Unix
socket in the state folder, with the passcode that lies there:

  SEND      /exchange/to_creditors/<routing key>    and to_debtors, creditors_out, debtors_out
  SUBSCRIBE /queue/accounts_in                      or creditors_in, debtors_in

SIGTERM ends it in good order. It needs no root key.`,
		Example: "  peerlink -C my-node serve --server-cert server.crt --server-key server.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.nodedataURL(cmd); err != nil {
				return err
			}
			return a.serve(cmd.Context(), f)
		},
	}
	port := env("1234", "SWPT_SERVER_PORT")
	c.Flags().StringVar(&f.listen, "listen", env(":"+port, "PEERLINK_LISTEN"), "`ADDRESS` where peers connect (env PEERLINK_LISTEN, SWPT_SERVER_PORT)")
	c.Flags().StringVar(&f.serverCert, "server-cert", env("/etc/swpt/server.crt", "PEERLINK_SERVER_CERT", "SWPT_SERVER_CERT"), "the server certificate `FILE` (env PEERLINK_SERVER_CERT, SWPT_SERVER_CERT)")
	c.Flags().StringVar(&f.serverKey, "server-key", env("/secrets/swpt-server.key", "PEERLINK_SERVER_KEY", "SWPT_SERVER_KEY"), "its key `FILE` (env PEERLINK_SERVER_KEY, SWPT_SERVER_KEY)")
	c.Flags().StringVar(&f.broker, "broker", env("embedded", "PEERLINK_BROKER", "PROTOCOL_BROKER_URL"), "where messages are kept: \"embedded\" (env PEERLINK_BROKER, PROTOCOL_BROKER_URL)")
	a.stateFlag(c, &f.state)
	c.Flags().StringVar(&f.localListen, "local-listen", env("127.0.0.1:61613", "PEERLINK_LOCAL_LISTEN"), "loopback `ADDRESS` for the node's applications, \"none\" for the Unix socket only (env PEERLINK_LOCAL_LISTEN)")
	c.Flags().StringVar(&f.logLevel, "log-level", env("info", "PEERLINK_LOG_LEVEL", "APP_LOG_LEVEL"), "error, warning, info or debug (env PEERLINK_LOG_LEVEL, APP_LOG_LEVEL)")
	c.Flags().StringVar(&f.logFormat, "log-format", env("text", "PEERLINK_LOG_FORMAT", "APP_LOG_FORMAT"), "text or json (env PEERLINK_LOG_FORMAT, APP_LOG_FORMAT)")
	return c
}

// nodedataURL takes the reference's name for the node's directory from the
// environment, where nothing else names one.
func (a *app) nodedataURL(cmd *cobra.Command) error {
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
	log, err := newLogger(a.stderr, f.logLevel, f.logFormat)
	if err != nil {
		return err
	}
	if f.broker != "embedded" {
		scheme, _, _ := strings.Cut(f.broker, ":") // the rest may hold a password
		return usagef("--broker %s…: this version has the embedded broker only", scheme)
	}
	d, err := a.open()
	if err != nil {
		return err
	}
	cert, err := link.LoadCertificate(d, f.serverCert, f.serverKey)
	if err != nil {
		return err
	}
	state, err := openState(d, f.state)
	if err != nil {
		return err
	}
	unlock, err := lockState(state)
	if err != nil {
		return err
	}
	defer unlock()
	store, err := embedded.Open(storePath(state), embedded.Options{Logger: log})
	if err != nil {
		return err
	}
	defer store.Close()

	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	door, err := local.Open(local.Config{
		Store:     store,
		StateDir:  state,
		Listen:    f.localListen,
		Inbox:     d.Identity().Type.Inbox(),
		Exchanges: d.Identity().Type.Outboxes(),
		Types:     outgoingTypes(d),
		Log:       log,
	})
	if err != nil {
		listener.Close()
		return fmt.Errorf("the door for applications: %w", err)
	}
	service := link.New(link.Config{Dir: d, Broker: store, Listener: listener, Certificate: cert, Log: log})

	log.Info("serving", "node", d.Identity().String(), "listen", listener.Addr().String(), "state", state)
	// The door stays open until the links have ended: whoever sends to it meanwhile
	// sends into the store.
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
	err = service.Run(serviceCtx)
	closeDoor()
	err = errors.Join(err, <-doorErr)
	if closeErr := store.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close the message store: %w", closeErr))
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// outgoingTypes tells which message types the node's applications may send.
func outgoingTypes(d *node.Dir) func(string) bool {
	if d.Identity().Type.IDDerived() {
		return smp.IsIn // toward an accounting authority
	}
	return smp.IsOut
}

// lockState makes sure that one service uses the state folder at a time.
func lockState(state string) (unlock func(), err error) {
	l := flock.New(filepath.Join(state, "serve.lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", state, err)
	}
	if !ok {
		return nil, fmt.Errorf("another \"peerlink serve\" is running with the state folder %s", state)
	}
	return func() { l.Unlock() }, nil
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	switch level {
	case "error":
		l = slog.LevelError
	case "warning", "warn":
		l = slog.LevelWarn
	case "info":
		l = slog.LevelInfo
	case "debug":
		l = slog.LevelDebug
	default:
		return nil, usagef("--log-level %q: expected error, warning, info or debug", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usagef("--log-format %q: expected text or json", format)
}
