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

// view is what the page shows.
type view struct {
	Links
}

// page shows everything to people. It is made as a whole before it is sent, so
// that nobody sees half of it.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var out bytes.Buffer
	if err := s.template.Execute(&out, &view{s.links(r.Context())}); err != nil {
		s.cfg.Log.Error("the page can not be made", "err", err)
		text(w, http.StatusInternalServerError, "the page can not be made")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(out.Bytes())
}

func style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Write(styleText)
}

// parsePage reads the page, which is part of the program.
func parsePage() *template.Template {
	return template.Must(template.New("page").Parse(pageText))
}

// Queued is how many messages wait for the peer, "" if nobody here knows.
func (v *view) Queued(p link.PeerStatus) string {
	if len(v.Queues) == 0 {
		return ""
	}
	return fmt.Sprint(v.QueuedFor(p))
}

// Ago writes how long ago something was.
func (v *view) Ago(t time.Time) string { return Age(v.At.Sub(t)) }

// Soon is the certificate of a list that is the first to end.
func (v *view) Soon(list []link.Expiry) *link.Expiry {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// Reasons are the reasons for which connections were rejected at all.
func (v *view) Reasons() map[string]uint64 {
	some := make(map[string]uint64)
	for reason, n := range v.Rejected {
		if n > 0 {
			some[reason] = n
		}
	}
	return some
}

// Age writes a duration in the unit that fits.
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
