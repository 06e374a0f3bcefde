package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"peerlink/broker"
	"peerlink/internal/excerpt"
	"peerlink/internal/httplimit"
	"peerlink/internal/socket"
)

// Bounds of a page with messages that are set aside.
const (
	maxAside     = 50               // messages that are shown
	maxAsideBody = 8 << 10          // bytes of a body that are shown
	maxRetried   = 1000             // messages that "send all again" sends
	asideTimeout = 20 * time.Second // for the broker; less than writeTimeout
	maxLoggedIDs = 20               // messages that a log entry names
)

// errNoPeer is the response to a request for a peer that the node does not have.
var errNoPeer = errors.New("this node has no such peer")

// The actions on messages that are set aside.
const (
	actionRetry    = "retry"
	actionRetryAll = "retry-all"
	actionDrop     = "drop" // asks whether they should be dropped
	actionDropNow  = "drop-now"
)

// showsMessages reports whether messages can be seen and changed at an address.
func (s *Server) showsMessages(exposed bool) bool {
	return !exposed && s.cfg.Token != "" && s.cfg.DeadLetters != nil
}

// withToken returns a handler that responds only to requests with the token, and otherwise with a page that
// asks for it.
func (s *Server) withToken(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte("Bearer " + s.cfg.Token))
	return func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next(w, r)
			return
		}
		l := s.links(r.Context())
		v := newAsideView(l, r)
		v.Title, v.Locked, v.Refused = "Messages set aside", true, r.Header.Get("Authorization") != ""
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.render(w, http.StatusUnauthorized, "aside.html", &v)
	}
}

// asideView is the data of a page with messages that are set aside: those of one peer, or those of the queues
// that lead to no peer.
type asideView struct {
	view
	Peer     *row     // nil on the page of no peer, or if the node has no such peer
	queues   []string // of the messages
	Locked   bool     // the token is missing
	Refused  bool     // another token was sent
	Messages []asideMessage
	More     bool   // there are more messages
	Done     string // what was done
	Error    string // what has failed
	Dropping bool   // the messages are dropped after confirmation
}

// newAsideView returns the data of the page that a request is for, without messages.
func newAsideView(l Links, r *http.Request) asideView {
	v := asideView{view: view{Links: l, Title: "Messages set aside for no peer", Still: true}}
	id := r.PathValue("id")
	if id == "" {
		v.Node, v.queues = true, queuesOfNone(&l)
	} else if p := l.peer(id); p != nil {
		v.Title, v.Peer, v.queues = "Messages set aside for "+called(p), newRow(&l, p), p.Queues
	}
	return v
}

// queuesOfNone returns the names of the queues that lead to no peer.
func queuesOfNone(l *Links) []string {
	names, peers := []string{}, peersOfQueues(l)
	for _, q := range l.Queues {
		if peers[q.Name] == "" {
			names = append(names, q.Name)
		}
	}
	return names
}

// found reports whether there is such a page.
func (v *asideView) found() bool { return v.Peer != nil || v.Node }

// Path returns the path of the page.
func (v *asideView) Path() string {
	if v.Peer == nil {
		return "/node/aside"
	}
	return "/peers/" + v.Peer.ID + "/aside"
}

// NamesQueues reports whether the queue of each message is shown.
func (v *asideView) NamesQueues() bool { return v.Peer == nil || len(v.queues) > 1 }

// Argument returns the argument of "peerlink queue show" for the messages of a queue on the page.
func (v *asideView) Argument(queue string) string {
	if v.Peer == nil {
		return queue
	}
	return v.Peer.ID
}

// Count returns the number of messages that are shown, in words.
func (v *asideView) Count() string {
	if n := len(v.Messages); n != 1 {
		return fmt.Sprintf("%d messages", n)
	}
	return "1 message"
}

// asideMessage is a message that is set aside.
type asideMessage struct {
	broker.DeadLetter
	Queue string
}

// Key identifies the message in a form.
func (m asideMessage) Key() string { return m.Queue + "/" + m.ID }

// Text returns the beginning of the body as text.
func (m asideMessage) Text() string {
	if !utf8.Valid(m.Body) {
		quoted := strconv.Quote(string(m.Body[:min(len(m.Body), maxAsideBody)]))
		return quoted[1 : len(quoted)-1]
	}
	return excerpt.Limit(string(m.Body), maxAsideBody)
}

// Cut reports whether Text is not the whole body.
func (m asideMessage) Cut() bool { return len(m.Body) > maxAsideBody }

// asidePage serves a page with messages that are set aside.
func (s *Server) asidePage(w http.ResponseWriter, r *http.Request) {
	s.showAside(w, r, nil, func(*asideView) {})
}

// showAside serves a page with messages that are set aside, or with those of them that keys names, after
// fill has changed its data. A broker lists messages by delivering them, if it is RabbitMQ, so the page does
// not update itself.
func (s *Server) showAside(w http.ResponseWriter, r *http.Request, keys []string, fill func(*asideView)) {
	ctx, cancel := context.WithTimeout(r.Context(), asideTimeout)
	defer cancel()
	v := newAsideView(s.links(ctx), r)
	if !v.found() {
		writeText(w, http.StatusNotFound, errNoPeer.Error())
		return
	}
	fill(&v)
	status := http.StatusOK
	if err := s.eachAside(ctx, v.queues, func(m asideMessage) bool {
		if keys != nil && !slices.Contains(keys, m.Key()) {
			return true
		}
		if v.More = len(v.Messages) == maxAside; v.More {
			return false
		}
		v.Messages = append(v.Messages, m)
		return true
	}); err != nil {
		v.Error, status = strings.TrimPrefix(v.Error+"; the messages can not be listed: "+err.Error(), "; "), http.StatusServiceUnavailable
	}
	s.render(w, status, "aside.html", &v)
}

