package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"peerlink/internal/httplimit"
	"peerlink/internal/terminal"
	"peerlink/link"
)

// maxLevelBody is the maximum size of the body of PUT /log-level in bytes.
const maxLevelBody = 64

// handler returns the handler for all requests at an address. On an exposed one nothing can
// be changed, and with fixedLevel not the log level.
func (s *Server) handler(exposed, fixedLevel bool) http.Handler {
	mux, messages := http.NewServeMux(), s.showsMessages(exposed)
	// A response whose size depends on the node, or which takes time to compute, is
	// buffered.
	mux.HandleFunc("GET /{$}", httplimit.Buffered(escapeControls(s.overview(messages))))
	mux.HandleFunc("GET /node", httplimit.Buffered(escapeControls(s.nodePage(messages))))
	mux.HandleFunc("GET /peers/{id}", httplimit.Buffered(escapeControls(s.peerPage(messages))))
	if messages {
		for _, path := range []string{"/peers/{id}/aside", "/node/aside"} {
			mux.HandleFunc("GET "+path, httplimit.Buffered(escapeControls(s.withToken(s.asidePage))))
			mux.HandleFunc("POST "+path, httplimit.Buffered(escapeControls(s.withToken(s.changeAside))))
		}
	}
	mux.Handle("GET /assets/", http.FileServerFS(assetFiles))
	mux.HandleFunc("GET /links", httplimit.Buffered(escapeControls(s.getLinks)))
	mux.HandleFunc("GET /metrics", httplimit.Buffered(s.metrics))
	mux.HandleFunc("GET /healthz", httplimit.Buffered(s.health))
	mux.HandleFunc("GET /readyz", httplimit.Buffered(escapeControls(s.ready)))
	mux.HandleFunc("GET /log-level", s.getLevel)
	if exposed {
		return securityHeaders(mux)
	}
	if !fixedLevel {
		mux.HandleFunc("PUT /log-level", s.putLevel)
	}
	return rejectForeignHost(http.NewCrossOriginProtection().Handler(securityHeaders(mux)))
}

// escapeControls escapes control characters, invisible characters and invalid UTF-8 in the
// output of a handler, because parts of it were written by peers. It does not escape HTML.
func escapeControls(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := terminal.NewWriter(w)
		defer out.Flush()
		next(escapedResponse{w, out}, r)
	}
}

type escapedResponse struct {
	http.ResponseWriter
	out *terminal.Writer
}

func (e escapedResponse) Write(p []byte) (int, error) { return e.out.Write(p) }

// Unwrap returns the original response, for [http.ResponseController].
func (e escapedResponse) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// contentPolicy allows browsers the script and the style sheet of this server, and nothing that is
// written into a page.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// securityHeaders sets headers that keep browsers from executing or loading anything but this
// server's own script and style sheet, and from caching.
func securityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// rejectForeignHost refuses requests with another name than localhost in Host: the owner of a name
// can let it resolve to this address (DNS rebinding), and a browser would then treat this server
// as part of that site.
func rejectForeignHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLocalHost(r.Host) {
			http.Error(w, "expected an IP address or localhost in the URL, and no port or a number", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocalHost reports whether the value of a header Host is localhost or an IP address, an IPv6 address in
// brackets, with or without the number of a port.
func isLocalHost(value string) bool {
	if _, err := netip.ParseAddrPort(value); err == nil {
		return true
	}
	host, port, hasPort := strings.Cut(value, ":")
	if _, err := strconv.ParseUint(port, 10, 16); host == "localhost" {
		return !hasPort || err == nil
	}
	if v6, ok := strings.CutPrefix(value, "["); ok {
		v6, ok = strings.CutSuffix(v6, "]")
		addr, err := netip.ParseAddr(v6)
		return ok && err == nil && addr.Is6()
	}
	addr, err := netip.ParseAddr(value)
	return err == nil && addr.Is4()
}

func (s *Server) getLinks(w http.ResponseWriter, r *http.Request) {
	text, err := json.MarshalIndent(s.links(r.Context()), "", "  ")
	if err != nil {
		s.cfg.Log.Error("the state of the links can not be written as JSON", "err", err)
		writeText(w, http.StatusInternalServerError, "the state of the links can not be written as JSON: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // an error means that the client has gone
}

// health responds with an error if a part of the service hangs. It also calls Status, which
// acquires every lock: if the service holds one of them forever, health does not respond.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	s.cfg.Status()
	if err := s.stalled(); err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeText(w, http.StatusOK, "alive")
}

func (s *Server) stalled() error {
	if s.cfg.Stalled == nil {
		return nil
	}
	return s.cfg.Stalled()
}

// ready responds with the problems of the service. What is wrong with single links follows; it does not
// determine the status.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	l := s.links(r.Context())
	status, lines := http.StatusServiceUnavailable, l.Problems
	if l.Ready {
		status, lines = http.StatusOK, []string{"ready"}
		for _, warning := range l.Warnings {
			lines = append(lines, "warning: "+warning)
		}
	}
	writeText(w, status, strings.Join(append(lines, l.linksInTrouble()...), "\n"))
}

// maxLinksInTrouble bounds the links that /readyz names.
const maxLinksInTrouble = 20

// linksInTrouble returns a line for each direction of a link in which messages do not pass, with the verdict
// and the reason.
func (l *Links) linksInTrouble() (lines []string) {
	more := 0
	for i := range l.Peers {
		p := &l.Peers[i]
		for _, d := range []struct {
			name  string
			state link.LinkState
		}{{"out", p.Out}, {"in", p.In}} {
			switch {
			case d.state.Verdict.Severity() != link.Bad:
			case len(lines) == maxLinksInTrouble:
				more++
			default:
				lines = append(lines, fmt.Sprintf("link %s %s: %s", p.ID, d.name, d.state.Sentence(l.At, p.LastContact)))
			}
		}
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

func (s *Server) getLevel(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, levelName(s.cfg.Level.Level()))
}

func (s *Server) putLevel(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBody))
	if err != nil {
		writeText(w, http.StatusRequestEntityTooLarge, "expected nothing but a log level")
		return
	}
	level, err := ParseLevel(strings.TrimSpace(string(body)))
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	SetLevel(s.cfg.Level, level, s.cfg.Log)
	writeText(w, http.StatusOK, levelName(level))
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}
