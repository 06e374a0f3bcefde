package offline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// leaf is a value in a JSON document that contains no other values.
type leaf struct {
	path  string
	value any
	set   func(any)
}

// leaves lists the leaves of a decoded JSON document.
func leaves(path string, v any, set func(any)) (all []leaf) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			all = append(all, leaves(path+"."+k, e, func(x any) { v[k] = x })...)
		}
	case []any:
		for i, e := range v {
			all = append(all, leaves(fmt.Sprintf("%s[%d]", path, i), e, func(x any) { v[i] = x })...)
		}
	default:
		all = append(all, leaf{path, v, set})
	}
	return all
}

// changes returns variants of a file, by the name of the change: in each of them,
// one leaf is altered. T is the file's type, so that the variants have the one form
// that is accepted.
func changes[T any](t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	variants := make(map[string][]byte)
	for _, l := range leaves("", doc, nil) {
		var others []any
		switch v := l.value.(type) {
		case string:
			middle := len(v) / 2
			flipped := byte('A')
			if v[middle] == flipped {
				flipped = 'B'
			}
			digit := "0"
			if strings.HasSuffix(v, digit) {
				digit = "1"
			}
			others = []any{"", v[:middle] + string(flipped) + v[middle+1:], v[:len(v)-1] + digit, v + "0"}
		case float64:
			others = []any{v + 1, -v, 0}
		}
		for i, other := range others {
			l.set(other)
			changed, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			var f T
			if json.Unmarshal(changed, &f) == nil {
				if changed, err = encode(&f); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(changed, data) {
				variants[fmt.Sprintf("%s (%d)", l.path, i)] = changed
			}
		}
		l.set(l.value)
	}
	return variants
}

// If any field of a request is changed in transit, the request is refused by the
// offline machine, or its answer by the online machine, and the node's directory is
// unchanged.
func TestTamperedRequest(t *testing.T) {
	n, items, out := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	before, beforeOut := snapshot(t, n.Path()), snapshot(t, out)
	refusedOnline, refusedOffline := 0, 0
	for name, data := range changes[requestFile](t, r.Encode()) {
		changed, err := ReadRequest(data, time.Now())
		if err != nil {
			if !errors.Is(err, errFormat) && !errors.Is(err, errClock) {
				t.Errorf("%s: %v", name, err)
			}
			refusedOffline++
			continue
		}
		a, err := Fulfil(changed, n.Key, time.Now())
		if err != nil {
			refusedOffline++
			continue
		}
		if _, err := File(ctx, n.Dir, a, time.Now()); !errors.Is(err, errMismatch) && !errors.Is(err, errNotWaiting) {
			t.Errorf("%s: the answer was not refused: %v", name, err)
		}
		// The answer is refused also if the attacker inserts the right hash and ID.
		a.requestHash, a.ID = r.hash(), r.ID
		if !unsigned(name) {
			if _, err := File(ctx, n.Dir, a, time.Now()); !errors.Is(err, errMismatch) {
				t.Errorf("%s: the answer with the right hash was not refused: %v", name, err)
			}
		}
		refusedOnline++
		sameTree(t, n.Path(), before)
		sameTree(t, out, beforeOut)
	}
	if refusedOnline == 0 || refusedOffline == 0 {
		t.Errorf("%d requests refused offline, %d answers refused online, want some of both", refusedOffline, refusedOnline)
	}
}

// A request in which the node's root certificate, or the root key's signing request, has text around it, or
// that has such a signing request and no use for it, is refused: nothing else than the summary shows could be
// in a request that is signed. The text that OpenSSL writes into root-ca.crt is not in a request, and still in
// the info-bundle, because peers compare that file byte by byte.
func TestTextInRequest(t *testing.T) {
	n, items, out := fullRequest(t)
	root := append([]byte("Certificate:\n    Data:\n"), readFileT(t, n.Path(), "root-ca.crt")...)
	writeFileT(t, string(root), n.Path(), "root-ca.crt")
	csr := newRootCSR(t, n)
	writeFileT(t, "Certificate Request:\n"+string(csr), n.Path(), "db", "root-ca.csr")
	d, err := node.Open(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(f *requestFile){
		"text before the root certificate":         func(f *requestFile) { f.Root = append([]byte("x\n"), f.Root...) },
		"an empty line after the root certificate": func(f *requestFile) { f.Root = append(f.Root, '\n') },
		"text before the signing request":          func(f *requestFile) { f.RootCSR = append([]byte("x\n"), f.RootCSR...) },
		"an empty line after the signing request":  func(f *requestFile) { f.RootCSR = append(f.RootCSR, '\n') },
		"a signing request without use":            func(f *requestFile) { f.InfoBundle = nil },
	} {
		var f requestFile
		r := mustCollect(t, d, items...)
		if err := json.Unmarshal(r.Encode(), &f); err != nil {
			t.Fatal(err)
		}
		change(&f)
		data, err := encode(&f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRequest(data, time.Now()); !errors.Is(err, errFormat) || !strings.Contains(err.Error(), "peerlink request forget") {
			t.Errorf("%s: %v", name, err)
		}
		// An earlier version may have stored it: what was signed for it is filed, and compared with, all the same.
		writeFileT(t, string(data), d.Path(), "db", "offline", r.ID+".json")
		if waiting, err := WaitingRequests(d, time.Now()); err != nil || len(waiting) != 1 {
			t.Errorf("%s: %d requests wait, %v", name, len(waiting), err)
		}
		if f.InfoBundle != nil {
			writeFileT(t, string(data), d.Path(), "db", "offline", "last-signed")
			if last, err := lastSigned(d, time.Now()); err != nil || last == nil {
				t.Errorf("%s: last signed: %v", name, err)
			}
		}
		if err := Forget(ctx, d, r.ID); err != nil {
			t.Fatal(err)
		}
	}
	if r := mustCollect(t, d, items[0]); r.rootCSR != nil {
		t.Error("a request without an info-bundle has the root key's signing request")
	}
	r := mustCollect(t, d, items[3])
	mustFile(t, d, signed(t, r, n.Key))
	if b := nodetest.ReadBundle(t, filepath.Join(out, "bundle.zip")); !bytes.Equal(b.RootPEM, root) {
		t.Errorf("the info-bundle has another root-ca.crt:\n%s", b.RootPEM)
	}
}

// What the operator is shown differs if the info-bundle of a new peer is another one that its owner has signed,
// whatever it differs in.
func TestOtherBundleOfPeer(t *testing.T) {
	n, peer := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	shown := make(map[string]string)
	for _, host := range []string{"/", "other", "/\"\nlogin = \"a\"\npasscode = \"b", "/\"\nlogin = \"a\"\npasscode = \"c"} {
		writeFileT(t, "servers = [\"ca.example.com:1234\"]\ndestination = \"/d\"\nhost = \""+host+"\"\n", peer.Path(), "nodeinfo", "stomp.toml")
		r := mustCollect(t, n.Dir, peerCertFor(t, peer))
		item := r.Summary()[0]
		item.Serial, item.Date = "", "" // differ in any case
		delete(item.Hashes, infobundle.UpdatedAt)
		text := fmt.Sprint(item, item.Details(time.Now()))
		if other, ok := shown[text]; ok {
			t.Errorf("%q and %q are shown as the same: %s", host, other, text)
		}
		shown[text] = host
		if err := Forget(ctx, n.Dir, r.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// unsigned reports whether a field of the request has no influence on what is
// signed, so that the answer, with the right hash, has only what was requested. For
// these fields, the online machine uses its own copy of the request. Of a peer's
// info-bundle, only bytes without a meaning can be changed, such as some bytes of
// the zip format.
func unsigned(name string) bool {
	return strings.Contains(name, ".file ") || strings.HasPrefix(name, ".created") || strings.HasPrefix(name, ".id") || strings.Contains(name, ".bundle ")
}

// If any field of an answer is changed in transit, the answer is refused, and
// nothing changes. The original answer is still accepted afterwards.
func TestTamperedAnswer(t *testing.T) {
	n, items, out := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	right := signed(t, r, n.Key)
	before, beforeOut := snapshot(t, n.Path()), snapshot(t, out)
	for name, data := range changes[answerFile](t, right.Encode()) {
		a, err := ReadAnswer(data)
		if err == nil {
			_, err = File(ctx, n.Dir, a, time.Now())
		}
		if !errors.Is(err, errFormat) && !errors.Is(err, errMismatch) && !errors.Is(err, errNotWaiting) {
			t.Errorf("%s: not refused: %v", name, err)
		}
	}
	sameTree(t, n.Path(), before)
	sameTree(t, out, beforeOut)
	mustFile(t, n.Dir, right)
	checkOutputs(t, n.Dir, r)
}

// An answer that the root key has signed, but that differs from what was requested,
// is refused, and nothing changes.
func TestAnswerToAnotherRequest(t *testing.T) {
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	before := snapshot(t, n.Path())
	for name, change := range map[string]func(r *Request){
		"server serial":   func(r *Request) { r.servers[0].serial = r.peers[0].serial },
		"server validity": func(r *Request) { r.servers[0].days += 10 },
		"server key": func(r *Request) {
			r.servers[0].csr, _ = pki.ParseCSRPEM(serverCSR(t, n.Identity()))
		},
		"peer serial": func(r *Request) { r.peers[1].serial = r.servers[0].serial },
		"peer subnet": func(r *Request) { r.peers[0].subnet = "00abcd" },
		"peer": func(r *Request) {
			r.peers[0].bundle = nodetest.ReadBundle(t, nodetest.New(t, ca, "x.example.com:1").Bundle(t))
		},
		"peers exchanged":  func(r *Request) { r.peers[0], r.peers[1] = r.peers[1], r.peers[0] },
		"peer missing":     func(r *Request) { r.peers = r.peers[:1] },
		"server missing":   func(r *Request) { r.servers = nil },
		"bundle missing":   func(r *Request) { r.info = nil },
		"csr missing":      func(r *Request) { r.rootCSR = newRootCSR(t, n) },
		"nodeinfo content": func(r *Request) { r.info.files[0].Data = append(r.info.files[0].Data, '\n') },
		"nodeinfo extra": func(r *Request) {
			r.info.files = append(r.info.files, infobundle.File{Name: "extra.txt", Data: []byte("x")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			changed, err := ReadRequest(r.Encode(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			change(changed)
			a, err := Fulfil(changed, n.Key, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := File(ctx, n.Dir, a, time.Now()); !errors.Is(err, errMismatch) {
				t.Errorf("not refused: %v", err)
			}
			sameTree(t, n.Path(), before)
		})
	}
	stranger, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fulfil(r, stranger, time.Now()); !errors.Is(err, node.ErrWrongKey) {
		t.Errorf("another root key: %v", err)
	}
}

// newRootCSR returns a new certificate signing request of the root key of n, in PEM.
func newRootCSR(t *testing.T, n *nodetest.Node) []byte {
	t.Helper()
	der, err := pki.NewCSR(n.Identity(), n.Key, pki.RootCSR)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCSRPEM(der)
}

// Every content has exactly one encoded form, so that two parsers cannot interpret a
// file differently.
func TestOneForm(t *testing.T) {
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	a := signed(t, r, n.Key)
	readR := func(data []byte) error { _, err := ReadRequest(data, time.Now()); return err }
	readA := func(data []byte) error { _, err := ReadAnswer(data); return err }
	for _, f := range []struct {
		name string
		data []byte
		read func([]byte) error
	}{{"request", r.Encode(), readR}, {"answer", a.Encode(), readA}} {
		if err := f.read(f.data); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("%q: %q", "id", r.ID)
		for name, data := range map[string]string{
			"space at the end":     string(f.data) + " ",
			"no line end":          strings.TrimSuffix(string(f.data), "\n"),
			"other letter case":    strings.Replace(string(f.data), `"id"`, `"ID"`, 1),
			"repeated name":        strings.Replace(string(f.data), id, id+", "+id, 1),
			"unknown name":         strings.Replace(string(f.data), id, id+`, "x": 1`, 1),
			"null":                 strings.Replace(string(f.data), id, id+`, "server_certs": null`, 1),
			"two documents":        string(f.data) + string(f.data),
			"truncated":            string(f.data[:len(f.data)/2]),
			"empty":                "",
			"later version":        strings.Replace(string(f.data), `"version": 1`, `"version": 2`, 1),
			"the other one's name": strings.NewReplacer("signing request", "signing answer", "signing answer", "signing request").Replace(string(f.data)),
		} {
			if err := f.read([]byte(data)); !errors.Is(err, errFormat) {
				t.Errorf("%s, %s: %v", f.name, name, err)
			}
		}
		if err := f.read(make([]byte, MaxSize+1)); !errors.Is(err, errFormat) {
			t.Errorf("%s, too large: %v", f.name, err)
		}
	}
}

// fuzzSeed makes a request and its answer.
func fuzzSeed(f *testing.F) (request, answer []byte) {
	n, items, _ := fullRequest(f)
	r := mustCollect(f, n.Dir, items...)
	return r.Encode(), signed(f, r, n.Key).Encode()
}

// An accepted request is encoded to the same bytes again, and its summary is safe to
// show on a terminal.
func FuzzReadRequest(f *testing.F) {
	request, answer := fuzzSeed(f)
	f.Add(request)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r *Request
		var err error
		costtest.Check(t, "a request", func() { r, err = ReadRequest(data, time.Now()) })
		if err != nil {
			if !errors.Is(err, errFormat) && !errors.Is(err, errClock) {
				t.Errorf("error %v", err)
			}
			return
		}
		if !bytes.Equal(r.Encode(), data) {
			t.Error("Encode returns other bytes than those read")
		}
		for _, i := range r.Summary() {
			if strings.ContainsFunc(i.String(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("control character in %q", i)
			}
		}
	})
}

// An accepted answer is encoded to the same bytes again.
func FuzzReadAnswer(f *testing.F) {
	request, answer := fuzzSeed(f)
	f.Add(request)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, data []byte) {
		var a *Answer
		var err error
		costtest.Check(t, "an answer", func() { a, err = ReadAnswer(data) })
		if err != nil {
			if !errors.Is(err, errFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		if !bytes.Equal(a.Encode(), data) {
			t.Error("Encode returns other bytes than those read")
		}
	})
}

// A file name with characters that a terminal would interpret is refused, so that no
// summary contains it.
func TestPathsAreSafe(t *testing.T) {
	n := nodetest.New(t, aa, "aa.example.com:1234")
	for _, name := range []string{"", "a\x1b[2Jb", "a\nb", "a\u202eb", "a\xffb", strings.Repeat("a", maxPath+1)} {
		path := name
		if name != "" {
			path = filepath.Join(os.TempDir(), name)
		}
		if _, err := Collect(ctx, n.Dir, []Requested{InfoBundle{File: path}}, time.Now()); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
}
