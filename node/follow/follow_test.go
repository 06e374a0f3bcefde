package follow

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// site is a node with a web server on loopback that serves the node's info-bundle
// and other responses.
type site struct {
	*httptest.Server
	mux  *http.ServeMux
	node *nodetest.Node
	data []byte // of the info-bundle
}

func newSite(t *testing.T, start func(http.Handler) *httptest.Server) *site {
	t.Helper()
	s := &site{mux: http.NewServeMux(), node: nodetest.New(t, nodetype.AccountingAuthority, "a.example.com:1")}
	s.data = bundleOf(t, s.node)
	s.Server = start(s.mux)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	s.serve("/bundle", s.data)
	return s
}

func bundleOf(t *testing.T, n *nodetest.Node) []byte {
	t.Helper()
	data, err := os.ReadFile(n.Bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (s *site) handle(path string, do func(w http.ResponseWriter, r *http.Request)) {
	s.mux.HandleFunc(path, do)
}

func (s *site) serve(path string, data []byte) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
}

func (s *site) redirect(path, to string) {
	s.handle(path, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	})
}

// endless sends one piece repeatedly, until the client closes the connection.
func endless(w io.Writer, piece []byte) {
	for {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// Whatever a server does, Fetch ends within its limits, and returns either a valid
// bundle of the pinned node or an error that describes the cause.
func TestFetch(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	secure := newSite(t, httptest.NewTLSServer)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	tampered := bytes.Clone(s.data)
	tampered[len(tampered)/2] ^= 1

	s.serve("/tampered", tampered)
	s.serve("/cut", s.data[:len(s.data)-1])
	s.serve("/other", bundleOf(t, nodetest.New(t, nodetype.AccountingAuthority, "b.example.com:1")))
	s.serve("/empty", nil)
	s.serve("/page", []byte("<html>"))
	s.redirect("/moved", "/bundle")
	s.redirect("/loop", "/loop")
	s.redirect("/elsewhere", "http://localhost:"+port+"/bundle")
	s.redirect("/otherport", secure.URL[:strings.LastIndex(secure.URL, ":")]+":1/bundle")
	s.redirect("/file", "file:///etc/passwd")
	s.redirect("/user", strings.Replace(s.URL, "://", "://me:secret@", 1)+"/bundle")
	s.redirect("/up", secure.URL+"/bundle-of-s")
	secure.serve("/bundle-of-s", s.data)
	secure.redirect("/down", s.URL+"/bundle")
	s.handle("/missing", http.NotFound)
	s.handle("/unchanged", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	s.handle("/part", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusPartialContent)
		w.Write(s.data)
	})
	s.handle("/endless", func(w http.ResponseWriter, _ *http.Request) { endless(w, make([]byte, 1<<16)) })
	s.handle("/announced", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(infobundle.MaxSize+1))
	})
	s.handle("/headers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
	})
	s.handle("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s.handle("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(s.data)))
		w.Write(s.data[:10])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s.handle("/bomb", func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "" {
			t.Errorf("got the request header Accept-Encoding: %q, want none", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(make([]byte, 64<<20))
		z.Close()
	})
	s.handle("/rude", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })

	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	quick := 200 * time.Millisecond
	for _, tt := range []struct {
		name, from string
		maxTime    time.Duration
		want       error  // nil for success, or any error with the text
		text       string // part of the error
	}{
		{"valid bundle", s.URL + "/bundle", 0, nil, ""},
		{"by name", "http://localhost:" + port + "/bundle", 0, nil, ""},
		{"redirect on the same server", s.URL + "/moved", 0, nil, ""},
		{"redirect to https", s.URL + "/up", 0, nil, ""},
		{"redirect for ever", s.URL + "/loop", 0, errRedirect, "5 times"},
		{"redirect to another host", s.URL + "/elsewhere", 0, errRedirect, "localhost"},
		{"redirect to another port", s.URL + "/otherport", 0, nil, "refused"}, // https on the same host may be anywhere
		{"redirect to a file", s.URL + "/file", 0, errRedirect, "file"},
		{"redirect with a password", s.URL + "/user", 0, errRedirect, ""},
		{"redirect to http", secure.URL + "/down", 0, errRedirect, "http://"},
		{"another node's", s.URL + "/other", 0, errOtherNode, "pinned"},
		{"another node's, https", secure.URL + "/bundle", 0, errOtherNode, ""},
		{"tampered", s.URL + "/tampered", 0, infobundle.ErrInvalid, ""},
		{"cut", s.URL + "/cut", 0, infobundle.ErrInvalid, ""},
		{"empty", s.URL + "/empty", 0, infobundle.ErrInvalid, ""},
		{"a page", s.URL + "/page", 0, infobundle.ErrInvalid, ""},
		{"missing", s.URL + "/missing", 0, errStatus, "404"},
		{"unchanged without having been asked", s.URL + "/unchanged", 0, errStatus, "304"},
		{"a part", s.URL + "/part", 0, errStatus, "206"},
		{"endless", s.URL + "/endless", 0, errTooLarge, ""},
		{"too large by its Content-Length", s.URL + "/announced", 0, errTooLarge, strconv.Itoa(infobundle.MaxSize + 1)},
		{"endless headers", s.URL + "/headers", 0, nil, "header"},
		{"silent", s.URL + "/silent", quick, nil, "not complete within 200ms"},
		{"slow", s.URL + "/slow", quick, nil, "not complete within 200ms"},
		{"gzip bomb", s.URL + "/bomb", 0, infobundle.ErrInvalid, ""},
		{"cut off", s.URL + "/rude", 0, nil, "EOF"},
		{"no server", "http://127.0.0.1:1/", 0, nil, "refused"},
		{"another scheme", "file:///etc/passwd", 0, nil, "unsupported protocol"},
		{"invalid URL", "http://[", 0, nil, "missing ']'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Fetcher{AllowLocal: true, maxTime: tt.maxTime, Roots: roots}
			b, _, err := f.Fetch(context.Background(), tt.from, s.node.Root(), Tag{})
			if tt.want == nil && tt.text == "" {
				if err != nil || b.Identity != s.node.Identity() {
					t.Fatalf("%v, %v", b, err)
				}
				return
			}
			if b != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v, want %v with %q", err, tt.want, tt.text)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "secret")) {
				t.Errorf("the error is too long or contains the password: %v", err)
			}
		})
	}
}

