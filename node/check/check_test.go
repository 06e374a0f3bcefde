package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetype"
)

// A check of a directory that peerlink has made finds nothing, not even a note.
func TestHealthy(t *testing.T) {
	w := newWorld(t)
	for _, kind := range nodetype.All {
		r := w.copy(t, kind).check(check.Options{})
		if len(r.Findings) > 0 {
			t.Errorf("%v: findings:%s", kind, list(r))
		}
		if r.ID != w.ids[kind] || r.Type != kind.String() || len(r.Expiries) == 0 || len(r.Peers) == 0 {
			t.Errorf("%v: report is %+v", kind, r)
		}
	}
}

// The variations of the directories that existing nodes have are no problems.
func TestVariations(t *testing.T) {
	w := newWorld(t)
	every := func(f *fixture, change func(string) string, suffixes ...string) {
		f.must(filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !slices.Contains(suffixes, filepath.Ext(path)) {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(change(string(data))), 0o644) // keeps the mode
		}))
	}
	peercert := "peers/" + w.ids[ca] + "/peercert.crt"
	for _, tt := range []struct {
		name  string
		kind  nodetype.Type
		do    func(f *fixture)
		rules []check.Rule // of the findings, which are no problems
	}{
		{"a server's directory, without private/", aa, func(f *fixture) { f.remove("private") }, nil},
		{"human-readable dumps", aa, func(f *fixture) {
			every(f, func(s string) string { return "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + s }, ".crt", ".pem")
		}, nil},
		{"CRLF that OpenSSL ignores", aa, func(f *fixture) {
			crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
			every(f, crlf, ".crt", ".csr", ".pem", ".key", ".toml", ".conf", ".attr")
			f.write("db/serial", crlf(f.read("db/serial")))
		}, nil},
		{"no line ends", ca, func(f *fixture) {
			every(f, func(s string) string { return strings.TrimSuffix(s, "\n") }, ".crt", ".txt", "")
		}, nil},
		{"extended key usages in peer certificates", aa, func(f *fixture) { f.reissue(peercert, set(extKeyUsage, sequence(clientAuth, serverAuth))) }, nil},
		{"keyUsage without cRLSign", aa, func(f *fixture) { f.reissue("root-ca.crt", set(keyUsage, certSignOnly)) }, nil},
		{"root without pathlen", aa, func(f *fixture) { f.reissue("root-ca.crt", set(basicConstraints, caNoPathLen)) }, nil},
		{"the reference's empty comment", ca, func(f *fixture) { f.reissue("peers/"+w.ids[aa]+"/peercert.crt", comment("")) }, nil},
		{"the year 3025", aa, func(f *fixture) {
			f.reissue(peercert, func(r *recipe) { r.NotAfter = time.Date(3025, 2, 3, 4, 5, 6, 0, time.UTC) })
		}, nil},
		{"a debtors subnet of 12 digits", aa, func(f *fixture) {
			subnet := w.ids[aa] + "0011"
			f.reissue("peers/"+w.ids[da]+"/peercert.crt", comment("Subnet: "+subnet))
			f.write("peers/"+w.ids[da]+"/subnet.txt", subnet+"\n")
			f.rename("db/subnets/debtors/"+w.ids[aa]+"00", "db/subnets/debtors/"+subnet)
		}, nil},
		{"traces of OpenSSL, Git and Kustomize", aa, func(f *fixture) {
			for _, file := range []string{"db/index.old", "db/serial.old", "db/index.attr.old", "peers/kustomization.yaml", "peers/.gitignore",
				"private/README.md", "private/random", "nodeinfo/docs/about.txt", "nodeinfo/stomp.toml~", "nodeinfo/Thumbs.db", ".git/objects/x"} {
				f.write(file, "x")
			}
			index := f.read("db/index")
			f.write("db/index", "E"+index[1:])
		}, nil},
		{"an encrypted copy of the root key", aa, func(f *fixture) { f.write("backup/root-ca.key", f.read("private/root-ca.key")) }, nil},
		{"reached through a link", aa, func(f *fixture) {
			link := f.dir + "-link"
			if err := os.Symlink(f.dir, link); err != nil {
				f.Skipf("skipped: no symbolic links here: %v", err)
			}
			f.dir = link
		}, nil},
		{"an expired server certificate with another fault", ca, func(f *fixture) {
			f.reissue(f.serverCopy(), func(r *recipe) {
				r.NotBefore, r.NotAfter = time.Now().Add(-400*day), time.Now().Add(-day)
				drop(extKeyUsage)(r)
			})
			f.issueServer()
		}, nil},
		{"no queues.txt, as made by earlier versions", ca, func(f *fixture) { f.remove("peers/" + w.ids[aa] + "/queues.txt") }, nil},
		{"a clone, without empty folders and copies", aa, func(f *fixture) { f.remove("certs") }, []check.Rule{check.RuleCopyMissing, check.RuleIncomplete}},
		{"deactivated", ca, func(f *fixture) { f.write("peers/"+w.ids[aa]+"/DEACTIVATED", "2024-10-13\n") }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := w.copy(t, tt.kind)
			tt.do(f)
			if got := rules(f.check(check.Options{}), check.Note); !slices.Equal(got, tt.rules) {
				t.Errorf("rules %v, want %v:%s", got, tt.rules, list(f.check(check.Options{})))
			}
		})
	}
}

