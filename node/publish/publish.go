// Package publish serves a node's newest info-bundle over HTTP, so that peers can get the node's new
// addresses after a move, and the peer certificates that the node has issued. It serves nothing else,
// and does not authenticate clients. Info-bundles and certificates are public and signed, so plain HTTP
// is sufficient.
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
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/httplimit"
	"peerlink/internal/pendingconns"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// Path is the URL path of the info-bundle.
const Path = "/info-bundle.zip"

// CertificateURL returns the URL at which a node offers the peer certificate that it has issued to the
// node with the given ID, if it offers its info-bundle at the URL bundle: peers/<ID>.crt beside it.
func CertificateURL(bundle, id string) (string, error) {
	u, err := url.Parse(bundle)
	if err != nil {
		return "", err
	}
	u.RawQuery = ""
	return u.JoinPath("..", certificateName(id)).String(), nil
}

func certificateName(id string) string { return "peers/" + id + ".crt" }

// Bounds on the resources used by clients, and other times.
const (
	maxHeader    = 8 << 10 // bytes of the header of a request
	readTimeout  = 5 * time.Second
	writeTimeout = 30 * time.Second
	retryPause   = time.Second // time before an invalid file is read again
	stopTimeout  = time.Second // time for completing responses when the server stops
)

// Config is the configuration of a [Server].
type Config struct {
	File string            // the info-bundle; checked for changes at each request
	Root *x509.Certificate // the root certificate that the info-bundle must have
	Dir  *node.Dir         // offers the peer certificates that it has issued; nil: none
	Log  *slog.Logger      // logs errors of the file; optional
}

// Server serves one info-bundle. It is also an [http.Handler], for use in another server.
type Server struct {
	cfg         Config
	readTimeout time.Duration

	mu      sync.Mutex
	current *bundle // the last valid bundle; nil if there was none
	// The results of the last reading of the file.
	lastStamp node.FileStamp
	lastError string    // "" if the file was valid
	retryAt   time.Time // when to read the file again, if it was invalid and is unchanged
}

type bundle struct {
	data     []byte
	etag     string
	modified time.Time
}

// New returns a Server. It reads the file once, so that an error is logged early. A file that is
// created or repaired later is served too.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, readTimeout: readTimeout}
	if s.bundle() == nil {
		cfg.Log.Warn("there is no valid info-bundle to be published yet: it is served as soon as the file is made", "file", cfg.File)
	}
	return s
}

// Serve answers requests until ctx is done, and closes the listener. It returns an error if
// accepting connections fails before that.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:        s,
		ReadTimeout:    s.readTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // errors of clients are not logged
	}
	httplimit.Apply(h, pendingconns.OpenFiles())
	h.SetKeepAlivesEnabled(false) // clients have one request only
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		shutdownCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if h.Shutdown(shutdownCtx) != nil {
			h.Close()
		}
	})
	err := h.Serve(l)
	if stop() { // ctx is not done, so Serve has failed
		l.Close()
		return fmt.Errorf("publish the info-bundle: %w", err)
	}
	<-closed
	return nil
}

// ServeHTTP answers GET and HEAD for [Path] and for the peer certificates. It supports conditional
// requests with If-None-Match and If-Modified-Since.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, isCertificate := s.certificateID(r.URL.Path)
	if r.URL.Path != Path && !isCertificate {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if isCertificate {
		s.serveCertificate(w, r, id)
		return
	}
	b := s.bundle()
	if b == nil {
		http.Error(w, "no info-bundle yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("ETag", b.etag)
	http.ServeContent(w, r, "", b.modified, bytes.NewReader(b.data))
}

// certificateID returns the node ID in the path of a peer certificate.
func (s *Server) certificateID(path string) (id string, ok bool) {
	rest, _ := strings.CutPrefix(path, "/peers/")
	id, _ = strings.CutSuffix(rest, ".crt")
	return id, s.cfg.Dir != nil && path == "/"+certificateName(id)
}

// serveCertificate serves the peer certificate that was issued to a node. Whoever has no certificate gets
// the same answer as a node that is not known.
func (s *Server) serveCertificate(w http.ResponseWriter, r *http.Request, id string) {
	cert, err := s.cfg.Dir.IssuedCertificate(id)
	if err != nil {
		http.Error(w, "no peer certificate for this node", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, cert.SerialNumber))
	http.ServeContent(w, r, "", cert.NotBefore, bytes.NewReader(pki.EncodeCertificatePEM(cert)))
}

// bundle returns the info-bundle to be served, or nil if there is none. It reads the file if it has
// changed. While the file is invalid, bundle returns the last valid bundle, and logs an error that
// differs from that of the last reading. An invalid file is read again after retryPause even if it is unchanged, because the
// cause may be outside of the file.
func (s *Server) bundle() *bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	stamp := node.StampFile(s.cfg.File)
	if stamp == s.lastStamp && (s.lastError == "" || time.Now().Before(s.retryAt)) {
		return s.current
	}
	s.lastStamp, s.retryAt = stamp, time.Now().Add(retryPause)
	b, err := s.read()
	if err == nil {
		s.current, s.lastError = b, ""
		return b
	}
	if err.Error() != s.lastError && (s.current != nil || !errors.Is(err, fs.ErrNotExist)) { // New has logged that there is no file yet
		s.cfg.Log.Error("the file is not published, because it can not be read, or is no valid info-bundle of this node; the last valid one is served, if there was one", "file", s.cfg.File, "err", err)
	}
	s.lastError = err.Error()
	return s.current
}

// read reads the file. It fails if peers would refuse the bundle.
func (s *Server) read() (*bundle, error) {
	fi, err := os.Stat(s.cfg.File)
	if err != nil {
		return nil, err
	}
	data, b, err := readBundle(s.cfg.File, s.cfg.Root)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	s.cfg.Log.Info("publishing the info-bundle", "date", b.UpdatedAt(), "file", s.cfg.File)
	return &bundle{data: data, etag: fmt.Sprintf(`"%x"`, sum[:16]), modified: fi.ModTime()}, nil
}

// Check checks that a file is an info-bundle that a [Server] for the node with the root certificate would
// serve.
func Check(file string, root *x509.Certificate) error {
	if _, _, err := readBundle(file, root); err != nil {
		return fmt.Errorf("the info-bundle to be published, %s: %w", file, err)
	}
	return nil
}

// readBundle reads an info-bundle, which must have the root certificate.
func readBundle(file string, root *x509.Certificate) ([]byte, *infobundle.Bundle, error) {
	data, err := durable.Read(file, infobundle.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return nil, nil, err
	}
	if !b.Root.Equal(root) {
		return nil, nil, fmt.Errorf("it is the info-bundle of %s, with another root certificate than this node's", b.Identity)
	}
	return data, b, nil
}
