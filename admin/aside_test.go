package admin

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
)

const asidePath = "/peers/00000000000000000000000000000001/aside"

// openAside opens a server with a store whose queue has n messages set aside. Their bodies are hostile.
func openAside(t *testing.T, n int, listen Listen, log *bytes.Buffer) (*Server, *embedded.Store) {
	t.Helper()
	store, err := embedded.Open(filepath.Join(t.TempDir(), "messages.db"), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(store.Bind(t.Context(), broker.PeerBinding{PeerID: "x", Prefix: "x", Exchange: "x", Fanout: true, Queues: []string{"q"}}))
	for i := range n {
		check(store.PutAll(t.Context(), "q", []broker.Outgoing{{Type: "T", Body: fmt.Appendf(nil, "%s %d", hostile, i+1)}}))
	}
	c, err := store.Consume(t.Context(), "q")
	check(err)
	defer c.Close()
	for taken := 0; taken < n; {
		messages, err := c.Next(t.Context(), n)
		check(err)
		for _, m := range messages {
			check(c.DeadLetter(t.Context(), m.Tag, hostile))
		}
		taken += len(messages)
	}
	status := func() link.Status {
		st := service()
		st.Peers[0].Queues = []string{"q"}
		return st
	}
	return open(t, Config{Listen: []Listen{listen}, Status: status, DeadLetters: store, Token: "right", Log: slog.New(slog.NewTextHandler(log, nil))}), store
}

// count returns how many messages wait in the queue, and how many are set aside.
func count(t *testing.T, store *embedded.Store) (waiting, aside int) {
	t.Helper()
	info, err := store.Info(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return info.Waiting, info.DeadLetters
}

// Messages are neither shown nor changed without the token, by another site, under another name, or at an
// address that other machines reach.
func TestAsideNeedsToken(t *testing.T) {
	var log bytes.Buffer
	s, store := openAside(t, 1, Listen{Address: "127.0.0.1:0"}, &log)
	exposed, _ := openAside(t, 1, Listen{Address: "0.0.0.0:0", Exposed: true}, &log)
	key := store1(t, store)
	for _, tt := range []struct {
		name    string
		server  *Server
		headers []string
		see     int
		change  int
	}{
		{"no token", s, nil, http.StatusUnauthorized, http.StatusUnauthorized},
		{"another token", s, []string{"Authorization", "Bearer wrong"}, http.StatusUnauthorized, http.StatusUnauthorized},
		{"the beginning", s, []string{"Authorization", "Bearer righ"}, http.StatusUnauthorized, http.StatusUnauthorized},
		{"another scheme", s, []string{"Authorization", "Basic right"}, http.StatusUnauthorized, http.StatusUnauthorized},
		{"in a cookie", s, []string{"Cookie", "token=right"}, http.StatusUnauthorized, http.StatusUnauthorized},
		{"another site", s, []string{"Authorization", "Bearer right", "Sec-Fetch-Site", "cross-site"}, http.StatusOK, http.StatusForbidden},
		{"another port", s, []string{"Authorization", "Bearer right", "Sec-Fetch-Site", "same-site"}, http.StatusOK, http.StatusForbidden},
		{"another site, old browser", s, []string{"Authorization", "Bearer right", "Origin", "https://evil.example"}, http.StatusOK, http.StatusForbidden},
		{"DNS rebinding", s, []string{"Authorization", "Bearer right", "Host", "evil.example"}, http.StatusMisdirectedRequest, http.StatusMisdirectedRequest},
		{"exposed", exposed, []string{"Authorization", "Bearer right"}, http.StatusNotFound, http.StatusNotFound},
	} {
		code, page, _ := ask(t, tt.server, "GET", asidePath, "", tt.headers...)
		if code != tt.see || code != http.StatusOK && strings.Contains(page, "name=\"message\"") {
			t.Errorf("%s: to see the messages: %d, want %d:\n%s", tt.name, code, tt.see, page)
		}
		for _, action := range []string{actionRetry, actionRetryAll, actionDropNow} {
			form := url.Values{"action": {action}, "message": {key}}.Encode()
			if code, page, _ := ask(t, tt.server, "POST", asidePath, form, append(tt.headers, "Content-Type", "application/x-www-form-urlencoded")...); code != tt.change {
				t.Errorf("%s: %s: %d, want %d:\n%s", tt.name, action, code, tt.change, page)
			}
		}
	}
	// What can be changed by GET could be changed by a link.
	if code, _, _ := ask(t, s, "GET", asidePath+"?action=drop-now&message="+key, "", "Authorization", "Bearer right"); code != http.StatusOK {
		t.Errorf("GET: %d", code)
	}
	if waiting, aside := count(t, store); waiting != 0 || aside != 1 || log.Len() > 0 && strings.Contains(log.String(), "dashboard\"") {
		t.Errorf("%d messages wait, and %d are set aside; log:\n%s", waiting, aside, log.String())
	}
}

// store1 returns the key of the first message that is set aside.
func store1(t *testing.T, store *embedded.Store) string {
	t.Helper()
	for m, err := range store.List(t.Context(), "q") {
		if err != nil {
			t.Fatal(err)
		}
		return asideMessage{m, "q"}.Key()
	}
	t.Fatal("no message is set aside")
	return ""
}

// With the token, messages are shown as text, however hostile; they are sent again, or dropped after
// confirmation, as chosen and no others, and the log says so.
func TestAsideIsChanged(t *testing.T) {
	var log bytes.Buffer
	s, store := openAside(t, maxAside+2, Listen{Address: "127.0.0.1:0"}, &log)
	do := func(action string, keys ...string) string {
		t.Helper()
		code, page, _ := ask(t, s, "POST", asidePath, url.Values{"action": {action}, "message": keys}.Encode(),
			"Authorization", "Bearer right", "Content-Type", "application/x-www-form-urlencoded")
		if code != http.StatusOK {
			t.Errorf("%s: %d\n%s", action, code, page)
		}
		return page
	}
	want := func(waiting, aside int) {
		t.Helper()
		if w, a := count(t, store); w != waiting || a != aside {
			t.Errorf("%d messages wait, and %d are set aside; want %d and %d", w, a, waiting, aside)
		}
	}
	code, page, _ := ask(t, s, "GET", asidePath, "", "Authorization", "Bearer right")
	if code != http.StatusOK || strings.Count(page, "<script") != 1 || strings.Count(page, "<pre ") != maxAside || strings.Contains(page, "\x1b") {
		t.Errorf("%d, %d messages:\n%s", code, strings.Count(page, "<pre "), page)
	}
	if page := do(actionDrop, "q/1", "q/3"); strings.Count(page, "<pre ") != 2 || !strings.Contains(page, "Drop 2 messages for ever") {
		t.Errorf("no question:\n%s", page)
	}
	want(0, maxAside+2)
	if page := do(actionDropNow, "q/1", "q/3"); !strings.Contains(page, "Messages dropped: 2.") {
		t.Errorf("dropped:\n%s", page)
	}
	want(0, maxAside)
	if page := do(actionRetry, "q/2", "q/1"); !strings.Contains(page, "Messages back in the queue: 1.") || !strings.Contains(page, broker.ErrNoDeadLetter.Error()) {
		t.Errorf("one of the messages was there:\n%s", page)
	}
	for _, key := range []string{"other/4", "4", "/", hostile} {
		if page := do(actionDropNow, key); !strings.Contains(page, "is no message of this page") || strings.Count(page, "<script") != 1 {
			t.Errorf("%q:\n%s", key, page)
		}
	}
	if page := do(actionRetry); !strings.Contains(page, "no message is selected") {
		t.Errorf("nothing selected:\n%s", page)
	}
	want(1, maxAside-1)
	do(actionRetryAll)
	want(maxAside, 0)
	for _, entry := range []string{"were dropped, on the dashboard\" peer=0", `messages=2 ids="q/1 q/3"`, "were back in the queue, on the dashboard", "client=\"tcp 127.0.0.1:"} {
		if !strings.Contains(log.String(), entry) {
			t.Errorf("the log has no %q:\n%s", entry, log.String())
		}
	}
}

// Messages set aside that belong to no peer of the node are on a page of their own, to which the overview and the page of
// the node lead; they are shown with their queues, sent again and dropped with the token, and no messages of peers.
func TestAsideOfNoPeer(t *testing.T) {
	var log bytes.Buffer
	_, store := openAside(t, 2, Listen{Address: "127.0.0.1:0"}, &log) // in the queue of a peer that service does not have
	setAside(t, store, "to_creditors", 2)
	if err := store.Bind(t.Context(), broker.PeerBinding{PeerID: "y", Prefix: "y", Exchange: "to_creditors", BindingKey: "1", Queues: []string{"p"}}); err != nil {
		t.Fatal(err)
	}
	status := func() link.Status {
		st := service()
		st.Peers[0].Queues = []string{"p"}
		return st
	}
	s := open(t, Config{Status: status, Queues: store.Stats, DeadLetters: store, Token: "right", Log: slog.New(slog.NewTextHandler(&log, nil))})
	do := func(want string, action string, keys ...string) {
		t.Helper()
		code, page, _ := ask(t, s, "POST", "/node/aside", url.Values{"action": {action}, "message": keys}.Encode(),
			"Authorization", "Bearer right", "Content-Type", "application/x-www-form-urlencoded")
		if code != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%s: %d, no %q in\n%s", action, code, want, page)
		}
	}
	for _, path := range []string{"/", "/node"} {
		if _, page, _ := ask(t, s, "GET", path, ""); !strings.Contains(page, `belong to no peer: 4. <a href="/node/aside">`) {
			t.Errorf("%s does not lead to the messages:\n%s", path, page)
		}
	}
	if code, page, _ := ask(t, s, "GET", "/node/aside", ""); code != http.StatusUnauthorized || strings.Contains(page, "<pre tabindex") {
		t.Errorf("without the token: %d\n%s", code, page)
	}
	code, page, _ := ask(t, s, "GET", "/node/aside", "", "Authorization", "Bearer right")
	if code != http.StatusOK || strings.Count(page, "<pre tabindex") != 4 || strings.Count(page, "in <code>to_creditors.unroutable</code>") != 2 || strings.Count(page, "<script") != 1 {
		t.Errorf("%d\n%s", code, page)
	}
	do("Messages back in the queue: 1.", actionRetry, "to_creditors.unroutable/1") // is routed to the peer
	do("Messages dropped: 2.", actionDropNow, "q/2", "to_creditors.unroutable/2")
	do("is no message of this page", actionDropNow, "p/1")
	do("Messages back in the queue: 1.", actionRetryAll)
	if waiting, aside := count(t, store); waiting != 1 || aside != 0 {
		t.Errorf("%d messages wait in the queue of the peer that is gone, and %d are set aside", waiting, aside)
	}
	if info, err := store.Info(t.Context(), "p"); err != nil || info.Waiting != 1 {
		t.Errorf("%+v, %v: expected the message that is routed again", info, err)
	}
	if _, page, _ := ask(t, s, "GET", "/node", ""); strings.Contains(page, "belong to no peer") {
		t.Errorf("no message is set aside any more:\n%s", page)
	}
	if !strings.Contains(log.String(), `were dropped, on the dashboard" peer="" messages=2 ids="q/2 to_creditors.unroutable/2"`) {
		t.Errorf("log:\n%s", log.String())
	}
}

// setAside sends n messages to an exchange that routes them to no queue, so that they are set aside.
func setAside(t *testing.T, store *embedded.Store, exchange string, n int) {
	t.Helper()
	for range n {
		m := embedded.Sending{Exchange: exchange, RoutingKey: "1", Outgoing: broker.Outgoing{Type: "T"}, Unroutable: func(*broker.Outgoing) *broker.Incoming { return nil }}
		done := make(chan error, 1)
		if err := store.SendOrSetAside(t.Context(), m, func(_ embedded.Outcome, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
