package rabbitmq

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"peerlink/broker/rabbitmq/rabbittest"
)

// managementAnswers starts an HTTP server that answers for the queues whose names end in
// suffix as RabbitMQ's management plugin does, and for no others.
func managementAnswers(t *testing.T, suffix string, answer *atomic.Pointer[string]) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "guest" || password != "guest" || !strings.HasPrefix(r.URL.EscapedPath(), "/api/queues/%2F/") {
			t.Errorf("request %s by %s", r.URL, user)
		}
		if text := answer.Load(); text != nil && strings.HasSuffix(r.URL.Path, suffix) {
			fmt.Fprint(w, *text)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// If a policy may drop dead letters, the warnings and the log say so before a message is set
// aside, and so does PolicyWarning; once the policy is gone, the warning ends.
func TestPolicyIsSeen(t *testing.T) {
	s := rabbittest.Get(t)
	var answer atomic.Pointer[string]
	bad := `{"type":"classic","policy":"upstream","arguments":{},"effective_policy_definition":{"max-length-bytes":1000000000,"overflow":"drop-head"}}`
	early := `{"type":"classic","arguments":{}}` // as RabbitMQ answers for some seconds
	answer.Store(&early)
	log := new(logBuffer)
	b := openTest(t, s.URL(), Options{Logger: log.logger(), Management: managementAnswers(t, ".XQ", &answer)})
	q := testPeer()
	check(t, b.Bind(testContext(t), q))
	if known, err := b.readPolicies(0); known || err != nil {
		t.Errorf("policies that the plugin does not know yet: %t, %v", known, err)
	}
	answer.Store(&bad)
	const want = `a policy sets max-length-bytes 1000000000: what is beyond that is dropped, the oldest first (policy "upstream")`
	name := referenceDeadLetterQueue(q.Queues[0])
	eventually(t, "the warning", func() error {
		if text := strings.Join(b.Warnings(), "\n"); !strings.Contains(text, "queue "+name+": "+want) {
			return fmt.Errorf("the warnings are %q", text)
		}
		return nil
	})
	if text := strings.ReplaceAll(log.String(), `\"`, `"`); strings.Count(text, want) != 1 || !strings.Contains(text, "level=WARN") {
		t.Errorf("the log is %s", text)
	}
	if text, err := b.PolicyWarning(testContext(t), q.Queues[0]); err != nil || text != "queue "+name+": "+want {
		t.Errorf("PolicyWarning is %q, %v", text, err)
	}
	good := `{"type":"classic","policy":null,"arguments":{},"effective_policy_definition":[]}`
	answer.Store(&good)
	known, err := b.readPolicies(0)
	check(t, err)
	if !known {
		t.Error("an empty list of policies is taken for one that is not known yet")
	}
	if w := b.Warnings(); len(w) > 0 {
		t.Errorf("the warnings are %q after the policy is gone", w)
	}
	answer.Store(nil)
	if _, err := b.readPolicies(0); err == nil || !strings.Contains(err.Error(), "none of the queues") {
		t.Errorf("a plugin that knows none of the queues: %v", err)
	}
	if text, err := b.PolicyWarning(testContext(t), q.Queues[0]); !errors.Is(err, errOtherRabbitMQ) {
		t.Errorf("PolicyWarning of a plugin that knows none of the queues is %q, %v", text, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A policy is a risk exactly if RabbitMQ drops or moves messages because of it, with the
// arguments that the queue has.
func TestRiskOfPolicy(t *testing.T) {
	for _, test := range []struct{ name, typ, arguments, policy, want string }{
		{"none", "classic", `{}`, `[]`, ""},
		{"harmless", "classic", `{}`, `{"queue-version":2,"ha-mode":"all"}`, ""},
		{"length", "classic", `{}`, `{"max-length":3}`, "max-length 3: what is beyond that is dropped"},
		{"length of a peer's queue", "classic", `{"x-dead-letter-exchange":""}`, `{"max-length":3}`, "is moved to where"},
		{"reject-publish", "classic", `{}`, `{"max-length":3,"overflow":"reject-publish"}`, ""},
		{"overflow by argument", "classic", `{"x-overflow":"drop-head"}`, `{"max-length":3,"overflow":"reject-publish"}`, "max-length 3"},
		{"bytes", "quorum", `{}`, `{"max-length-bytes":10000,"overflow":"drop-head"}`, "max-length-bytes 10000"},
		{"time", "quorum", `{}`, `{"message-ttl":1000}`, "message-ttl 1000"},
		{"expiry", "classic", `{}`, `{"expires":1000}`, "expires 1000"},
		{"low delivery limit", "quorum", `{"x-delivery-limit":-1}`, `{"delivery-limit":2}`, "delivery-limit 2"},
		{"delivery limit", "quorum", `{"x-delivery-limit":-1}`, `{"delivery-limit":3}`, ""},
		{"no delivery limit", "quorum", `{}`, `{"delivery-limit":-1}`, ""},
		{"delivery limit of a classic queue", "classic", `{}`, `{"delivery-limit":1}`, ""},
	} {
		members := func(text string) map[string]any {
			t.Helper()
			m, err := object(json.RawMessage(text))
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		info := &QueueInfo{Type: test.typ, Policy: "p", Arguments: members(test.arguments), Limits: members(test.policy)}
		got := riskOfPolicy(info)
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) || got != "" && !strings.HasSuffix(got, `(policy "p")`) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
