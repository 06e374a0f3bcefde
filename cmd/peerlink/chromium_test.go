package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/link/linktest"
)

// chromium is a page in a headless Chromium, which is driven by the DevTools protocol over pipes.
type chromium struct {
	t        *testing.T
	commands *os.File
	answers  chan devtools
	session  string
	last     int

	mu       sync.Mutex
	requests []string // URLs
	faults   []string // exceptions of scripts, and what the browser has refused
}

// devtools is a message of the protocol.
type devtools struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

// startChromium starts a browser with an empty page. It skips the test if there is none.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: the page is not tested in a browser")
	}
	in, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	events, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "peerlink-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--remote-debugging-pipe")
	c.ExtraFiles = []*os.File{in, out}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	b := &chromium{t: t, commands: commands, answers: make(chan devtools, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(events)
	}()
	t.Cleanup(func() {
		commands.Close() // ends the browser
		cancel()
		c.Wait()
		<-read
		events.Close()
		// Other processes of the browser end a moment later, and write into the folder until then.
		linktest.Eventually(t, "removing the browser's profile", func() error { return os.RemoveAll(profile) })
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// read reads what the browser sends, until it ends.
func (b *chromium) read(events *os.File) {
	defer close(b.answers)
	r := bufio.NewReader(events)
	for {
		data, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m devtools
		var event struct {
			Params struct {
				Request          struct{ URL string }
				Entry            struct{ Source, Level, Text string }
				ExceptionDetails struct{ Exception struct{ Description string } }
			}
		}
		data = data[:len(data)-1]
		if json.Unmarshal(data, &m) != nil || json.Unmarshal(data, &event) != nil {
			return
		}
		b.mu.Lock()
		switch p := event.Params; {
		case m.Method == "Network.requestWillBeSent":
			b.requests = append(b.requests, p.Request.URL)
		case m.Method == "Runtime.exceptionThrown":
			b.faults = append(b.faults, p.ExceptionDetails.Exception.Description)
		case m.Method == "Log.entryAdded" && p.Entry.Source == "security":
			b.faults = append(b.faults, p.Entry.Text)
		}
		b.mu.Unlock()
		if m.ID != 0 {
			b.answers <- m
		}
	}
}

// call sends a command and reads its result.
func (b *chromium) call(method string, params, result any) {
	b.t.Helper()
	b.last++
	data, err := json.Marshal(devtools{ID: b.last, Session: b.session, Method: method, Params: params})
	if err == nil {
		_, err = b.commands.Write(append(data, 0))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	select {
	case m, ok := <-b.answers:
		switch {
		case !ok:
			err = errors.New("the browser has ended")
		case m.ID != b.last || m.Error != nil:
			err = fmt.Errorf("%s", m.Error)
		case result != nil:
			err = json.Unmarshal(m.Result, result)
		}
	case <-time.After(2 * time.Minute):
		err = errors.New("the browser does not answer")
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// eval evaluates JavaScript and stores its value in result, unless that is nil.
func (b *chromium) eval(script string, result any) {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true, "userGesture": true}, &answer)
	if e := answer.ExceptionDetails; e != nil {
		b.t.Fatalf("%s: %s", script, e.Exception.Description)
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result.Value, result); err != nil {
			b.t.Fatalf("%s: %v", script, err)
		}
	}
}

// wait waits until a condition in JavaScript holds. The page may be replaced meanwhile.
func (b *chromium) wait(what, condition string) {
	b.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var ok bool
		b.eval("!!("+condition+")", &ok)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not within two minutes; the page:\n%s", what, b.text())
		}
	}
}

// text returns the text of the page as it is shown.
func (b *chromium) text() (text string) {
	b.eval("location.href + '\\n' + document.body.innerText", &text)
	return text
}

// goTo loads a page and waits until its script has run.
func (b *chromium) goTo(url string) {
	b.t.Helper()
	b.eval("window.isOld = true", nil)
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	b.wait("load "+url, "!window.isOld && document.readyState === 'complete' && document.getElementById('content')")
}

// show sets the width of the page and the theme.
func (b *chromium) show(width int, theme string) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": theme}}}, nil)
}

// press presses a key and releases it.
func (b *chromium) press(key string) {
	for _, kind := range []string{"keyDown", "keyUp"} {
		params := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": map[string]int{"Tab": 9, "Enter": 13, "Space": 32}[key]}
		if text := map[string]string{"Enter": "\r", "Space": " "}[key]; text != "" && kind == "keyDown" {
			params["text"] = text
		}
		if key == "Space" {
			params["key"] = " "
		}
		b.call("Input.dispatchKeyEvent", params, nil)
	}
}

// screenshot writes a picture of the whole page into the folder that PEERLINK_SCREENSHOTS names, if it is set.
func (b *chromium) screenshot(name string) {
	folder := os.Getenv("PEERLINK_SCREENSHOTS")
	if folder == "" {
		return
	}
	var answer struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &answer)
	picture, err := base64.StdEncoding.DecodeString(answer.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// checkRequests checks that the pages have asked no other host, and that no script has failed.
func (b *chromium) checkRequests(origin string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if !strings.HasPrefix(url, origin) && url != "about:blank" {
			b.t.Errorf("request to %s", url)
		}
	}
	for _, fault := range b.faults {
		b.t.Errorf("the browser reports: %s", fault)
	}
}
