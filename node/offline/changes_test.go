package offline

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
)

// shown returns everything that is shown of a request on the offline machine.
func shown(r *Request) string {
	var text strings.Builder
	for _, i := range r.Summary() {
		text.WriteString(i.String() + "\n")
		for _, row := range i.Details(time.Now()) {
			text.WriteString(row[0] + " " + row[1] + "\n")
		}
	}
	return text.String()
}

// Every change of what the root key will sign changes what is shown on the offline
// machine, and is among the differences from what was signed last.
func TestNothingIsSignedUnseen(t *testing.T) {
	self := nodetest.New(t, ca, "self.example.com:1234")
	const honest = "servers = [\"self.example.com:1234\"]\nhost = \"/\"\ndestination = \"/exchange/creditors_in/${NODE_ID}\"\nlogin = \"me\"\npasscode = \"x\"\naccepted-content-types = [\"application/json\"]\ninfo-bundle-urls = [\"https://example.com/b.zip\"]\n"
	request := func(stomp, other string) *Request {
		t.Helper()
		writeFileT(t, stomp, self.Path(), "nodeinfo", "stomp.toml")
		writeFileT(t, other, self.Path(), "nodeinfo", "other.txt")
		r := mustCollect(t, self.Dir, InfoBundle{File: t.TempDir() + "/b.zip"})
		if err := Forget(ctx, self.Dir, r.ID); err != nil {
			t.Fatal(err)
		}
		return r
	}
	offlineCopy := nodetest.NewWithKey(t, t.TempDir(), ca, "self.example.com:1234", self.Key)
	signed := request(honest, "other")
	if since, changes, err := signed.Changes(offlineCopy.Dir, time.Now()); err != nil || !strings.Contains(since, offlineCopy.Path()) || len(changes) == 0 {
		t.Errorf("before the first signature: since %q, %v, %v", since, changes, err)
	}
	if err := signed.RecordSigned(ctx, offlineCopy.Dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what, from, to string
		wantShown      string // "" if the value must not be shown
	}{
		{"servers", "self.example.com:1234", "evil.example.com:666", "evil.example.com:666"},
		{"host", `host = "/"`, `host = "/evil"`, `"/evil"`},
		{"destination", "creditors_in/${NODE_ID}", "creditors_in/evil", `creditors_in/evil"`},
		{"login", `"me"`, `"evil"`, `"evil"`},
		{"login", "login = \"me\"\n", "", ""},
		{"passcode", `passcode = "x"`, `passcode = "evil"`, ""},
		{"accepted-content-types", `"application/json"`, `"evil/type"`, `"evil/type"`},
		{"info-bundle-urls", "https://example.com/", "https://evil.example.com/", "https://evil.example.com/b.zip"},
		{"the file stomp.toml", honest, honest + "future-key = 1\n", "SHA-256"},
		{"the file other.txt", "other", "evil", "SHA-256"},
	} {
		stomp, other := honest, "other"
		if tt.from == "other" {
			other = tt.to
		} else {
			stomp = strings.Replace(honest, tt.from, tt.to, 1)
		}
		evil := request(stomp, other)
		if got := shown(evil); got == shown(signed) || !strings.Contains(got, tt.wantShown) || strings.Contains(got, `passcode "`) {
			t.Errorf("%s: the offline machine shows\n%s", tt.what, got)
		}
		since, changes, err := evil.Changes(offlineCopy.Dir, time.Now())
		if err != nil || !strings.Contains(since, "last signed here") {
			t.Errorf("%s: since %q, %v", tt.what, since, err)
		}
		found := false
		for _, c := range changes {
			found = found || c.What == tt.what && strings.Contains(c.String(), tt.wantShown)
		}
		if !found {
			t.Errorf("%s is not among the differences %v", tt.what, changes)
		}
	}
	if _, changes, err := signed.Changes(offlineCopy.Dir, time.Now()); err != nil || len(changes) != 0 {
		t.Errorf("an unchanged request has the differences %v, %v", changes, err)
	}
}

