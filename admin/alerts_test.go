package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

const rulesFile = "../deploy/prometheus/peerlink.rules.yml"

// alertRule is a rule in rulesFile.
type alertRule struct {
	Alert, Expr string
	Annotations map[string]string
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alertRule }
	}
	if err := yaml.Unmarshal(readFile(t, rulesFile), &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups[0].Rules
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// boardQueries returns the queries of the Grafana dashboard, with values for its variables.
func boardQueries(t *testing.T) (queries []string) {
	t.Helper()
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(readFile(t, "../deploy/grafana/peerlink.json"), &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries = append(queries, strings.NewReplacer("$__rate_interval", "5m").Replace(target.Expr))
		}
	}
	if len(queries) == 0 {
		t.Fatal("the dashboard has no queries")
	}
	return queries
}

// serviceMetrics returns the metrics of a running service with a peer, to which it has sent a
// message. The figures of queues are those of open.
func serviceMetrics(t *testing.T) string {
	t.Helper()
	authority, other := linktest.Pair(t, nodetype.CreditorsAgent)
	s := open(t, Config{Status: other.Service.Status, LogDropped: func() uint64 { return 0 }})
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	other.WaitDrained(authority, 0)
	_, text, _ := ask(t, s, "GET", "/metrics", "")
	return text
}

var (
	metricPattern = regexp.MustCompile(`\b((?:peerlink|go|process)_\w+)(\{[^}]*\})?`)
	labelPattern  = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
	byPattern     = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// ofScrape are the labels that Prometheus adds.
var ofScrape = []string{"job", "instance"}

// checkQuery reports metrics and labels in a query that the metrics of a service do not have.
func checkQuery(t *testing.T, query, metrics string) {
	t.Helper()
	known := make(map[string]bool)
	for _, m := range metricPattern.FindAllStringSubmatch(query, -1) {
		series := regexp.MustCompile(`(?m)^` + m[1] + `(\{.*\})? `).FindString(metrics)
		if series == "" {
			t.Errorf("no metric %s, in the query %s", m[1], query)
			continue
		}
		for _, l := range labelPattern.FindAllStringSubmatch(series, -1) {
			known[l[1]] = true
		}
		for _, l := range labelPattern.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(ofScrape, l[1]) && !strings.Contains(series, l[1]+`="`) {
				t.Errorf("%s has no label %s, in the query %s", m[1], l[1], query)
			}
		}
	}
	for _, group := range byPattern.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(group[1], ", ") {
			if !known[label] && !slices.Contains(ofScrape, label) {
				t.Errorf("no metric has a label %s, in the query %s", label, query)
			}
		}
	}
}

// Every metric and label that an alert or the Grafana dashboard uses exists in the metrics of a
// service, so that none of them is silent for ever.
func TestQueriesMatchMetrics(t *testing.T) {
	metrics := serviceMetrics(t)
	for _, r := range alertRules(t) {
		checkQuery(t, r.Expr, metrics)
	}
	for _, q := range boardQueries(t) {
		checkQuery(t, q, metrics)
	}
}

// Every alert has a section in docs/alerts.md, to which its runbook_url leads, and every section
// has an alert.
func TestRunbooks(t *testing.T) {
	sections := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(readFile(t, "../docs/alerts.md")), -1) {
		sections["docs/alerts.md#"+strings.ToLower(m[1])] = true
	}
	for _, r := range alertRules(t) {
		url := r.Annotations["runbook_url"]
		if !sections[url] || !strings.HasSuffix(url, "#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s: the runbook_url is %q, one of %q expected", r.Alert, url, slices.Sorted(maps.Keys(sections)))
		}
		delete(sections, url)
	}
	if len(sections) > 0 {
		t.Errorf("sections without an alert: %q", slices.Sorted(maps.Keys(sections)))
	}
}

// Prometheus accepts the alerts, the metrics and the queries of the dashboard, and the alerts fire
// when they should.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: Prometheus has not checked the alerts and metrics")
	}
	var recorded strings.Builder
	recorded.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range boardQueries(t) {
		fmt.Fprintf(&recorded, "  - record: query%d\n    expr: %q\n", i, q)
	}
	queries := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(queries, []byte(recorded.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		input string
		args  []string
	}{
		{"", []string{"check", "rules", rulesFile, queries}},
		{"", []string{"test", "rules", "../deploy/prometheus/peerlink.rules.test.yml"}},
		{serviceMetrics(t), []string{"check", "metrics"}},
	} {
		c := exec.CommandContext(t.Context(), promtool, tt.args...)
		c.Stdin = strings.NewReader(tt.input)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(tt.args, " "), err, out)
		}
	}
}
