package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// referenceAppVariables are all APP_ variables that the reference reads, and those
// that its manifests and its image set.
var referenceAppVariables = []string{
	"APP_ASSOCIATED_LOGGERS", "APP_FILE_READ_THREADS", "APP_K8S_NAMESPACE", "APP_LOG_FORMAT", "APP_LOG_LEVEL", "APP_MAX_CACHED_PEERS",
	"APP_MAX_CONNECTIONS_PER_PEER", "APP_NAME", "APP_PEERS_CACHE_SECONDS", "APP_PEERS_CHECK_SECONDS", "APP_RMQ_CONFIRMATION_TIMEOUT_SECONDS",
	"APP_RMQ_CONNECTION_TIMEOUT_SECONDS", "APP_ROOT_DIR", "APP_SSL_HANDSHAKE_TIMEOUT", "APP_STOMP_SERVER_BACKLOG",
}

// clearAppVariables empties, for one test, the variables that are set where the
// tests run.
func clearAppVariables(t *testing.T) {
	t.Helper()
	for _, v := range environmentNames() {
		if strings.HasPrefix(v, referencePrefix) || v == substituteVariable || replacedInServe[v] != "" {
			t.Setenv(v, "")
		}
	}
}

// Each variable of the reference is either used, or logged once with its
// replacement. All other APP_ variables are logged once, in one record. No record
// shows the value of a variable.
func TestReferenceVariables(t *testing.T) {
	clearAppVariables(t)
	for _, v := range append(referenceAppVariables, "APP_LOG_LEVL", "APP_FETCH_CONNECTIONS", "SWPT_SERVER_BUFFER", "SWPT_CLIENT_BUFFER") {
		t.Setenv(v, "13579")
	}
	t.Setenv("APP_EMPTY", "")
	t.Setenv("APPLE", "13579")
	var out bytes.Buffer
	reportVariables(slog.New(slog.NewJSONHandler(&out, nil)), replacedInServe)
	got := make(map[string]string) // level of the record with each variable
	for d := json.NewDecoder(strings.NewReader(out.String())); ; {
		var r struct{ Level, Variable, Variables, Instead string }
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if (r.Variable != "") != (r.Instead != "") {
			t.Errorf("record with variable %q and replacement %q, want both or neither", r.Variable, r.Instead)
		}
		for _, v := range append(strings.Fields(r.Variables), strings.Fields(r.Variable)...) {
			if got[v] != "" {
				t.Errorf("%s is logged more than once", v)
			}
			got[v] = r.Level
		}
	}
	want := map[string]string{"APP_LOG_LEVL": "WARN", "APP_FETCH_CONNECTIONS": "WARN", "SWPT_SERVER_BUFFER": "INFO", "SWPT_CLIENT_BUFFER": "INFO"}
	for _, v := range []string{
		"APP_ASSOCIATED_LOGGERS", "APP_FILE_READ_THREADS", "APP_MAX_CACHED_PEERS", "APP_PEERS_CACHE_SECONDS", "APP_PEERS_CHECK_SECONDS", "APP_STOMP_SERVER_BACKLOG",
	} {
		want[v] = "INFO"
	}
	for v, level := range got {
		if want[v] != level {
			t.Errorf("%s is reported as %s, want %q", v, level, want[v])
		}
	}
	for v := range want {
		if got[v] == "" {
			t.Errorf("%s is not reported", v)
		}
	}
	if strings.Contains(out.String(), "13579") {
		t.Errorf("the log shows the value of a variable:\n%s", &out)
	}
}

// A variable is reported if its URL contains a host name that the reference's entry
// point would replace. The URL, which contains a password, is not shown.
func TestSubstituteLocalhost(t *testing.T) {
	for url, want := range map[string]bool{
		"amqp://guest:hidden@localhost:5672": true, "http://localhost": true,
		"amqp://guest:hidden@rabbitmq:5672": false, "amqp://guest:hidden@localhost.example.com": false, "": false, "localhost": false, ":%": false,
	} {
		t.Run(url, func(t *testing.T) {
			clearAppVariables(t)
			t.Setenv(substituteVariable, "PROTOCOL_BROKER_URL CHORES_BROKER_URL")
			t.Setenv("PROTOCOL_BROKER_URL", url)
			var log bytes.Buffer
			reportVariables(slog.New(slog.NewTextHandler(&log, nil)), nil)
			if got := strings.Contains(log.String(), "variable=PROTOCOL_BROKER_URL"); got != want || strings.Contains(log.String(), "hidden") {
				t.Errorf("log %q", &log)
			}
		})
	}
}

// In the JSON format, every record of every command, also that of a failure or of
// wrong usage, has this program's members and "levelname", from which the
// reference's log pipeline takes the level (it counts every line without it as an
// error). The records of the four commands with the reference's names have all of
// the reference's members.
func TestJSONLog(t *testing.T) {
	clearAppVariables(t)
	t.Setenv("APP_STOMP_SERVER_BACKLOG", "100") // gives a record of level INFO
	t.Setenv("APP_LOG_LEVL", "info")            // and one of WARNING
	for _, tt := range []struct {
		args      []string
		code      int
		reference bool
	}{
		{[]string{"serve", "-C", "none", "--log-format", "json"}, exitFailed, false},
		{[]string{"serve", "-C", "none", "--log-format", "json", "--broker", "http://localhost"}, exitServiceUsage, false},
		{[]string{"swpt-server", "-n", "file:///none", "-f", "json"}, exitFailed, true},
		{[]string{"swpt-client", "-n", "file:///none", "-f", "json", "1234abcd", "q"}, exitFailed, true},
		{[]string{"swpt-drainer", "-n", "file:///none", "-f", "json", "1234abcd", "q"}, exitFailed, true},
		{[]string{"configure-queue", "-n", "file:///none", "-f", "json", "1234abcd", "q"}, exitFailed, true},
		{[]string{"swpt-server", "-u", "http://localhost", "-f", "json"}, exitServiceUsage, true},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			out, err := os.CreateTemp(t.TempDir(), "log")
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			a := &app{stdin: os.Stdin, stdout: out, stderr: out}
			if code := a.run(t.Context(), tt.args); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			a.closeLogs()
			text, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			checkRecords(t, string(text), tt.reference)
		})
	}
}

// checkRecords checks the log of [TestJSONLog].
func checkRecords(t *testing.T, text string, reference bool) {
	t.Helper()
	levels := map[string]string{"INFO": "INFO", "WARN": "WARNING", "ERROR": "ERROR"}
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		var r struct {
			Time, Level, Levelname, Msg string
			Asctime, Name, Message      string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.Time == "" || r.Msg == "" || r.Levelname != levels[r.Level] {
			t.Errorf("the record is incomplete or has the wrong level: %s", line)
		}
		if reference != (r.Message == r.Msg) || reference != (r.Asctime != "") || reference != (r.Name == "peerlink") {
			t.Errorf("the record has the wrong members: %s", line)
		}
		seen[r.Levelname] = true
	}
	for _, level := range levels {
		if !seen[level] {
			t.Errorf("the log has no record of level %s:\n%s", level, text)
		}
	}
}
