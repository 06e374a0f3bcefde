package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

const (
	hostileText = `<script>document.title='owned'</script><img src=x onerror="document.title='owned'"> of the peer`
	// lowContrast returns the texts whose contrast with their background is less than 4.5.
	lowContrast = `(() => {
		const rgba = s => { const n = s.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n }
		const light = c => { const f = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2] }
		const bad = []
		for (const e of document.querySelectorAll('body *')) {
			if (!e.checkVisibility() || e.disabled || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue
			let behind = e
			while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 1) behind = behind.parentElement
			const a = light(rgba(getComputedStyle(e).color)), b = light(rgba(getComputedStyle(behind || document.body).backgroundColor))
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
			if (ratio < 4.5) bad.push(ratio.toFixed(2) + ' ' + e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))
		}
		return bad
	})()`
	// unnamed returns the controls and pictures without a name for screen readers.
	unnamed = `[...document.querySelectorAll('a, button, input:not([type=hidden]), svg, [role=region], meter')].filter(e => e.checkVisibility()
		&& !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels && [...e.labels].some(l => l.textContent.trim()))).map(e => e.outerHTML.slice(0, 80))`
	// tooWide returns what makes the page wider than the window, if it is wider.
	tooWide = `document.documentElement.scrollWidth <= innerWidth ? [] : ['the page', ...[...document.querySelectorAll('body *')].filter(e =>
		!e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).slice(0, 5)]`
)

// The dashboard of a real service, with real and hostile peers, in a browser: links come and go, and charts move,
// without reloading. Messages that are set aside are shown, sent again and dropped with the token, and not
// without. Text of peers stays text. Everything can be reached with the keyboard, has a name for screen readers, and a
// contrast of 4.5, in both themes, and fits on a telephone.
func TestDashboardInBrowser(t *testing.T) {
	t.Parallel()
	b := startChromium(t)
	authority, hostile, good := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent), newServer(t, nodetype.DebtorsAgent)
	nodetest.Peer(t, authority.Node, hostile.Node)
	nodetest.Peer(t, authority.Node, good.Node)
	if err := authority.SetPeerName(t.Context(), good.Identity().ID, "Hill Cooperative"); err != nil {
		t.Fatal(err)
	}
	serveErrors(t, hostile, hostileText)
	for queue, n := range map[string]int{"peer." + hostile.Identity().ID + ".0": 4, "peer.00000000000000000000000000000009.0": 2} {
		if err := makeAside(authority.state, queue, n, hostileText, hostileText); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	authority.broker, good.broker = []string{"--admin", address}, []string{"--admin", "none"}
	authority.start()
	t.Cleanup(authority.kill)
	good.start()
	t.Cleanup(func() { good.kill() })
	origin := "http://" + address + "/"
	waitForPage(t, origin, "of the peer")

	b.show(1200, "light")
	b.goTo(origin)
	b.eval("window.isOld = true", nil)
	b.testLinksComeAndGo(good)
	b.testMessages(authority, hostile, origin)
	b.testPages(origin, map[string]string{
		"overview": "", "node": "node", "peer": "peers/" + hostile.Identity().ID, "linked": "peers/" + good.Identity().ID, "aside": "peers/" + hostile.Identity().ID + "/aside",
		"aside of no peer": "node/aside",
	})
	b.testMessagesOfNoPeer(authority, origin)
	b.testCharts(origin)
	b.checkRequests(origin)
}

// freeAddress returns an address on loopback where nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// testLinksComeAndGo checks that the overview shows, without being loaded again, that a peer is linked, away, and
// linked again.
func (b *chromium) testLinksComeAndGo(peer *server) {
	const state = `[...document.querySelectorAll('article')].find(a => a.textContent.includes('Hill Cooperative')).querySelector('.state').textContent`
	b.wait("the peer is linked", state+`.includes('linked')`)
	peer.kill()
	b.wait("the peer is away", state+`.includes('unreachable') && document.getElementById('status').textContent.includes('2 of 2')`)
	peer.start()
	b.wait("the peer is back", state+`.includes('linked') && window.isOld`)
}

// testMessages sends a message again and drops another, with the keyboard, after having tried it without the token
// and with a wrong one.
func (b *chromium) testMessages(s, peer *server, origin string) {
	t := b.t
	page := origin + "peers/" + peer.Identity().ID + "/aside"
	b.goTo(page)
	b.wait("the question for the token", "document.getElementById('token')")
	b.eval("document.getElementById('token').value = 'wrong'; document.querySelector('#unlock button').click()", nil)
	b.wait("a wrong token", "document.activeElement.textContent.includes('This is not the token')")
	if text := b.text(); strings.Contains(text, "of the peer") {
		t.Errorf("messages without the token:\n%s", text)
	}
	out, err := exec.Command(program(t), "-C", s.Path(), "dashboard", "--state", s.state).Output()
	link := strings.TrimSpace(string(out))
	if err != nil || !strings.HasPrefix(link, origin+"#token=") {
		t.Fatalf("peerlink dashboard: %q, %v", out, err)
	}
	b.goTo(link)
	b.goTo(page)
	b.wait("the messages", "document.querySelectorAll('.message').length === 4")
	var url, dom string
	b.eval("history.length + location.href", &url)
	b.eval("document.documentElement.outerHTML", &dom)
	if strings.Contains(url, "token") || strings.Count(dom, "<script") != 1 || strings.Contains(dom, "<img") || strings.Contains(dom, "<title>owned") {
		t.Errorf("%s\n%s", url, dom)
	}
	press := func(selector, key string) {
		t.Helper()
		b.eval("document.querySelector('"+selector+"').focus()", nil)
		b.press(key)
	}
	press(".message:nth-child(1) input", "Space")
	press("button[value=retry]", "Enter")
	b.wait("one was sent again", "document.activeElement.textContent === 'Messages back in the queue: 1.' && document.querySelectorAll('.message').length === 3")
	press(".message:nth-child(2) input", "Space")
	press("button[value=drop]", "Enter")
	b.wait("the question", "document.querySelector('button[value=drop-now]') && document.querySelectorAll('.message').length === 1")
	b.screenshot("drop")
	press("button[value=drop-now]", "Enter")
	b.wait("one was dropped", "document.activeElement.textContent === 'Messages dropped: 1.' && document.querySelectorAll('.message').length === 2")
	if log := s.log(); !strings.Contains(log, "messages set aside were dropped, on the dashboard") {
		t.Errorf("the log does not say who has dropped messages:\n%s", log)
	}
}

