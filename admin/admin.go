// Package admin serves the state of a running service over HTTP, for operators and for
// their monitoring:
//
//	GET /            a page for people: the dashboard
//	GET /node        a page about the node itself
//	GET /peers/ID    a page about one peer
//	GET /peers/ID/aside   the peer's messages that are set aside, with the [Config].Token
//	POST /peers/ID/aside  sends them again, or drops them, with the token
//	GET /links       the same in JSON ([Links])
//	GET /metrics     metrics for Prometheus
//	GET /healthz     200 while the service runs; 503 if a part of the service hangs
//	GET /readyz      200 while the service can serve its peers, reachable or not; otherwise 503
//	                 and the reasons
//	GET /log-level   the log level
//	PUT /log-level   changes it: error, warning, info or debug
//
// Access depends on the address: a Unix socket that only
// the service's own user can open, or a loopback port that all users of the machine can
// reach. Other addresses need [Listen.Exposed]; through such an address nothing can be
// changed. Messages are shown, sent again and dropped only for requests with the token, in the
// header "Authorization: Bearer TOKEN": a browser adds it to no request by itself, so another
// site can not use it, and a program on another port, which would receive a cookie, does not get it.
//
// Nothing else that is served is secret, but parts of it were written by peers: they are bounded in
// length, and escaped for display. Web pages in a browser on this machine have no access:
// requests with another name than localhost in Host are refused, against DNS rebinding, and so
// are cross-origin requests.
package admin

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/internal/httplimit"
	"peerlink/internal/pendingconns"
	"peerlink/link"
	"peerlink/node/check"
)

// Listen is an address at which a [Server] listens, and what is allowed there.
type Listen struct {
	// Address is in the form of [ParseAddress].
	Address string
	// Listener is a listener at this TCP address that is open already, or nil. The server closes it.
	Listener net.Listener
	// Exposed permits an Address that other machines can reach.
	Exposed bool
	// Optional means that a failure to listen there is only logged.
	Optional bool
	// FixedLevel prevents that the log level is changed through the address.
	FixedLevel bool
}

// Config configures a [Server].
type Config struct {
	// Listen has at least one address.
	Listen []Listen

	Version string
	Status  func() link.Status
	// Peer returns the details of a peer. It may be nil.
	Peer func(id string) (link.PeerDetails, bool)
	// Check checks the node's directory. It may be nil.
	Check func(context.Context) (*check.Report, error)
	// Broker describes where the messages are kept, without a secret.
	Broker string
	// Queues returns the statistics of the embedded broker. It is nil with another broker.
	Queues func(context.Context) (embedded.Stats, error)
	// BrokerHealth returns why the broker cannot be used, or nil if it can. It must not
	// block.
	BrokerHealth func() error
	// BrokerWarnings returns problems of the broker that do not prevent its use. It may be
	// nil, and must not block.
	BrokerWarnings func() []string
	// Stalled returns an error while a part of the service hangs, so that a restart may
	// help. It may be nil.
	Stalled func() error
	// DeadLetters are those of the broker. It is nil if the broker has none.
	DeadLetters broker.DeadLetters
	// Token is the secret of requests that show or change messages. If it is empty, there are no
	// such requests.
	Token string
	// Applications returns how many messages the node's applications have sent, by result. It is
	// nil if they do not send by this service.
	Applications func() map[string]uint64
	// LogDropped returns how many log records were dropped. It may be nil.
	LogDropped func() uint64
	Level      *slog.LevelVar
	Log        *slog.Logger
}

// Bounds of the server.
const (
	maxHeader    = 16 << 10         // bytes of a request's header
	readTimeout  = 10 * time.Second // for reading a request
	writeTimeout = 30 * time.Second // for the response
	idleTimeout  = time.Minute      // between two requests
	stopTimeout  = 2 * time.Second  // for pending responses when the service stops
)

// Server serves the state of one service.
type Server struct {
	cfg       Config
	listeners []*listener
	dashboard string // see [Links]
	template  *template.Template
	process   prometheus.Gatherer
	history   history
	check     lastCheck
}

// listener is an address at which a [Server] listens, with the HTTP server for it.
type listener struct {
	net.Listener
	http *http.Server
}

// Open listens on the addresses. It returns [ErrAddress] if an address is invalid, and
// [ErrExposed] if it is not permitted.
func Open(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, template: parsePages(), process: processMetrics()}
	for _, where := range cfg.Listen {
		err := s.listen(where)
		switch {
		case err != nil && where.Optional:
			cfg.Log.Warn("the service goes on without this admin address; another can be chosen", "admin", where.Address, "err", err)
		case err != nil:
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) listen(where Listen) error {
	a, err := ParseAddress(where.Address)
	if err != nil {
		return err
	}
	l, exposed, err := a.listen(where.Listener, where.Exposed)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:        s.handler(exposed, where.FixedLevel),
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	httplimit.Apply(server, pendingconns.OpenFiles())
	s.listeners = append(s.listeners, &listener{l, server})
	if s.dashboard == "" && a.network == "tcp" && !exposed {
		s.dashboard = "http://" + l.Addr().String() + "/"
	}
	if exposed {
		s.cfg.Log.Warn("other machines can read the state of this service: without encryption, and without authentication", "address", l.Addr().String())
	}
	return nil
}

// Addresses returns the server's addresses in the form of [ParseAddress].
func (s *Server) Addresses() []string {
	var list []string
	for _, l := range s.listeners {
		a := l.Addr()
		if a.Network() == "unix" {
			list = append(list, UnixAddress(a.String()))
		} else {
			list = append(list, a.String())
		}
	}
	return list
}

// Serve serves requests until ctx is done, and closes the listeners. Its error is that of a
// listener, and nil when ctx is done.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { s.keepHistory(ctx); return nil })
	for _, l := range s.listeners {
		group.Go(func() error { return l.serve(ctx) })
	}
	return group.Wait()
}

func (l *listener) serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- l.http.Serve(l.Listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("admin address: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if l.http.Shutdown(stopCtx) != nil {
		l.http.Close()
	}
	<-failed
	return nil
}

// Close closes the listeners of a server for which Serve was not called.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
