package local

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"peerlink/internal/socket"
)

// No client is admitted without the passcode, on either listener. The ERROR names the
// file of the passcode, never the passcode, and is sent after a pause.
func TestPasscode(t *testing.T) {
	const pause = 100 * time.Millisecond
	h := newHouse(t, func(_ *Config, b *bounds) { b.guessPause = pause })
	path, err := filepath.Abs(filepath.Join(h.dir, passcodeFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range h.door.Addrs() {
		for _, c := range []struct {
			name    string
			headers []string
			like    string
		}{
			{"missing", nil, "passcode header missing: the passcode is in the file " + path},
			{"empty", []string{"passcode", ""}, "wrong passcode: the right one is in the file " + path},
			{"wrong", []string{"passcode", "AAAAAAAAAAAAAAAAAAAAAAAAAA"}, "wrong passcode"},
			{"beginning", []string{"passcode", h.secret[:len(h.secret)-1]}, "wrong passcode"},
			{"longer", []string{"passcode", h.secret + "A"}, "wrong passcode"},
			{"as login", []string{"login", h.secret}, "missing"},
		} {
			t.Run(a.Network()+"/"+c.name, func(t *testing.T) {
				nc, err := net.Dial(a.Network(), a.String())
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				w := h.wireOn(nc)
				w.send("CONNECT", "", append(c.headers, "accept-version", "1.2", "host", "any")...)
				f := w.expect("ERROR")
				text, _ := f.Get("message")
				if !strings.Contains(text, c.like) || strings.Contains(text, h.secret) || strings.Contains(string(f.Body), h.secret) {
					t.Errorf("ERROR %v %q, expected %q in it", f.Headers, f.Body, c.like)
				}
				if took := time.Since(begin); took < pause {
					t.Errorf("the answer came after %v, expected at least %v", took, pause)
				}
				w.expectEnd()
			})
		}
	}
}

// openOnly opens a door that is not served.
func openOnly(t *testing.T, dir, listen string) (*Door, error) {
	t.Helper()
	d, err := Open(Config{
		Store: openStore(t, t.TempDir()), StateDir: dir, Listen: listen,
		Inbox: "accounts_in", Exchanges: []string{"to_creditors"}, Log: quiet(),
	})
	if err == nil {
		t.Cleanup(func() { d.Close() })
	}
	return d, err
}

// The passcode is generated once, hard to guess, readable by the owner only, and kept.
func TestPasscodeFile(t *testing.T) {
	dir := stateDir(t)
	var secrets []string
	for range 2 {
		d, err := openOnly(t, dir, "")
		if err != nil {
			t.Fatal(err)
		}
		secret, err := readPasscode(filepath.Join(dir, passcodeFile))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(secrets[0]) < 26 || secrets[0] != secrets[1] {
		t.Errorf("passcodes of two starts: %q", secrets)
	}
	info, err := os.Stat(filepath.Join(dir, passcodeFile))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the passcode's file has mode %v (%v), expected 0600", info.Mode(), err)
	}
}

// A passcode that others could read, or that is invalid, is refused by the door and by
// its client, with a hint and without quoting it.
func TestPasscodeFileRefused(t *testing.T) {
	const good = "correct-horse-battery"
	for _, c := range []struct {
		name    string
		content string
		mode    os.FileMode
		like    string // "" for a good one
	}{
		{"chosen by the operator", good + "\r\n", 0o600, ""},
		{"read only", good, 0o400, ""},
		{"readable for all", good, 0o644, "mode 0644"},
		{"readable for the group", good, 0o640, "mode 0640"},
		{"writable for the group", good, 0o620, "mode 0620"},
		{"empty", "", 0o600, "is not a passcode"},
		{"short", "short-secret-15", 0o600, "is not a passcode"},
		{"long", strings.Repeat("long-secret", 100), 0o600, "is not a passcode"},
		{"two lines", good + "\n" + good + "\n", 0o600, "is not a passcode"},
		{"with a space", good + " " + good, 0o600, "is not a passcode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mode&0o077 != 0 && runtime.GOOS == "windows" {
				t.Skip("skipped: Windows has no such modes")
			}
			dir := stateDir(t)
			path := filepath.Join(dir, passcodeFile)
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil { // regardless of the umask
				t.Fatal(err)
			}
			_, err := openOnly(t, dir, "")
			if c.like == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.like) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "secret-") || strings.Contains(err.Error(), good) {
				t.Errorf("Open: %v, expected %q", err, c.like)
			}
			if exposed := c.mode&0o077 != 0; errors.Is(err, errExposed) != exposed {
				t.Errorf("Open: %v is ErrExposed: %v, expected %v", err, !exposed, exposed)
			}
			if err := writeAddresses(dir, addresses{Unix: socketFile}); err != nil {
				t.Fatal(err)
			}
			if _, err := Dial(t.Context(), dir); err == nil || !strings.Contains(err.Error(), c.like) {
				t.Errorf("Dial: %v, expected %q", err, c.like)
			}
		})
	}
}

