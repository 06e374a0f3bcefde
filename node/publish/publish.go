// Package publish serves a node's newest info-bundle over HTTP, so that its peers
// find it when it has moved. It serves nothing else, to anybody who asks: nothing
// in an info-bundle is secret, and it is signed, so that plain HTTP will do.
package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/infobundle"
)

// Path is where the info-bundle is found.
const Path = "/info-bundle.zip"

// Bounds on what clients can hold.
const (
	maxConns     = 64
	maxHeader    = 8 << 10
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second
	retryPause   = time.Second // before a file that was no good is read again
	stopTimeout  = time.Second // for answers that are on their way when the server stops
)

// Config says what a [Server] serves.
type Config struct {
	File string            // the info-bundle; looked at again at each request
	Root *x509.Certificate // the root certificate that it must have
	Log  *slog.Logger      // for what is wrong with the file; optional
}

// Server serves one info-bundle. It is an [http.Handler], for use behind another
// server too.
type Server struct {
	cfg         Config
	readTimeout time.Duration

	mu      sync.Mutex
	current *bundle        // the last good one; nil if there was none
	seen    node.FileStamp // the file as it was last read, or refused
	again   time.Time      // if it was refused: when it is read again, though nothing has changed
	trouble string         // with the file, as it was last told
}

type bundle struct {
	data     []byte
	etag     string
	modified time.Time
}

// New makes a Server. It reads the file once, to tell what is wrong with it early
// in the log; a file that appears, or is repaired, later is as good.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, readTimeout: readTimeout}
	if s.bundle() == nil {
		cfg.Log.Warn("there is no info-bundle to be published yet: make one, and it is served from then on", "file", cfg.File)
	}
	return s
}

// Serve answers requests until ctx is done. It closes the listener. It returns an
// error only if it can not go on.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:        s,
		ReadTimeout:    s.readTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what clients do wrong is no news
	}
	h.SetKeepAlivesEnabled(false) // nobody has two requests
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if h.Shutdown(patience) != nil {
			h.Close()
		}
	})
	err := h.Serve(netutil.LimitListener(l, maxConns))
	if stop() {
		l.Close()
		return fmt.Errorf("publish the info-bundle: %w", err)
	}
	<-down
	return nil
}

// ServeHTTP answers GET and HEAD for [Path]. Who has the current bundle already
// can say so by ETag or date.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	b := s.bundle()
	if b == nil {
		http.Error(w, "no info-bundle yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("ETag", b.etag)
	http.ServeContent(w, r, "", b.modified, bytes.NewReader(b.data))
}

// bundle returns the current info-bundle, nil if there is none. A file that is no
// good is reported once, and the last good one is served meanwhile. What is wrong
// need not be the file, so it is read again now and then.
func (s *Server) bundle() *bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	stamp := node.StampFile(s.cfg.File)
	if stamp == s.seen && (s.trouble == "" || time.Now().Before(s.again)) {
		return s.current
	}
	s.seen, s.again = stamp, time.Now().Add(retryPause)
	b, err := s.read()
	if err == nil {
		s.current, s.trouble = b, ""
		return b
	}
	if err.Error() != s.trouble && (s.current != nil || !errors.Is(err, fs.ErrNotExist)) { // of one that was never there New has told
		s.cfg.Log.Error("the file is not published, the last good one is", "file", s.cfg.File, "err", err)
	}
	s.trouble = err.Error()
	return s.current
}

// read reads the file. What peers would refuse is not published.
func (s *Server) read() (*bundle, error) {
	fi, err := os.Stat(s.cfg.File)
	if err != nil {
		return nil, err
	}
	data, err := durable.Read(s.cfg.File, infobundle.MaxSize)
	if err != nil {
		return nil, err
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return nil, err
	}
	if !b.Root.Equal(s.cfg.Root) {
		return nil, fmt.Errorf("it is the info-bundle of %s, with another root certificate than this node's", b.Identity)
	}
	sum := sha256.Sum256(data)
	s.cfg.Log.Info("publishing the info-bundle", "date", b.UpdatedAt(), "file", s.cfg.File)
	return &bundle{data: data, etag: fmt.Sprintf(`"%x"`, sum[:16]), modified: fi.ModTime()}, nil
}
