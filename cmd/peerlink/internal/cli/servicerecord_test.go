package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/admin"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A service is found by its record as long as it runs and says that it is this node's, and a record
// that another user could have written is not used.
func TestServiceRecord(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	id := d.Identity().ID
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer admin.Links
		answer.ID, answer.Type = id, d.Identity().Type.String()
		json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	want := func(what string, n int) {
		t.Helper()
		if found := runningServices(t.Context(), d.Dir); len(found) != n || n == 1 && (found[0].Admin != address || found[0].State != "/state") {
			t.Errorf("%s: %+v, want %d", what, found, n)
		}
	}
	want("no record", 0)
	forget := recordService(d.Dir, serviceRecord{State: "/state", Admin: address}, slog.New(slog.DiscardHandler))
	want("a record", 1)
	if runtime.GOOS != "windows" {
		for _, mode := range []os.FileMode{0o777, 0o1777, 0o770} {
			if err := os.Chmod(recordFolder(), mode); err != nil {
				t.Fatal(err)
			}
			want(mode.String(), 0)
		}
		if err := os.Chmod(recordFolder(), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	id = "00000000"
	want("another node's service", 0)
	id = d.Identity().ID
	for _, content := range []string{"", "{", `{"directory": 7}`, strings.Repeat(" ", maxRecordSize+1)} {
		if err := os.WriteFile(filepath.Join(recordFolder(), "broken.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		want("beside a broken record", 1)
	}
	forget()
	want("an ended service", 0)
}

// The record of a service that was killed is not used, and is removed by a later service if the node's
// directory does not exist any more.
func TestRecordOfKilledService(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	if err := os.MkdirAll(recordFolder(), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := realPath(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]string{"there": dir, "gone": filepath.Join(dir, "gone")} {
		data, _ := json.Marshal(serviceRecord{Directory: at, State: "/state", Admin: "127.0.0.1:1"})
		for _, ext := range []string{".json", ".lock"} {
			if err := os.WriteFile(filepath.Join(recordFolder(), name+ext), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if found := runningServices(t.Context(), d.Dir); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	defer recordService(d.Dir, serviceRecord{State: "/other", Admin: "127.0.0.1:2"}, slog.New(slog.DiscardHandler))()
	left := readRecords(recordFolder())
	if _, kept := left[filepath.Join(recordFolder(), "there")]; !kept || len(left) != 2 {
		t.Errorf("records %+v", left)
	}
}

// The record of a service and the token of its dashboard, which can not be written when it starts, as on a full disk,
// are written as soon as that is possible, and are removed when it ends. The log says what is missing until then.
func TestServiceFilesAreWrittenLater(t *testing.T) {
	base := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(base, "none"))
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	token := filepath.Join(base, "none", adminTokenName)
	files := func() int {
		_, err := os.Stat(token)
		n := len(readRecords(recordFolder()))
		if err == nil {
			n++
		}
		return n
	}
	for _, possible := range []bool{false, true} {
		if err := os.WriteFile(filepath.Join(base, "none"), nil, 0o600); err != nil { // where a folder is needed
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			var out lockedBuffer
			log := slog.New(slog.NewTextHandler(&out, nil))
			remove := keepAdminToken(token, "secret", log)
			forget := recordService(d.Dir, serviceRecord{Admin: "127.0.0.1:1"}, log)
			for _, what := range []string{"dashboard until the file with its token is written", "until its record is written"} {
				if !strings.Contains(out.String(), what) {
					t.Errorf("log: %s\nwant %q", out.String(), what)
				}
			}
			if possible {
				if err := os.Remove(filepath.Join(base, "none")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(rewritePause) // of the bubble's clock
				synctest.Wait()
				if n := files(); n != 2 {
					t.Errorf("%d files are written later, want the token and the record", n)
				}
			}
			forget()
			remove()
			if strings.Contains(out.String(), "secret") || files() != 0 {
				t.Errorf("%d files are left, log: %s", files(), out.String())
			}
		})
		os.Remove(filepath.Join(base, "none"))
	}
}

// lockedBuffer is a buffer to which several goroutines write.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