// A passcode file that is a symbolic link to nothing, as when a medium is missing, is refused by the door and by its
// client with the names of both and the remedy, and nothing is made where it leads. A door that is open closes.
func TestPasscodeLinkToNothing(t *testing.T) {
	dir := stateDir(t)
	path, target := filepath.Join(dir, passcodeFile), filepath.Join(dir, "medium")
	if err := os.WriteFile(target, []byte("correct-horse-battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Skip("skipped: no symbolic links:", err)
	}
	d, err := openOnly(t, dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	_, dialErr := Dial(t.Context(), dir)
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	_, openErr := openOnly(t, dir, "127.0.0.1:0")
	for what, err := range map[string]error{"Dial": dialErr, "Open": openErr, "CheckPasscode": CheckPasscode(dir)} {
		if err == nil || !strings.Contains(err.Error(), path+" is a symbolic link to "+target) || !strings.Contains(err.Error(), "remove the link") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("where the link leads: %v", err)
	}
}

// Why a door does not close in good order is reported once: as the error of Serve, and not in the log too.
func TestCloseErrorOnce(t *testing.T) {
	var out bytes.Buffer
	dir := stateDir(t)
	d, err := Open(Config{
		Store: openStore(t, t.TempDir()), StateDir: dir, Listen: "127.0.0.1:0",
		Inbox: "accounts_in", Exchanges: []string{"to_creditors"}, Log: slog.New(slog.NewTextHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, passcodeFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = d.Serve(ctx)
	if err == nil || strings.Count(err.Error(), "is not a passcode") != 1 {
		t.Errorf("Serve: %v, expected the passcode file once", err)
	}
	if strings.Contains(out.String(), "passcode") {
		t.Errorf("the log reports it, too: %s", &out)
	}
}

// The door never listens on addresses that other machines can reach.
func TestListen(t *testing.T) {
	for _, c := range []struct {
		listen string
		want   error // nil: it opens
		like   string
	}{
		{"127.0.0.1:0", nil, ""},
		{"localhost:0", nil, ""},
		{"none", nil, ""},
		{"", nil, ""},
		{"0.0.0.0:0", errNotLoopback, `"0.0.0.0:0", which other machines could reach`},
		{":0", errNotLoopback, "expected an address like 127.0.0.1:61613"},
		{"[::]:0", errNotLoopback, ""},
		{"192.0.2.1:0", errNotLoopback, ""},
		{"127.0.0.1", errors.ErrUnsupported, "missing port"},
		{"127.0.0.1:http?", errors.ErrUnsupported, "expected an address like"},
	} {
		t.Run(c.listen, func(t *testing.T) {
			dir := stateDir(t)
			d, err := openOnly(t, dir, c.listen)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range d.Addrs() {
					if tcp, ok := a.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
						t.Errorf("the door listens on %v", a)
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.like) || c.want == errNotLoopback && !errors.Is(err, c.want) {
				t.Fatalf("Open: %v, expected %q", err, c.like)
			}
			if _, err := os.Stat(filepath.Join(dir, socketFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the Unix socket is left behind (%v)", err)
			}
		})
	}
}

// Only the owner can connect to the socket. A socket left by a crash is replaced. One
// in use, and a file that is not a socket, are kept.
func TestUnixSocket(t *testing.T) {
	dir := stateDir(t)
	path := filepath.Join(dir, socketFile)
	crashed, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	crashed.(*net.UnixListener).SetUnlinkOnClose(false)
	crashed.Close()
	d, err := openOnly(t, dir, "")
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v (%v), expected 0600", info.Mode(), err)
	}
	if _, err := openOnly(t, dir, ""); !errors.Is(err, errInUse) {
		t.Errorf("second door: %v, expected %v", err, errInUse)
	}
	if nc, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first door is gone: %v", err)
	} else {
		nc.Close()
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openOnly(t, dir, ""); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("with a file in the way: %v", err)
	}
	if content, _ := os.ReadFile(path); string(content) != "precious" {
		t.Errorf("the file has become %q", content)
	}
}

// If the path is too long for a Unix socket, there is TCP only. Without TCP, Open
// fails.
func TestLongPath(t *testing.T) {
	dir := filepath.Join(stateDir(t), strings.Repeat("d", socket.MaxPath))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openOnly(t, dir, "none"); err == nil || !strings.Contains(err.Error(), "at most 103 are possible") {
		t.Errorf("without TCP: %v", err)
	}
	d, err := openOnly(t, dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx) }()
	c, err := Dial(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// An incomplete configuration is refused.
func TestConfig(t *testing.T) {
	store := openStore(t, t.TempDir())
	for _, c := range []struct {
		cfg  Config
		like string
	}{
		{Config{Inbox: "i", Exchanges: []string{"e"}}, "no Store"},
		{Config{Store: store, Exchanges: []string{"e"}}, "no Inbox"},
		{Config{Store: store, Inbox: "i"}, "no Exchanges"},
		{Config{Store: store, Inbox: "i", Exchanges: []string{"e"}, StateDir: filepath.Join(stateDir(t), "absent")}, "no such file"},
	} {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.like) {
			t.Errorf("Open: %v, expected %q", err, c.like)
		}
	}
}