// eachAside calls do with the messages of queues that are set aside, until it returns false. A queue that does not
// exist has none.
func (s *Server) eachAside(ctx context.Context, queues []string, do func(asideMessage) bool) error {
	for _, queue := range queues {
		for m, err := range s.cfg.DeadLetters.List(ctx, queue) {
			if errors.Is(err, broker.ErrNoQueue) {
				break
			}
			if err != nil {
				return err
			}
			if !do(asideMessage{m, queue}) {
				return nil
			}
		}
	}
	return nil
}

// changeAside sends messages again or drops them, as the form says, and serves the page with the result.
func (s *Server) changeAside(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		writeText(w, http.StatusBadRequest, "the form can not be read: "+excerpt.Of(err.Error()))
		return
	}
	keys, action := r.PostForm["message"], r.PostForm.Get("action")
	switch {
	case len(keys) == 0 && action != actionRetryAll:
		s.showAside(w, r, nil, func(v *asideView) { v.Error = "Nothing was done: no message is selected." })
	case action == actionDrop:
		s.showAside(w, r, keys, func(v *asideView) { v.Dropping = true })
	case action == actionRetry, action == actionRetryAll, action == actionDropNow:
		done, err := s.act(r, action, keys)
		s.showAside(w, r, nil, func(v *asideView) {
			v.Done = done
			if err != nil {
				v.Error = err.Error()
			}
		})
	default:
		writeText(w, http.StatusBadRequest, fmt.Sprintf("%.20q is no action: expected retry, retry-all, drop or drop-now", action))
	}
}

// act sends messages of a page again or drops them, and logs it. It returns what was done.
func (s *Server) act(r *http.Request, action string, keys []string) (done string, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), asideTimeout)
	defer cancel()
	v := newAsideView(s.links(ctx), r)
	switch {
	case !v.found():
		return "", errNoPeer
	case v.Peer != nil && v.Peer.Deactivated != "" && action != actionDropNow:
		return "", fmt.Errorf("nothing was done: the peer has been deactivated (%s), nothing can be sent to it any more", v.Peer.Deactivated)
	}
	if action == actionRetryAll {
		if keys, err = s.allAside(ctx, v.queues); err != nil {
			return "", fmt.Errorf("nothing was done: the messages can not be listed: %w", err)
		}
	}
	byQueue, err := idsByQueue(v.queues, keys)
	if err != nil {
		return "", fmt.Errorf("nothing was done: %w", err)
	}
	do, text := s.cfg.DeadLetters.Retry, "back in the queue"
	if action == actionDropNow {
		do, text = s.cfg.DeadLetters.Drop, "dropped"
	}
	total := 0
	for _, queue := range v.queues {
		if len(byQueue[queue]) == 0 {
			continue
		}
		n, failed := do(ctx, queue, byQueue[queue])
		total, err = total+n, errors.Join(err, failed)
	}
	s.logAction(r, "messages set aside were "+text, r.PathValue("id"), total, keys, err)
	return fmt.Sprintf("Messages %s: %d.", text, total), err
}

// idsByQueue returns the IDs of messages by queue. It returns an error if a key is none of a message of
// the queues.
func idsByQueue(queues, keys []string) (map[string][]string, error) {
	ids := make(map[string][]string)
	for _, key := range keys {
		at := strings.LastIndexByte(key, '/')
		if at < 0 || !slices.Contains(queues, key[:at]) {
			return nil, fmt.Errorf("%q is no message of this page", excerpt.Of(key))
		}
		ids[key[:at]] = append(ids[key[:at]], key[at+1:])
	}
	return ids, nil
}

// allAside returns the keys of up to maxRetried messages of queues that are set aside.
func (s *Server) allAside(ctx context.Context, queues []string) (keys []string, err error) {
	err = s.eachAside(ctx, queues, func(m asideMessage) bool {
		keys = append(keys, m.Key())
		return len(keys) < maxRetried
	})
	return keys, err
}

// logAction logs what somebody who has the token has done; peer is "" for messages of no peer. The user is that of the process that has sent the
// request, as the kernel knows him.
func (s *Server) logAction(r *http.Request, text, peer string, n int, keys []string, err error) {
	named := keys[:min(len(keys), maxLoggedIDs)]
	args := []any{"peer", peer, "messages", n, "ids", excerpt.Limit(strings.Join(named, " "), 1000)}
	conn := httplimit.Conn(r)
	if user := socket.ClientUser(conn); user >= 0 {
		args = append(args, "user", user)
	}
	args = append(args, "client", conn.RemoteAddr().Network()+" "+r.RemoteAddr)
	if err != nil {
		args = append(args, "err", err)
	}
	s.cfg.Log.Warn(text+", on the dashboard", args...)
}