// Run returns node.ErrNotNode only for a directory that is missing or has nothing of
// a node.
func TestNotNode(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if r, err := check.Run(ctx, dir, check.Options{}); !errors.Is(err, node.ErrNotNode) || r != nil {
			t.Errorf("got report %v, error %v, want no report and node.ErrNotNode", r, err)
		}
	}
}

// If its context is cancelled, Run returns the context's error and no report.
func TestCancelled(t *testing.T) {
	f := newWorld(t).copy(t, aa)
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if r, err := check.Run(ctx, f.dir, check.Options{}); !errors.Is(err, context.Canceled) || r != nil {
		t.Errorf("got report %v, error %v, want no report and context.Canceled", r, err)
	}
}

// If any single file is removed or damaged, the report has a finding about it, and
// still covers the rest of the directory. Checking changes no file.
func TestAnyFileBroken(t *testing.T) {
	w := newWorld(t)
	// These files may be missing, or only their presence matters.
	harmless := map[string]bool{".gitignore": true, "ACTIVE": true, "queues.txt": true, "updated-at.txt": true, "root-ca.csr": true, "root-ca.key": true, "crlnumber": true, "info-bundle.zip": true}
	// Half of the content of these files may be valid as well.
	divisible := map[string]bool{"serial": true, "SEQNUM": true, "root-ca.conf": true}
	damages := map[string]func(f *fixture, file string){
		"removed":          func(f *fixture, file string) { f.remove(file) },
		"emptied":          func(f *fixture, file string) { f.write(file, "") },
		"cut in half":      func(f *fixture, file string) { s := f.read(file); f.write(file, s[:len(s)/2]) },
		"zeroed":           func(f *fixture, file string) { f.write(file, strings.Repeat("\x00", len(f.read(file)))) },
		"made a folder":    func(f *fixture, file string) { f.remove(file); f.must(os.Mkdir(f.path(file), 0o755)) },
		"made a dead link": func(f *fixture, file string) { f.remove(file); f.must(os.Symlink("nowhere", f.path(file))) },
	}
	for damage, do := range damages {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			f := w.copy(t, aa)
			for _, file := range f.files() {
				old := f.read(file)
				do(f, file)
				before := f.snapshot()
				r := f.check(check.Options{})
				name := filepath.Base(file)
				if len(r.Findings) == 0 && !harmless[name] && !(divisible[name] && damage == "cut in half") {
					t.Errorf("the report has no finding about %s", file)
				}
				if len(r.Peers) != 2 {
					t.Errorf("%s: the report covers %d peers, want 2", file, len(r.Peers))
				}
				if after := f.snapshot(); after != before {
					t.Errorf("%s: checking has changed the directory", file)
				}
				f.remove(file)
				f.write(file, old)
				if strings.HasPrefix(file, "private/") {
					f.chmod(file, 0o600)
				}
			}
			if r := f.check(check.Options{}); len(r.Findings) > 0 {
				t.Errorf("the test has not restored everything:%s", list(r))
			}
		})
	}
}

// Repair removes the causes of all findings that are marked as repairable, and of no
// others.
func TestRepairable(t *testing.T) {
	w := newWorld(t)
	f := w.copy(t, aa)
	for _, file := range []string{"db/serial", "db/index", "db/index.attr", "db/crlnumber", "root-ca.conf", "db/subnets/debtors/SEQNUM"} {
		f.remove(file)
	}
	f.write("db/subnets/debtors/"+w.ids[aa]+"09", strings.Repeat("0", 32)+"\n")
	f.write("certs/.AB.pem.tmp-77", "x")
	f.write("db/nodeid", w.ids[aa]) // valid also without a line end
	f.write("peers/"+w.ids[ca]+"/queues.txt", "0\n")
	before := f.check(check.Options{})
	repairable := 0
	for _, finding := range before.Findings {
		if finding.Repairable {
			repairable++
		}
	}
	if repairable != 8 {
		t.Errorf("%d findings are repairable, want 8:%s", repairable, list(before))
	}
	d, err := node.Open(f.dir)
	f.must(err)
	done, err := d.Repair(ctx)
	f.must(err)
	if len(done) != repairable {
		t.Errorf("repaired %q, want %d repairs", done, repairable)
	}
	if after := f.check(check.Options{}); !slices.Equal(rules(after, check.Note), []check.Rule{check.RulePeerQueues}) {
		t.Errorf("after the repair:%s", list(after))
	}
}

