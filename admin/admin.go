// Package admin shows an operator, and the operator\'s machines, how a running
// service does, over HTTP:
//
//	GET /            a page for people
//	GET /links       the same in JSON ([Links])
//	GET /metrics     for Prometheus
//	GET /healthz     200 while the service goes on; 503 if a part of it hangs
//	GET /readyz      200 while it serves all peers; else 503 and why
//	GET /log-level   the log level
//	PUT /log-level   changes it: error, warning, info or debug
//
// Nobody has to log in, so the door decides who may enter: a Unix socket that
// only the service's own user can open, or a loopback port that all users of
// the machine can reach. Other addresses must be asked for ([Config.Exposed]);
// on them nothing can be changed.
//
// Nothing that is shown is a secret, but some of it was written by peers: it is
// bounded, and escaped where people see it. Web pages that a browser on this
// machine has open can not reach in: names in Host are refused, against DNS
// rebinding, and so is what browsers send across origins.
package admin

import (
	"context"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"peerlink/broker/embedded"
	"peerlink/link"
)

// Config says what is shown, and where.
type Config struct {
	// Address is a [ParseAddress] text.
	Address string
	// Exposed allows an Address that other machines can reach.
	Exposed bool

	Version string
	Status  func() link.Status
	// Queues are the figures of the embedded broker; nil with another broker.
	Queues func(context.Context) (embedded.Stats, error)
	// BrokerTrouble says why the broker can not be used; nil if it can be. It must
	// not block.
	BrokerTrouble func() error
	// BrokerWarnings says what is wrong with the broker although it can be used; nil
	// if nobody knows of any. It must not wait for anything.
	BrokerWarnings func() []string
	// Stalled returns an error while something in the service hangs, which being
	// started again may help against.
	Stalled func() error
	// LogDropped returns how many records of the log were dropped; nil if none are.
	LogDropped func() uint64
	Level      *slog.LevelVar
	Log        *slog.Logger
}

// Bounds of the server.
const (
	maxConnections = 64
	maxHeader      = 16 << 10
	readTimeout    = 10 * time.Second // for a request
	writeTimeout   = 30 * time.Second // for what it asks for
	idleTimeout    = time.Minute      // between two requests
	drainTimeout   = 2 * time.Second  // for answers when the service stops
)

// Server is an open admin address.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	template *template.Template
}

// Open listens on the address. It reports [ErrExposed], or why it can not.
func Open(cfg Config) (*Server, error) {
	a, err := ParseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	l, exposed, err := a.listen(cfg.Exposed)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, listener: newBounded(l, maxConnections), template: parsePage()}
	s.http = &http.Server{
		Handler:        s.handler(exposed),
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	if exposed {
		cfg.Log.Warn("other machines can read how this service does: nothing is encrypted, and nobody has to log in", "address", l.Addr().String())
	}
	return s, nil
}

// Address is where the server listens, as for [ParseAddress].
func (s *Server) Address() string {
	a := s.listener.Addr()
	if a.Network() == "unix" {
		return unixPrefix + a.String()
	}
	return a.String()
}

// Serve answers until ctx is done, and closes the listener.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("admin address: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if s.http.Shutdown(drain) != nil {
		s.http.Close()
	}
	<-failed
	return nil
}

// Close closes the listener of a server that does not serve.
func (s *Server) Close() error { return s.listener.Close() }