// testMessagesOfNoPeer follows the link of the overview to the messages that belong to no peer, and drops one of the two
// with the keyboard.
func (b *chromium) testMessagesOfNoPeer(s *server, origin string) {
	b.show(390, "dark")
	b.goTo(origin)
	b.wait("the link", `document.querySelector('a[href="/node/aside"]')`)
	b.eval(`document.querySelector('a[href="/node/aside"]').focus()`, nil)
	b.press("Enter")
	b.wait("the messages", "document.querySelectorAll('.message').length === 2 && document.body.textContent.includes('peer.00000000000000000000000000000009.0')")
	for _, step := range [][2]string{{".message input", "Space"}, {"button[value=drop]", "Enter"}} {
		b.eval("document.querySelector('"+step[0]+"').focus()", nil)
		b.press(step[1])
	}
	b.wait("the question", "document.querySelector('button[value=drop-now]') && document.querySelectorAll('.message').length === 1")
	b.eval("document.querySelector('button[value=drop-now]').focus()", nil)
	b.press("Enter")
	b.wait("one was dropped", "document.activeElement.textContent === 'Messages dropped: 1.' && document.querySelectorAll('.message').length === 1")
	b.goTo(origin)
	b.wait("the overview counts the other one", "document.body.textContent.includes('belong to no peer: 1.')")
	if log := s.log(); !strings.Contains(log, `peer="" messages=1`) {
		b.t.Errorf("the log does not say that a message of no peer was dropped:\n%s", log)
	}
}

// testPages checks pages, by name, in both themes and two widths.
func (b *chromium) testPages(origin string, pages map[string]string) {
	for name, path := range pages {
		b.show(1200, "light")
		b.goTo(origin + path)
		if strings.HasSuffix(path, "aside") {
			b.wait("the messages", "document.querySelector('.message')")
		}
		for _, width := range []int{1200, 390} {
			for _, theme := range []string{"light", "dark"} {
				b.show(width, theme)
				where := fmt.Sprintf("%s-%d-%s", name, width, theme)
				b.screenshot(where)
				for what, script := range map[string]string{"too little contrast": lowContrast, "no name": unnamed, "too wide": tooWide} {
					var bad []string
					if b.eval(script, &bad); len(bad) > 0 {
						b.t.Errorf("%s: %s: %q", where, what, bad)
					}
				}
			}
		}
		b.testKeyboard(name)
	}
}

// testKeyboard walks through the page with the tabulator key, and checks that it reaches everything that can be
// used, and that one sees where it is.
func (b *chromium) testKeyboard(name string) {
	var want int
	b.eval(`window.walked = new Set(); window.invisible = []; document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0);
		[...document.querySelectorAll('a, button, input:not([type=hidden]), [tabindex="0"]')].length`, &want)
	for range want + 2 { // a page that has loaded itself has the focus somewhere
		b.press("Tab")
		b.eval(`(() => {
			const e = document.activeElement, style = getComputedStyle(e)
			walked.add(e.id || e.outerHTML.slice(0, 200))
			if (e !== document.body && style.outlineStyle === 'none') invisible.push(e.outerHTML.slice(0, 80))
		})()`, nil)
	}
	var missing, invisible []string
	b.eval(`[...document.querySelectorAll('a, button, input:not([type=hidden]), [tabindex="0"]')].filter(e => !walked.has(e.id || e.outerHTML.slice(0, 200))).map(e => e.outerHTML.slice(0, 80))`, &missing)
	b.eval("invisible", &invisible)
	if len(missing) > 0 || len(invisible) > 0 {
		b.t.Errorf("%s: the keyboard does not reach %q; without an outline are %q", name, missing, invisible)
	}
}

// testCharts checks that the charts move while the page is open.
func (b *chromium) testCharts(origin string) {
	b.show(1200, "light")
	b.goTo(origin)
	const lines = "[...document.querySelectorAll('svg path')].map(p => p.getAttribute('d')).join()"
	b.wait("charts", lines)
	b.eval("window.before = "+lines, nil)
	b.wait("the charts move", lines+" !== window.before")
	b.screenshot("charts")
}

// serveErrors starts a server of a peer that answers every connection with an ERROR frame.
func serveErrors(t *testing.T, s *server, message string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", s.addr, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "ERROR\nmessage:%s\n\n\x00", message)
				c.SetReadDeadline(time.Now().Add(time.Second))
				io.Copy(io.Discard, c) // closing the connection with unread data would reset it
			}()
		}
	}()
}

// waitForPage waits until the page contains the text.
func waitForPage(t *testing.T, url, text string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		page := ""
		res, err := http.Get(url)
		if err == nil {
			var data []byte
			data, err = io.ReadAll(res.Body)
			res.Body.Close()
			page = string(data)
		}
		if strings.Contains(page, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the page: %v\n%s", text, err, page)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