// The report names a peer's state, and the command that has to run next.
func TestPeerStates(t *testing.T) {
	w := newWorld(t)
	folder := "peers/" + w.ids[aa] + "/"
	for _, tt := range []struct {
		state, waitingFor string
		do                func(f *fixture)
	}{
		{"active", "", func(f *fixture) {}},
		{"registered", "peerlink serve", func(f *fixture) { f.remove(folder + "ACTIVE") }},
		{"signed", "peerlink peer register", func(f *fixture) { f.remove(folder + "ACTIVE"); f.remove(folder + "sub-ca.crt") }},
		{"deactivated", "", func(f *fixture) { f.write(folder+"DEACTIVATED", "") }},
	} {
		f := w.copy(t, ca)
		tt.do(f)
		r := f.check(check.Options{})
		p := r.Peers[0]
		if p.ID != w.ids[aa] || p.Type != "accounting-authority" || p.State != tt.state || p.Problems != 0 {
			t.Errorf("%s: %+v", tt.state, p)
		}
		if !strings.Contains(p.WaitingFor, tt.waitingFor) || (p.WaitingFor == "") != (tt.waitingFor == "") {
			t.Errorf("%s: waiting for %q, want %q", tt.state, p.WaitingFor, tt.waitingFor)
		}
		// The expiry of a deactivated peer's certificates is not reported.
		listed := slices.ContainsFunc(r.Expiries, func(e check.Expiry) bool { return strings.HasPrefix(e.What, folder) })
		if listed != (tt.state != "deactivated") {
			t.Errorf("%s: the expiry of the peer's certificates is reported: %v, want %v", tt.state, listed, !listed)
		}
	}
}

// The expiry of a certificate is reported at 60, 30, 7 and 1 days before, and an
// expired certificate is a problem.
func TestExpiries(t *testing.T) {
	f := newWorld(t).copy(t, ca)
	file := f.serverCopy()
	end := f.cert(file).NotAfter
	for _, tt := range []struct {
		before       time.Duration
		left, within int
		rules        []check.Rule
	}{
		{61 * day, 61, 0, nil},
		{61*day - time.Second, 60, 60, []check.Rule{check.RuleExpiry}},
		{31 * day, 31, 60, []check.Rule{check.RuleExpiry}},
		{30 * day, 30, 30, []check.Rule{check.RuleExpiry}},
		{7 * day, 7, 7, []check.Rule{check.RuleExpiry}},
		{time.Hour, 0, 1, []check.Rule{check.RuleExpiry}},
		{-time.Hour, -1, 1, []check.Rule{check.RuleDates}},
	} {
		r := f.check(check.Options{Now: end.Add(-tt.before)})
		want := check.Expiry{What: file, NotAfter: end.UTC(), DaysLeft: tt.left, WithinDays: tt.within}
		if r.Expiries[0] != want {
			t.Errorf("%v before: got %+v, want %+v", tt.before, r.Expiries[0], want)
		}
		if got := rules(r, check.Note); !slices.Equal(got, tt.rules) {
			t.Errorf("%v before: rules %v, want %v", tt.before, got, tt.rules)
		}
		if !slices.IsSortedFunc(r.Expiries, func(a, b check.Expiry) int { return a.NotAfter.Compare(b.NotAfter) }) {
			t.Errorf("the expiries are not sorted: %+v", r.Expiries)
		}
	}
}

