package admin

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"peerlink/link"
)

//go:embed *.html
var pageFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// view is the data that all pages have.
type view struct {
	Links
	Title string
	Home  bool // the overview
	Node  bool // a page about the node itself
	Still bool // the page does not update itself
	// Messages says that messages that are set aside can be seen.
	Messages bool
}

// parsePages parses the templates of the pages, which are embedded in the program.
func parsePages() *template.Template {
	return template.Must(template.ParseFS(pageFiles, "*.html"))
}

// overview returns the handler of the page about all peers. messages says whether messages can be seen.
func (s *Server) overview(messages bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := s.links(r.Context())
		v := overviewView{view: view{Links: l, Title: l.Type + " " + l.ID, Home: true, Messages: messages}, node: s.history.of("")}
		v.Rows, v.Hidden = s.rows(&l)
		s.render(w, http.StatusOK, "overview.html", &v)
	}
}

// peerPage returns the handler of the page about one peer. messages says whether messages can be seen.
func (s *Server) peerPage(messages bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := s.links(r.Context())
		p := l.peer(r.PathValue("id"))
		if p == nil {
			writeText(w, http.StatusNotFound, "this node has no such peer")
			return
		}
		v := peerView{view: view{Links: l, Title: called(p), Messages: messages}, Peer: newRow(&l, p)}
		if s.cfg.Peer != nil {
			v.Details, _ = s.cfg.Peer(p.ID)
		}
		samples := s.history.of(p.ID)
		for _, c := range []*chart{rates(samples), depths(samples), confirms(samples)} {
			if c != nil {
				v.Charts = append(v.Charts, c)
			}
		}
		s.render(w, http.StatusOK, "peer.html", &v)
	}
}

// called returns the name of a peer, or its ID if it has none.
func called(p *link.PeerStatus) string { return cmp.Or(p.Name, p.ID) }

// peerView is the data of the page about one peer.
type peerView struct {
	view
	Peer    *row
	Charts  []*chart
	Details link.PeerDetails
}

// Chains returns the chains of certificates with which the peer and this node verify each other.
func (v *peerView) Chains() (list []chain) {
	for _, c := range []chain{{"How this node verifies the peer", v.Details.Theirs}, {"How the peer verifies this node", v.Details.Ours}} {
		if len(c.links) > 0 {
			list = append(list, c)
		}
	}
	return list
}

// render serves a page. It is rendered completely before it is sent, so that an error does not
// truncate it.
func (s *Server) render(w http.ResponseWriter, status int, name string, data any) {
	var out bytes.Buffer
	if err := s.template.ExecuteTemplate(&out, name, data); err != nil {
		s.cfg.Log.Error("the page can not be rendered", "page", name, "err", err)
		writeText(w, http.StatusInternalServerError, "the page can not be rendered")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(out.Bytes())
}

// Role returns the role of a certificate in words; see [link.Expiry].
func (*view) Role(role string) string { return roleName(role) }

// Ago returns how long ago a time was, in the form of [Age].
func (v *view) Ago(t time.Time) string { return Age(v.At.Sub(t)) }

// InTrouble returns how many links are in trouble.
func (v *view) InTrouble() (n int) {
	for i := range v.Peers {
		if v.Peers[i].Severity() == link.Bad {
			n++
		}
	}
	return n
}

// Summary returns how many links are in trouble, in words.
func (v *view) Summary() string {
	switch bad := v.InTrouble(); {
	case len(v.Peers) == 0:
		return "no peers yet"
	case bad == 0:
		return fmt.Sprintf("no link of %d in trouble", len(v.Peers))
	default:
		return fmt.Sprintf("%d of %d links in trouble", bad, len(v.Peers))
	}
}

// AsideTotal returns how many messages are set aside at present.
func (v *view) AsideTotal() (n int64) {
	for _, q := range v.Queues {
		n += q.SetAside
	}
	return n
}

// AsideOfNone returns how many messages of queues that lead to no peer are set aside at present.
func (v *view) AsideOfNone() (n int64) {
	peers := peersOfQueues(&v.Links)
	for _, q := range v.Queues {
		if peers[q.Name] == "" {
			n += q.SetAside
		}
	}
	return n
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