// No bundle is fetched from a server with an untrusted certificate.
func TestUntrustedServer(t *testing.T) {
	s := newSite(t, httptest.NewTLSServer)
	if _, _, err := (&Fetcher{AllowLocal: true}).Fetch(context.Background(), s.URL+"/bundle", s.node.Root(), Tag{}); err == nil {
		t.Error("Fetch has succeeded with an untrusted server")
	}
}

// By default, Fetch does not connect to this machine or its network: not by an
// address, a name or a redirect, and not through a proxy.
func TestLocal(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	s.Config.ConnState = func(net.Conn, http.ConnState) { t.Error("connected") }
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	noIPv6 := false
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		noIPv6 = true
		t.Logf("IPv6 addresses are left out: %v", err)
	} else {
		l.Close()
	}
	t.Setenv("HTTP_PROXY", s.URL)
	t.Setenv("http_proxy", s.URL)
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"localhost",   // a name that leads to 127.0.0.1
		"169.254.1.1", // link-local, like the metadata servers of clouds
		"224.0.0.1", "10.1.2.3", "[fe80::1]",
	} {
		if noIPv6 && strings.HasPrefix(host, "[") {
			continue
		}
		_, _, err := new(Fetcher).Fetch(context.Background(), "http://"+host+":"+port+"/bundle", s.node.Root(), Tag{})
		if !errors.Is(err, errLocal) {
			t.Errorf("%s: error is %v, want ErrLocal", host, err)
		}
	}
	// The proxy would be on loopback: an error that is not errLocal would come
	// from the name server.
	if _, _, err := new(Fetcher).Fetch(context.Background(), "http://no-such-host.invalid/", s.node.Root(), Tag{}); err == nil || errors.Is(err, errLocal) {
		t.Errorf("error is %v", err)
	}
}

// isLocal reports whether an address belongs to this machine, to its network or to
// no single host, in every form in which it can be written.
func TestIsLocal(t *testing.T) {
	for a, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.255": true, "0.0.0.0": true, "0.1.2.3": true, "10.0.0.1": true, "172.16.0.1": true,
		"172.32.0.1": false, "192.168.0.1": true, "100.64.0.1": true, "100.128.0.1": false, "169.254.169.254": true,
		"224.0.0.1": true, "255.255.255.255": true, "192.0.0.8": true, "198.19.0.1": true, "8.8.8.8": false, "1.1.1.1": false,
		"::1": true, "::": true, "fe80::1": true, "fe80::1%eth0": true, "ff02::1": true, "fd00::1": true, "fec0::1": true,
		"100::1": true, "2001:db8::1": false, "2606:4700::1111": false,
		"::ffff:127.0.0.1": true, "::ffff:10.0.0.1": true, "::ffff:8.8.8.8": false,
		"::7f00:1": true, "::808:808": false,
		"::ffff:0:7f00:1": true, "::ffff:0:808:808": false,
		"64:ff9b::7f00:1": true, "64:ff9b::a9fe:a9fe": true, "64:ff9b::808:808": false, "64:ff9b:1::808:808": true,
		"2002:7f00:1::": true, "2002:a00:1::1": true, "2002:808:808::1": false,
	} {
		if got := isLocal(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
}

// Fetch does not connect to this machine by an address under which others reach it,
// whether an interface has the address or only a name server has it, and in every
// form in which the address can be written.
func TestOwnAddresses(t *testing.T) {
	f := &Fetcher{
		ownHostAddrs: []netip.Addr{netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8::9")},
		interfaces: func() ([]net.Addr, error) {
			var list []net.Addr
			for _, s := range []string{"203.0.113.7/24", "2001:db8:1::7/64"} {
				ip, n, err := net.ParseCIDR(s)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, &net.IPNet{IP: ip, Mask: n.Mask})
			}
			return list, nil
		},
	}
	for a, refused := range map[string]bool{
		"203.0.113.7": true, "::ffff:203.0.113.7": true, "64:ff9b::cb00:7107": true, "2002:cb00:7107::1": true,
		"2001:0:1:2:3:4:34ff:8ef8": true, "::cb00:7107": true, "203.0.113.8": false, "64:ff9b::cb00:7108": false,
		"2001:db8:1::7": true, "2001:db8:1::7%eth0": true, "2001:db8:1::8": false,
		"198.51.100.9": true, "2001:db8::9": true, "198.51.100.10": false,
	} {
		err := f.control("tcp", netip.AddrPortFrom(netip.MustParseAddr(a), 80).String(), nil)
		if errors.Is(err, errLocal) != refused {
			t.Errorf("%s: %v", a, err)
		}
	}
	f.interfaces = func() ([]net.Addr, error) { return nil, errors.New("no interfaces") }
	if err := f.control("tcp", "203.0.113.8:80", nil); err == nil {
		t.Error("connected although the own addresses are not known")
	}
	if own := lookupOwnHosts(t.Context(), []string{"192.0.2.1", "no-such-host.invalid", "::ffff:192.0.2.2"}); len(own) != 2 || own[1] != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("own hosts are at %v", own)
	}
}

