// Package admin serves the state of a running service over HTTP, for operators and for
// their monitoring:
//
//	GET /            a page for people
//	GET /links       the same in JSON ([Links])
//	GET /metrics     metrics for Prometheus
//	GET /healthz     200 while the service runs; 503 if a part of the service hangs
//	GET /readyz      200 while the service can serve its peers, reachable or not; otherwise 503
//	                 and the reasons
//	GET /log-level   the log level
//	PUT /log-level   changes it: error, warning, info or debug
//
// There is no authentication, so access depends on the address: a Unix socket that only
// the service's own user can open, or a loopback port that all users of the machine can
// reach. Other addresses need [Config.Exposed]; through such an address nothing can be
// changed.
//
// Nothing served is secret, but parts of it were written by peers: they are bounded in
// length, and escaped for display. Web pages in a browser on this machine have no access:
// requests with another name than localhost in Host are refused, against DNS rebinding, and so
// are cross-origin requests.
package admin

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"peerlink/broker/embedded"
	"peerlink/internal/httplimit"
	"peerlink/internal/pendingconns"
	"peerlink/link"
)

// Config configures a [Server].
type Config struct {
	// Address is in the form of [ParseAddress].
	Address string
	// Exposed permits an Address that other machines can reach.
	Exposed bool

	Version string
	Status  func() link.Status
	// Queues returns the statistics of the embedded broker. It is nil with another broker.
	Queues func(context.Context) (embedded.Stats, error)
	// BrokerTrouble returns why the broker cannot be used, or nil if it can. It must not
	// block.
	BrokerTrouble func() error
	// BrokerWarnings returns problems of the broker that do not prevent its use. It may be
	// nil, and must not block.
	BrokerWarnings func() []string
	// Stalled returns an error while a part of the service hangs, so that a restart may
	// help. It may be nil.
	Stalled func() error
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

// Server serves the state of one service at one address.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	template *template.Template
	process  prometheus.Gatherer
}

// Open listens on the address. It returns [ErrAddress] if the address is invalid, and
// [ErrExposed] if it is not permitted.
func Open(cfg Config) (*Server, error) {
	a, err := ParseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	l, exposed, err := a.listen(cfg.Exposed)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, listener: l, template: parsePage(), process: processMetrics()}
	s.http = &http.Server{
		Handler:        s.handler(exposed),
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	httplimit.Apply(s.http, pendingconns.OpenFiles())
	if exposed {
		cfg.Log.Warn("other machines can read the state of this service: without encryption, and without authentication", "address", l.Addr().String())
	}
	return s, nil
}

// Address returns the server's address in the form of [ParseAddress].
func (s *Server) Address() string {
	a := s.listener.Addr()
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// Serve serves requests until ctx is done, and closes the listener. Its error is that of the
// listener, and nil when ctx is done.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("admin address: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.http.Shutdown(stopCtx) != nil {
		s.http.Close()
	}
	<-failed
	return nil
}

// Close closes the listener of a server for which Serve was not called.
func (s *Server) Close() error { return s.listener.Close() }