// A request is refused if the date of its info-bundle is invalid, or more than a day
// ahead: after such a date, peers would refuse later info-bundles.
func TestDatesAheadAreRefused(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for date, good := range map[string]bool{
		"2026-11-28": true, "2026-11-28T120000": true, "2026-11-29": true, "2020-01-01": true, "2026-11-28T120000.123456": true,
		"2026-11-30": false, "2026-11-29T120001": false, "2026-11-29T235959": false, "2126-11-28": false, "~~~~": false, "9": false, "2026-11-28~": false, "2026-11-28T~": false, "": false,
	} {
		if err := infobundle.CheckDate(date, now); (err == nil) != good {
			t.Errorf("CheckDate(%q): got error %v, want valid %v", date, err, good)
		}
	}
	self := nodetest.New(t, ca, "self.example.com:1234")
	r := mustCollect(t, self.Dir, InfoBundle{File: t.TempDir() + "/b.zip"})
	var f requestFile
	if err := decode(r.raw, requestFormat, &f, &f.header); err != nil {
		t.Fatal(err)
	}
	for i, n := range f.InfoBundle.Nodeinfo {
		if n.Name == infobundle.UpdatedAt {
			f.InfoBundle.Nodeinfo[i].Data = []byte("2126-01-01\n")
		}
	}
	data, err := encode(&f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRequest(data, time.Now()); err == nil || !strings.Contains(err.Error(), "more than a day ahead") {
		t.Errorf("a century ahead: %v", err)
	}
}

// An info-bundle that is made on the offline machine has a later date than the last one that was
// signed there for a request, although the directory there does not have that date, and the
// differences from that one are known. If the record of it cannot be read, no info-bundle is
// made.
func TestBundleAfterRequest(t *testing.T) {
	n := nodetest.New(t, ca, "old.example.com:1")
	offlineCopy := copyTree(t, n.Path())
	stomp := filepath.Join(n.Path(), "nodeinfo", "stomp.toml")
	writeFileT(t, strings.Replace(string(readFileT(t, stomp)), "old.", "new.", 1), stomp)
	out := t.TempDir()
	r := mustCollect(t, n.Dir, InfoBundle{File: filepath.Join(out, "one.zip")})
	recordSigned(t, r, offlineCopy)
	files, err := offlineCopy.NextNodeinfo(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	since, changes, err := ChangesSinceSigned(offlineCopy, files, time.Now())
	if text := fmt.Sprint(changes); err != nil || !strings.Contains(since, r.info.date) || !strings.Contains(text, "servers is old.example.com:1, it was new.example.com:1") {
		t.Errorf("since %s: %s, %v", since, text, err)
	}
	two := filepath.Join(out, "two.zip")
	if err := offlineCopy.CreateBundle(ctx, two, n.Key); err != nil {
		t.Fatal(err)
	}
	if got := nodetest.ReadBundle(t, two).UpdatedAt(); got <= r.info.date {
		t.Errorf("the info-bundle has the date %s, want a later one than %s", got, r.info.date)
	}
	writeFileT(t, "{", offlineCopy.Path(), "db", "offline", "last-signed")
	before := snapshot(t, offlineCopy.Path())
	if err := offlineCopy.CreateBundle(ctx, filepath.Join(out, "three.zip"), n.Key); err == nil || !strings.Contains(err.Error(), "last-signed") {
		t.Errorf("error %v for a damaged file", err)
	}
	sameTree(t, offlineCopy.Path(), before)
}

// A list of revoked keys that peers could not read is not signed, and the operator is shown how many keys the info-bundle
// revokes, and each one that is new or no more.
func TestRevokedKeysAreShown(t *testing.T) {
	self := nodetest.New(t, ca, "self.example.com:1234")
	request := func(list string) *Request {
		t.Helper()
		writeFileT(t, list, self.Path(), "nodeinfo", "revoked-keys.txt")
		r := mustCollect(t, self.Dir, InfoBundle{File: t.TempDir() + "/b.zip"})
		if err := Forget(ctx, self.Dir, r.ID); err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, other := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	laptop := nodetest.NewWithKey(t, t.TempDir(), ca, "self.example.com:1234", self.Key)
	before := request(one + "\n")
	if err := before.RecordSigned(ctx, laptop.Dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	after := request(other + "\n")
	if got := shown(after); !strings.Contains(got, "revoked server keys 1\n") {
		t.Errorf("the number of revoked keys is not shown:\n%s", got)
	}
	_, changes, err := after.Changes(laptop.Dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, c := range changes {
		all += c.String() + "\n"
	}
	for _, want := range []string{"the server key " + other + " is new: revoked\n", "the server key " + one + " is no more, it was revoked\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("the differences lack %q:\n%s", want, all)
		}
	}
	for i, f := range after.info.files { // what "request new" does not make
		if f.Name == "revoked-keys.txt" {
			after.info.files[i].Data = []byte(strings.ToUpper(one) + "\n")
		}
	}
	if _, err := Fulfil(after, self.Key, time.Now()); err == nil || !strings.Contains(err.Error(), "revoked-keys.txt: line 1 begins with") {
		t.Errorf("signing a list of revoked keys that can not be read: %v", err)
	}
}
