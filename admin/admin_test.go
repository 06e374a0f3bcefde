package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/internal/latency"
	"peerlink/link"
	"peerlink/node/check"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// hostile is text that an attacker would choose.
const hostile = "\"><script>document.title='owned'</script>\\\n\x1b[31m"

var testTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// service returns the service's state in these tests.
func service() link.Status {
	at := testTime
	return link.Status{
		ID: "1234abcd", Type: "accounting-authority", Since: testTime,
		Rejected:     map[string]uint64{"certificate": 3},
		Certificates: []link.Expiry{{Role: "server", NotAfter: testTime.AddDate(0, 0, 5), DaysLeft: 5}},
		Peers: []link.PeerStatus{{
			ID: "00000000000000000000000000000001", Type: "creditors-agent", State: "active",
			Servers: []string{hostile}, Queues: []string{hostile}, Connections: []link.Connection{{Direction: link.Sending, Remote: hostile, Since: testTime}},
			Counts:    link.Counts{Sent: 12, Confirmed: 11, SetAside: 1},
			LastError: hostile, LastErrorAt: &at,
			Held:             []link.Held{{Queue: "q", Messages: 7, Since: testTime, Reason: hostile}},
			Out:              link.LinkState{Verdict: link.VerdictLinked, Since: testTime},
			In:               link.LinkState{Verdict: link.VerdictQuotaFull, Since: testTime},
			ConfirmHistogram: latency.Histogram{Bounds: []float64{0.001, 0.002}, Cumulative: []uint64{1, 3}, Count: 4, Sum: 0.5},
			Certificates: []link.Expiry{
				{Role: "peer_server", NotAfter: testTime.AddDate(0, 1, 0)},
				{Role: "peer_server", NotAfter: testTime.AddDate(0, 2, 0)},
			},
		}},
	}
}

// testStats returns the figures of the store in these tests.
func testStats(context.Context) (embedded.Stats, error) {
	return embedded.Stats{FileBytes: 4096, FreeBytes: 4096, MinFree: 50, PeerQuota: 100, Commits: latency.Histogram{Bounds: []float64{0.001}, Cumulative: []uint64{5}, Count: 6, Sum: 0.5}, Unconsumed: map[string]int64{"00000000000000000000000000000001": 90}, Queues: []embedded.QueueStats{{Name: hostile, Depth: 7, Oldest: testTime, Total: 9}}}, nil
}

// open opens a server, changes it, and serves until the end of the test.
func open(t *testing.T, cfg Config, changes ...func(*Server)) *Server {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []Listen{{Address: "127.0.0.1:0"}}
	}
	cfg.Version = hostile
	if cfg.Status == nil {
		cfg.Status = service
	}
	if cfg.BrokerHealth == nil {
		cfg.BrokerHealth = func() error { return nil }
	}
	if cfg.Queues == nil {
		cfg.Queues = testStats
	}
	if cfg.Level == nil {
		cfg.Level = new(slog.LevelVar)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// ask sends a request and returns the response.
func ask(t *testing.T, s *Server, method, path, body string, headers ...string) (status int, answer string, header http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.Addresses()[0]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data), res.Header
}

// Text from peers adds no elements and no attributes to the page, and the headers
// prevent browsers from executing scripts.
func TestPageEscapes(t *testing.T) {
	s := open(t, Config{
		Broker: hostile,
		Check: func(context.Context) (*check.Report, error) {
			return &check.Report{Findings: []check.Finding{{Severity: check.Problem, Rule: check.RuleCertPEM, Subject: hostile, Text: hostile}}}, nil
		},
		Peer: func(string) (link.PeerDetails, bool) {
			return link.PeerDetails{
				Theirs:  []link.ChainLink{{Role: hostile, Fingerprint: hostile}, {Role: "peer_server"}},
				Subnet:  hostile,
				Servers: []link.ServerResult{{Address: hostile, At: testTime, Error: hostile}},
				Events:  []link.Event{{Text: hostile, Times: 2}},
			}, true
		},
	})
	for path, most := range map[string]int{"/": 1, "/node": 3, "/peers/00000000000000000000000000000001": 6} {
		status, page, header := ask(t, s, "GET", path, "")
		if status != http.StatusOK || strings.Count(page, "<script") != 1 || strings.Count(page, "&lt;script&gt;") < most || strings.Contains(page, "\x1b") {
			t.Errorf("%s: status %d, page:\n%s", path, status, page)
		}
		if csp := header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self';") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
	}
}

