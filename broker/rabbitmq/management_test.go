package rabbitmq

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// managementOf returns a Management of a server that answers every request with a text.
func managementOf(t *testing.T, text string) *Management {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	m, err := OpenManagement("amqp://guest:guest@localhost", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What the management plugin says about a queue is read, whatever else it says; numbers keep all their digits.
func TestManagement(t *testing.T) {
	info, err := managementOf(t, `{"type":"quorum","policy":null,"Messages":1,"consumer_details":[{"x":[1]}],"arguments":{"x-max-length":12345678901234567890},"effective_policy_definition":[]}`).Queue(t.Context(), "q")
	if err != nil || info.Type != "quorum" || fmt.Sprint(info.Arguments) != "map[x-max-length:12345678901234567890]" || info.Limits != nil {
		t.Errorf("%+v, %v", info, err)
	}
}

// Another program that answers instead of the management plugin can not use up the memory of "doctor".
func TestManagementCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	for _, list := range []string{"arguments", "effective_policy_definition", "type", "unknown"} {
		for _, value := range []string{`{}`, `[]`, `""`, `1`, `null`, `{"":0}`, `[[]]`} {
			repeated := `"a":[` + strings.Repeat(value+",", (maxManagement-100)/(len(value)+1)) + value + `]`
			m := managementOf(t, `{"`+list+`":{`+repeated+`}}`)
			costtest.Check(t, list+" "+value, func() { _, _ = m.Queue(t.Context(), "q") })
		}
		members := []byte(`{"` + list + `":{`)
		for i := 0; len(members) < maxManagement-100; i++ {
			members = fmt.Appendf(members, `"%x":0,`, i)
		}
		m := managementOf(t, string(members)+`"":0}}`)
		costtest.Check(t, list, func() { _, _ = m.Queue(t.Context(), "q") })
	}
	m := managementOf(t, `{"arguments":`+strings.Repeat("[", maxManagement-100))
	costtest.Check(t, "brackets", func() { _, _ = m.Queue(t.Context(), "q") })
}

// An answer that is too long, or that is not about a queue, is an error that says so.
func TestManagementRefuses(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat(" ", maxManagement+1): "too large",
		`{"type":[]}`:                        "a list at byte 8",
		`<html>`:                             "invalid character",
	} {
		if _, err := managementOf(t, text).Queue(t.Context(), "q"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: %v, want %s", text, err, want)
		}
	}
}
