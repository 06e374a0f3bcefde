package admin

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"peerlink/link"
)

//go:embed page.html
var pageText string

//go:embed style.css
var styleText []byte

// view is the data of the page.
type view struct {
	Links
}

// page serves the page for people. It is rendered completely before it is sent, so that an
// error does not truncate it.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	if err := s.template.Execute(&out, &view{s.links(r.Context())}); err != nil {
		s.cfg.Log.Error("the page can not be rendered", "err", err)
		writeText(w, http.StatusInternalServerError, "the page can not be rendered")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(out.Bytes())
}

func style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Write(styleText)
}

// parsePage parses the template of the page, which is embedded in the program.
func parsePage() *template.Template {
	return template.Must(template.New("page").Parse(pageText))
}

// Queued returns how many messages are queued for the peer, or "" if there are no
// statistics of queues.
func (v *view) Queued(p link.PeerStatus) string {
	if len(v.Queues) == 0 {
		return ""
	}
	return fmt.Sprint(v.QueuedFor(p))
}

// Ago returns how long ago a time was, in the form of [Age].
func (v *view) Ago(t time.Time) string { return Age(v.At.Sub(t)) }

// FirstToExpire returns the certificate that expires first. The list is sorted by
// NotAfter.
func (v *view) FirstToExpire(list []link.Expiry) *link.Expiry {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// Reasons returns the numbers of rejected connections by reason, without zeros.
func (v *view) Reasons() map[string]uint64 {
	nonZero := make(map[string]uint64)
	for reason, n := range v.Rejected {
		if n > 0 {
			nonZero[reason] = n
		}
	}
	return nonZero
}

// Age formats a duration, rounded down to seconds, minutes, hours or days.
func Age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