// The page about the node has what check finds, and what the messages of each peer take up. The directory is not
// checked again for each reader.
func TestNodePage(t *testing.T) {
	checks := 0
	s := open(t, Config{Check: func(context.Context) (*check.Report, error) {
		checks++
		return &check.Report{Findings: []check.Finding{{Severity: check.Problem, Rule: check.RuleCertPEM, Subject: "root-ca.crt", Text: "is damaged"}}}, nil
	}})
	for range 3 {
		_, page, _ := ask(t, s, "GET", "/node", "")
		for _, want := range []string{"problems: 1, warnings: 0</span>", "1 of 1 links in trouble</span>", "<code>root-ca.crt</code> is damaged", "90 %</meter>", "4.0 KiB", "server certificate of this node"} {
			if !strings.Contains(page, want) {
				t.Errorf("no %q in\n%s", want, page)
			}
		}
	}
	if checks != 1 {
		t.Errorf("%d checks of the directory for three readers", checks)
	}
}

// The metrics conform to the format and to the naming rules of Prometheus, also with
// hostile labels, and no series is duplicated.
func TestMetrics(t *testing.T) {
	_, text, header := ask(t, open(t, Config{}), "GET", "/metrics", "")
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4; charset=utf-8") {
		t.Errorf("Content-Type %q", got)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		if series := line[:strings.LastIndex(line, " ")]; !strings.HasPrefix(line, "#") {
			if seen[series] {
				t.Errorf("the series %s is duplicated", series)
			}
			seen[series] = true
		}
	}
	for _, want := range []string{
		"peerlink_ready 1\n",
		"peerlink_broker_warnings 0\n",
		`peerlink_messages_sent_total{peer="00000000000000000000000000000001"} 12` + "\n",
		`peerlink_messages_held{peer="00000000000000000000000000000001"} 7` + "\n",
		`peerlink_connections{direction="sending",peer="00000000000000000000000000000001"} 1` + "\n",
		`peerlink_connections_rejected_total{reason="certificate"} 3` + "\n",
		`peerlink_peers{state="active"} 1` + "\n",
		`peerlink_link_state{direction="in",peer="00000000000000000000000000000001",verdict="quota_full"} 1` + "\n",
		`peerlink_link_confirm_seconds_bucket{peer="00000000000000000000000000000001",le="0.002"} 3` + "\n",
		`peerlink_link_confirm_seconds_bucket{peer="00000000000000000000000000000001",le="+Inf"} 4` + "\n",
		`peerlink_unconsumed_bytes{peer="00000000000000000000000000000001"} 90` + "\n",
		"peerlink_peer_quota_bytes 100\n",
		"peerlink_store_free_bytes 4096\n",
		`peerlink_store_commit_seconds_bucket{le="0.001"} 5` + "\n",
		"peerlink_store_commit_seconds_count 6\n",
		fmt.Sprintf(`peerlink_certificate_expiry_timestamp_seconds{peer="",role="server"} %g`+"\n", float64(testTime.AddDate(0, 0, 5).Unix())),
		fmt.Sprintf(`peerlink_certificate_expiry_timestamp_seconds{peer="00000000000000000000000000000001",role="peer_server"} %g`+"\n", float64(testTime.AddDate(0, 1, 0).Unix())),
		"\ngo_goroutines ",
		"\ngo_memstats_heap_alloc_bytes ",
		"\ngo_memstats_sys_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// Labels that are not UTF-8 do not prevent that the other metrics are served.
func TestMetricsWithInvalidUTF8(t *testing.T) {
	status := func() link.Status {
		s := service()
		s.Type = "accounts\xff"
		return s
	}
	code, text, _ := ask(t, open(t, Config{Status: status}), "GET", "/metrics", "")
	if code != http.StatusOK || !strings.Contains(text, "accounts\uFFFD") || !strings.Contains(text, "peerlink_ready 1\n") {
		t.Errorf("%d:\n%s", code, text)
	}
}

// GET /readyz responds whether the service serves all peers, and if not, why.
func TestReady(t *testing.T) {
	for _, tt := range []struct {
		name         string
		link, broker string
		warnings     []string
		status       int
		answer       string
	}{
		{"all is well", "", "", nil, http.StatusOK, "ready\n"},
		{"warnings", "", "", []string{"queue full", "disk old"}, http.StatusOK, "ready\nwarning: queue full\nwarning: disk old\n"},
		{"directory", "no directory", "", nil, http.StatusServiceUnavailable, "no directory\n"},
		{"both", "no directory", "no broker", []string{"queue full"}, http.StatusServiceUnavailable, "no directory\nno broker\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Config{
				Status: func() link.Status {
					st := service()
					st.HealthError, st.Peers = tt.link, nil
					return st
				},
				BrokerHealth: func() error {
					if tt.broker == "" {
						return nil
					}
					return errors.New(tt.broker)
				},
				BrokerWarnings: func() []string { return tt.warnings },
			})
			if status, answer, _ := ask(t, s, "GET", "/readyz", ""); status != tt.status || answer != tt.answer {
				t.Errorf("readyz: %d %q", status, answer)
			}
			if status, _, _ := ask(t, s, "GET", "/healthz", ""); status != http.StatusOK {
				t.Errorf("healthz: %d", status)
			}
		})
	}
}

