package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"peerlink/admin"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// queueNumbers are the numbers of the messages of a peer's queue.
type queueNumbers struct {
	Peer, Queue, State string
	Waiting            int64
	SetAside           int64 `json:"set_aside"`
}

// The messages of peers that are suspended or deactivated are counted by "links", "peerlink" alone, the metrics and
// the dashboard as by "queue list". Neither the service nor a link counts as faulty because of messages that wait
// for a suspended peer.
func TestQueuesOfEndedLinks(t *testing.T) {
	t.Parallel()
	authority := newServer(t, nodetype.AccountingAuthority)
	suspended, deactivated := nodetest.New(t, nodetype.CreditorsAgent, freeAddress(t)), nodetest.New(t, nodetype.DebtorsAgent, freeAddress(t))
	for _, peer := range []*nodetest.Node{suspended, deactivated} {
		nodetest.Peer(t, authority.Node, peer)
		if err := makeAside(authority.state, "peer."+peer.Identity().ID+".0", 1, "a reason", "{}"); err != nil {
			t.Fatal(err)
		}
	}
	authority.broker = []string{"--admin", freeAddress(t)}
	authority.start()
	t.Cleanup(authority.kill)
	authority.linksBecome(map[string]string{suspended.Identity().ID: "active", deactivated.Identity().ID: "active"})
	if err := authority.SuspendPeer(t.Context(), suspended.Identity().ID, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.DeactivatePeer(t.Context(), deactivated.Identity().ID); err != nil {
		t.Fatal(err)
	}
	l := authority.linksBecome(map[string]string{suspended.Identity().ID: "suspended", deactivated.Identity().ID: "deactivated"})

	var total queueNumbers
	for _, want := range authority.queueList() {
		total.Waiting, total.SetAside = total.Waiting+want.Waiting, total.SetAside+want.SetAside
		authority.checkNumbers(l, want)
	}
	if total.Waiting != 1 || total.SetAside < 2 {
		t.Fatalf("queue list: %+v", total)
	}
	if !l.Ready {
		t.Errorf("not ready: %q", l.Problems)
	}
	if text, want := authority.output(), fmt.Sprintf("0 down, 1 messages waiting, %d set aside", total.SetAside); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

// checkNumbers checks the numbers of one queue in the state of the links, in the metrics and on the dashboard.
func (s *server) checkNumbers(l *admin.Links, want queueNumbers) {
	for _, p := range l.Peers {
		if q := l.QueueOf(p); p.ID == want.Peer && (q.Messages != want.Waiting || q.SetAside != want.SetAside) {
			s.t.Errorf("links: %+v, expected %+v", q, want)
		}
	}
	metrics := s.page("metrics")
	for name, n := range map[string]int64{"messages": want.Waiting, "set_aside_messages": want.SetAside} {
		if line := fmt.Sprintf("peerlink_queue_%s{peer=\"%s\",queue=\"%s\"} %d\n", name, want.Peer, want.Queue, n); !strings.Contains(metrics, line) {
			s.t.Errorf("metrics: no %s", line)
		}
	}
	if page := s.page("peers/" + want.Peer + "/aside"); strings.Count(page, `type="checkbox"`) != int(want.SetAside) {
		s.t.Errorf("expected %+v on the page\n%s", want, page)
	}
}

// linksBecome waits until "links" shows the peers in these states, and no message waits for a deactivated peer.
func (s *server) linksBecome(states map[string]string) *admin.Links {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		l, got, drained := new(admin.Links), map[string]string{}, true
		_ = json.Unmarshal([]byte(s.output("links", "--json")), l) // the service may not have started yet
		for _, p := range l.Peers {
			got[p.ID] = p.State
		}
		for _, q := range s.queueList() {
			drained = drained && (q.State != "deactivated" || q.Waiting == 0)
		}
		if reflect.DeepEqual(got, states) && drained {
			l = new(admin.Links) // as it is after the drain
			if err := json.Unmarshal([]byte(s.output("links", "--json")), l); err != nil {
				s.t.Fatal(err)
			}
			return l
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the states are %v, expected %v; drained: %v", got, states, drained)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *server) queueList() (list []queueNumbers) {
	s.t.Helper()
	if out := s.output("queue", "list", "--state", s.state, "--json"); json.Unmarshal([]byte(out), &list) != nil {
		s.t.Fatalf("queue list: %s", out)
	}
	return list
}

// output returns what a command for the node's directory writes to stdout. It may report faults with its exit code.
func (s *server) output(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program(s.t), append([]string{"-C", s.Path()}, args...)...).Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out)
}

// page returns a page of the service's dashboard, which is asked for with the token.
func (s *server) page(path string) string {
	s.t.Helper()
	var found []struct{ URL, Token string }
	if out := s.output("dashboard", "--state", s.state, "--json"); json.Unmarshal([]byte(out), &found) != nil || len(found) != 1 {
		s.t.Fatalf("dashboard: %s", out)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, found[0].URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+found[0].Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v\n%s", path, res.Status, err, data)
	}
	return string(data)
}