// Fetch does not connect to the addresses of this machine's interfaces. (The test
// uses the real interfaces; they may have only special addresses, which are refused
// in any case.)
func TestOwnInterfaces(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	own, err := new(Fetcher).ownAddresses()
	if err != nil || len(own) != len(addrs) {
		t.Errorf("ownAddresses: got %v, error %v, want the addresses of %v", own, err, addrs)
	}
	for _, a := range own {
		if err := new(Fetcher).control("tcp", netip.AddrPortFrom(a, 80).String(), nil); !errors.Is(err, errLocal) {
			t.Errorf("%v: %v", a, err)
		}
	}
}

// Fetch returns ErrUnchanged if the server responds that the bundle is unchanged
// since the given tag, which can be an ETag or a modification time. Without a tag,
// the bundle is sent.
func TestUnchanged(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	modified := time.Now().Add(-time.Hour)
	etag := `"1"`
	s.handle("/etag", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	})
	s.handle("/date", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", modified, bytes.NewReader(s.data))
	})
	s.handle("/odd", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+strings.Repeat("x", maxTag)+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
	})
	f := &Fetcher{AllowLocal: true}
	fetch := func(path string, known Tag) (Tag, error) {
		_, tag, err := f.Fetch(context.Background(), s.URL+path, s.node.Root(), known)
		return tag, err
	}
	for path, change := range map[string]func(){
		"/etag": func() { etag = `"2"` },
		"/date": func() { modified = time.Now() },
	} {
		tag, err := fetch(path, Tag{})
		if err != nil || tag == (Tag{}) {
			t.Fatalf("%s: %v, %v", path, tag, err)
		}
		if _, err := fetch(path, tag); !errors.Is(err, ErrUnchanged) {
			t.Errorf("%s: error is %v, want ErrUnchanged", path, err)
		}
		change()
		if newer, err := fetch(path, tag); err != nil || newer == tag {
			t.Errorf("%s has changed: %v, %v", path, newer, err)
		}
	}
	if tag, err := fetch("/odd", Tag{}); err != nil || tag != (Tag{}) {
		t.Errorf("a tag that is too long: got %v, error %v, want no tag", tag, err)
	}
}

// Fetch returns as soon as its context is cancelled.
func TestCancelled(t *testing.T) {
	s := newSite(t, httptest.NewServer)
	arrived := make(chan struct{})
	s.handle("/silent", func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-arrived; cancel() }()
	if _, _, err := (&Fetcher{AllowLocal: true}).Fetch(ctx, s.URL+"/silent", s.node.Root(), Tag{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// For any bytes that a server sends, before or after its headers, Fetch returns a
// bundle of the pinned node or an error.
func FuzzFetch(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nPK"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://[::1]:1/\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \x80\r\n\r\nffffffffff\r\n"))
	n := newNode(f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	answers := make(chan []byte)
	go func() {
		for answer := range answers {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Second))
			io.ReadFull(conn, make([]byte, 16))
			conn.Write(answer)
			conn.Close()
		}
	}()
	from := (&url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}).String()
	f.Fuzz(func(t *testing.T, answer []byte) {
		answers <- answer
		fetcher := Fetcher{AllowLocal: true, maxTime: time.Second}
		if b, _, err := fetcher.Fetch(context.Background(), from, n.Root(), Tag{}); err == nil && !b.Root.Equal(n.Root()) {
			t.Error("accepted another node's bundle")
		}
	})
}

func newNode(t testing.TB) *nodetest.Node {
	return nodetest.New(t, nodetype.AccountingAuthority, "a.example.com:1")
}