// Only processes on this machine, and no web page, can change the log level.
func TestLogLevel(t *testing.T) {
	for _, tt := range []struct {
		name, address, body string
		fixed               bool
		headers             []string
		status              int
		want                slog.Level
	}{
		{"changed", "127.0.0.1:0", "debug\n", false, nil, http.StatusOK, slog.LevelDebug},
		{"by its other name", "127.0.0.1:0", "warn", false, []string{"Host", "localhost:1235"}, http.StatusOK, slog.LevelWarn},
		{"no level", "127.0.0.1:0", "loud", false, nil, http.StatusBadRequest, slog.LevelInfo},
		{"endless", "127.0.0.1:0", strings.Repeat("debug", 1000), false, nil, http.StatusRequestEntityTooLarge, slog.LevelInfo},
		{"a page of another site", "127.0.0.1:0", "debug", false, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, slog.LevelInfo},
		{"a page of another site, old browser", "127.0.0.1:0", "debug", false, []string{"Origin", "https://evil.example"}, http.StatusForbidden, slog.LevelInfo},
		{"DNS rebinding", "127.0.0.1:0", "debug", false, []string{"Host", "evil.example:1235"}, http.StatusMisdirectedRequest, slog.LevelInfo},
		{"fixed here", "127.0.0.1:0", "debug", true, nil, http.StatusMethodNotAllowed, slog.LevelInfo},
		{"exposed", "0.0.0.0:0", "debug", false, nil, http.StatusMethodNotAllowed, slog.LevelInfo},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			level := new(slog.LevelVar)
			s := open(t, Config{Listen: []Listen{{Address: tt.address, Exposed: true, FixedLevel: tt.fixed}}, Level: level,
				Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))})
			if status, answer, _ := ask(t, s, "PUT", "/log-level", tt.body, tt.headers...); status != tt.status {
				t.Errorf("status %d, want %d: %s", status, tt.status, answer)
			}
			if level.Level() != tt.want {
				t.Errorf("level %v, want %v", level.Level(), tt.want)
			}
			if logged := strings.Contains(log.String(), "log level changed"); logged != (tt.want != slog.LevelInfo) {
				t.Errorf("the change is logged: %v, want %v: %q", logged, !logged, log.String())
			}
		})
	}
}

// No request with a foreign name in Host is served, nor one with something else than the number of a port after the colon.
func TestRebinding(t *testing.T) {
	s := open(t, Config{})
	for host, want := range map[string]int{
		"evil.example": http.StatusMisdirectedRequest, "localhost.evil.example:80": http.StatusMisdirectedRequest, "": http.StatusOK,
		"127.0.0.1:22641.evil.example": http.StatusMisdirectedRequest, "localhost:1235.evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1:x": http.StatusMisdirectedRequest, "localhost:": http.StatusMisdirectedRequest, "127.0.0.1:65536": http.StatusMisdirectedRequest,
		"[localhost]": http.StatusMisdirectedRequest, "[::1": http.StatusMisdirectedRequest, "[::1]evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1": http.StatusOK, "127.0.0.1:1235": http.StatusOK, "[::1]:1235": http.StatusOK, "[::1]": http.StatusOK,
		"localhost": http.StatusOK, "localhost:1235": http.StatusOK,
	} {
		headers := []string{"Host", host}
		if status, _, _ := ask(t, s, "GET", "/links", "", headers...); status != want {
			t.Errorf("Host %q: %d, want %d", host, status, want)
		}
	}
}

// Addresses that other machines could reach are refused, unless Exposed is set.
func TestExposed(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		if _, err := Open(Config{Listen: []Listen{{Address: address}}}); !errors.Is(err, ErrExposed) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"", "1235", "unix:", "unix:relative", "/path", "none"} {
		if _, err := Open(Config{Listen: []Listen{{Address: address}}}); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// A client connects to a server on a Unix socket, beside another address, and gets its state; without a server it
// reports ErrNoServer.
func TestClient(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address, err := ParseAddress(UnixAddress(filepath.Join(dir, "s")))
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(address)
	if _, err := c.Links(t.Context()); !errors.Is(err, ErrNoServer) {
		t.Errorf("without a server: got %v, want ErrNoServer", err)
	}
	open(t, Config{Listen: []Listen{{Address: "127.0.0.1:0"}, {Address: address.String()}}})
	l, err := c.Links(t.Context())
	if err != nil || l.ID != "1234abcd" || len(l.Peers) != 1 || l.Peers[0].LastError != hostile || l.QueueOf(l.Peers[0]).Messages != 7 {
		t.Errorf("links %+v, %v", l, err)
	}
	if err := c.SetLogLevel(t.Context(), "debug"); err != nil {
		t.Error(err)
	}
	if level, err := c.LogLevel(t.Context()); err != nil || level != "debug" {
		t.Errorf("level %q, %v", level, err)
	}
	if err := c.SetLogLevel(t.Context(), "loud"); err == nil || !strings.Contains(err.Error(), "expected error, warning") {
		t.Errorf("bad level: %v", err)
	}
}