// Server certificates outside of the directory are checked with their keys.
func TestServerFiles(t *testing.T) {
	w := newWorld(t)
	f := w.copy(t, ca)
	cert, key := f.issueServer()
	write := func(content string, mode fs.FileMode) string {
		path := filepath.Join(t.TempDir(), "server.key")
		f.must(os.WriteFile(path, []byte(content), mode))
		return path
	}
	encrypted, err := os.ReadFile(f.path("private/root-ca.key"))
	f.must(err)
	foreign := f.path("peers/" + w.ids[aa] + "/peercert.crt")
	for _, tt := range []struct {
		name      string
		cert, key string
		rules     []check.Rule
	}{
		{"good", cert, key, nil},
		{"without key", cert, "", nil},
		{"no certificate", cert + "x", key, []check.Rule{check.RuleCertMissing}},
		{"no key", cert, key + "x", []check.Rule{check.RuleServerKey}},
		{"another key", cert, write(encodeKey(t, otherKey(t)), 0o600), []check.Rule{check.RuleServerKey}},
		{"an encrypted key", cert, write(string(encrypted), 0o600), []check.Rule{check.RuleServerKey}},
		{"a key file without a key", cert, write("x", 0o600), []check.Rule{check.RuleServerKey}},
		{"a key that all users can read", cert, write(encodeKey(t, otherKey(t)), 0o644), []check.Rule{check.RuleServerKey, check.RuleKeyMode}},
		{"certificate and key in one file", key, key, []check.Rule{check.RuleCertPEM}},
		{"a peer certificate", foreign, "", []check.Rule{check.RuleBasicConstraints, check.RuleExtKeyUsage, check.RuleKeyUsage, check.RuleLifetime, check.RuleSubject}},
	} {
		r := f.check(check.Options{Servers: []check.ServerFiles{{Cert: tt.cert, Key: tt.key}}})
		if got := rules(r, check.Note); !slices.Equal(got, slices.Sorted(slices.Values(tt.rules))) {
			t.Errorf("%s: rules %v, want %v:%s", tt.name, got, tt.rules, list(r))
		}
	}
}

// If the options name the file of the root key, this file is checked, and has to
// exist.
func TestKeyFile(t *testing.T) {
	w := newWorld(t)
	f := w.copy(t, ca)
	f.remove("private")
	path := filepath.Join(t.TempDir(), "usb-stick.key")
	f.must(os.WriteFile(path, []byte(encodeKey(t, w.keys[w.ids[ca]])), 0o600))
	r := f.check(check.Options{KeyFile: path})
	if len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0].String(), "problem: "+path+": is not encrypted") {
		t.Errorf("findings:%s", list(r))
	}
	f.must(os.Remove(path))
	r = f.check(check.Options{KeyFile: path})
	if len(r.Findings) != 1 || !strings.HasPrefix(r.Findings[0].String(), "problem: "+path+": can not be read") {
		t.Errorf("with a missing key file: findings:%s", list(r))
	}
}

// No report quotes a private key, wherever the key is.
func TestNoSecretsInReports(t *testing.T) {
	w := newWorld(t)
	f := w.copy(t, ca)
	secret := encodeKey(t, w.keys[w.ids[ca]])
	body := strings.Split(secret, "\n")[1]
	for _, file := range []string{"private/root-ca.key", "root-ca.conf", "db/index", "db/nodeid", "db/serial", "db/index.attr", "creditors-subnet.txt",
		"nodeinfo/key.pem", "nodeinfo/stomp.toml", "peers/" + w.ids[aa] + "/root-ca.crt", "peers/" + w.ids[aa] + "/queues.txt"} {
		f.write(file, secret)
	}
	r := f.check(check.Options{})
	data, err := json.Marshal(r)
	f.must(err)
	for i := 0; i+16 <= len(body); i += 16 {
		if strings.Contains(string(data), body[i:i+16]) {
			t.Fatalf("the report quotes the key: %s", data)
		}
	}
	if !slices.Contains(rules(r, check.Problem), check.RuleKeyEncrypted) {
		t.Errorf("the report has no finding about the key:%s", list(r))
	}
}

// The JSON form of reports, which programs parse, keeps its names, and its lists are
// never null.
func TestJSON(t *testing.T) {
	f := newWorld(t).copy(t, ca)
	f.remove("private")
	f.remove("db/crlnumber")
	f.remove("peers/" + newWorld(t).ids[aa])
	f.remove("certs")
	f.must(os.Mkdir(f.path("certs"), 0o755))
	f.write("db/index", "")
	r := f.check(check.Options{})
	r.ID = "x"
	for i := range r.Expiries {
		r.Expiries[i].NotAfter = time.Date(3025, 1, 2, 3, 4, 5, 0, time.UTC)
		r.Expiries[i].DaysLeft = 1
	}
	got, err := json.Marshal(r)
	f.must(err)
	const want = `{"id":"x","type":"creditors-agent","findings":[` +
		`{"severity":"warning","rule":"file.missing","subject":"db/crlnumber","text":"is missing: \"peerlink init\" repairs this","repairable":true},` +
		`{"severity":"warning","rule":"index.unlisted","subject":"root-ca.crt","text":"TEXT"}],` +
		`"peers":[],"expiries":[{"what":"root-ca.crt","not_after":"3025-01-02T03:04:05Z","days_left":1}]}`
	text, err := json.Marshal(r.Findings[1].Text)
	f.must(err)
	if string(got) != strings.Replace(want, `"TEXT"`, string(text), 1) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
