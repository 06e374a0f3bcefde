// Package httplimit bounds the connections and requests of an HTTP server, so that clients
// that connect and send nothing do not keep others out.
package httplimit

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"peerlink/internal/pendingconns"
)

const (
	// maxWaiting is how many connections may be open without a request. Beyond that the
	// oldest one of the address that has the most is closed.
	maxWaiting = 1024
	// MaxRequests is how many requests are served at once. Beyond that the answer is 503.
	MaxRequests = 64
)

// Apply bounds the connections and requests of s, which must not serve yet and must have a
// Handler. Connections without a request take a sixteenth of the limit of open files at
// most, which is openFiles.
func Apply(s *http.Server, openFiles int) {
	l := &limit{
		next:     s.Handler,
		waiting:  pendingconns.New[netip.Addr](max(min(maxWaiting, openFiles/16), 8)),
		requests: make(chan struct{}, MaxRequests),
		conns:    make(map[net.Conn]*pendingconns.Conn[netip.Addr]),
	}
	s.Handler = l
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		l.wait(c)
		return context.WithValue(ctx, connKey{}, c)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateIdle:
			l.wait(c)
		case http.StateClosed, http.StateHijacked:
			l.remove(c)
		}
	}
}

type connKey struct{}

// limit is the handler of a server with bounds.
type limit struct {
	next     http.Handler
	waiting  *pendingconns.Set[netip.Addr]
	requests chan struct{} // has an element for each request that is being served

	mu    sync.Mutex
	conns map[net.Conn]*pendingconns.Conn[netip.Addr] // the connections in waiting
}

// wait is called when a connection has no request: it is new, or idle.
func (l *limit) wait(c net.Conn) {
	var source netip.Addr
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		source = a.AddrPort().Addr()
	}
	entry := l.waiting.Add(source, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = entry
}

// remove is called when a connection has a request, or is closed.
func (l *limit) remove(c net.Conn) {
	l.mu.Lock()
	entry := l.conns[c]
	delete(l.conns, c)
	l.mu.Unlock()
	if entry != nil {
		entry.Remove()
	}
}

// ServeHTTP serves a request whose header is complete.
func (l *limit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.remove(r.Context().Value(connKey{}).(net.Conn))
	select {
	case l.requests <- struct{}{}:
		defer func() { <-l.requests }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once, try again later", http.StatusServiceUnavailable)
		return
	}
	l.next.ServeHTTP(w, r)
}
