package stomp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// For any data that the other side sends before it is silent, the opening handshake
// ends within its timeout: with a session if the data is valid, otherwise with an
// error, whose reason a client gets in one ERROR frame. Data received together with the
// first frame is not lost.
func FuzzHandshake(f *testing.F) {
	for _, s := range []string{
		"CONNECT\naccept-version:1.0,1.2\nheart-beat:5000,0\nhost:/\n\n\x00\nSEND\ndestination:/in\nreceipt:1\n\nbody\x00",
		"\r\nSTOMP\r\naccept-version:1.2\r\nhost:a:b\r\npasscode:\\c\r\n\r\n\x00\nSEN",
		"STOMP\naccept-version:1.1\n\n\x00",
		"CONNECTED\nversion:1.2\nheart-beat:0,999999999\nserver:x/1\n\n\x00RECEIPT\nreceipt-id:1\n\n\x00",
		"CONNECTED\nversion:1.2\nheart-beat:1000000000,0\n\n\x00",
		"CONNECTED\nversion:1.1\n\n\x00",
		"ERROR\nmessage:no\ncontent-length:2\n\nno\x00",
		"SEND\n\n\x00",
		"CONNECT",
		"",
	} {
		f.Add(true, []byte(s))
		f.Add(false, []byte(s))
	}
	f.Fuzz(func(t *testing.T, server bool, data []byte) {
		synctest.Test(t, func(t *testing.T) { testHandshake(t, server, data) })
	})
}

func testHandshake(t *testing.T, server bool, data []byte) {
	nc, other := net.Pipe()
	c := NewConn(nc, Limits{})
	ctx, cancel := withConnectTimeout(t.Context(), 0)
	defer cancel()
	received, opened, sent := make(chan bool), make(chan bool), make(chan bool)
	go func() { // the other side sends
		defer close(sent)
		<-received
		_, _ = other.Write(data)
		<-opened
		other.Close()
	}()
	answers := make(chan []*Frame)
	go func() { // and receives
		var list []*Frame
		r := NewReader(other, Limits{})
		if !server {
			first, err := r.ReadFrame()
			if err != nil {
				t.Errorf("the server's first read: %v", err)
			}
			list = append(list, first)
		}
		close(received)
		rest, err := readFrames(r)
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the other side received %v, and then the error %v", append(list, rest...), err)
		}
		answers <- append(list, rest...)
	}()

	all, end := frames(bytes.NewReader(data))
	want := outcome(server, all, end)
	start := time.Now()
	var err error
	if server {
		err = c.Accept(ctx, Acceptance{})
	} else {
		err = c.connect(ctx, HeartBeat{})
	}
	if took := time.Since(start); took > DefaultConnectTimeout+2*CloseTimeout {
		t.Errorf("the handshake took %v, want at most %v", took, DefaultConnectTimeout+2*CloseTimeout)
	}
	if got := kindOf(err); got != want {
		t.Errorf("the handshake ends with %v (%s), want %s", err, got, want)
	}
	synctest.Wait() // everything in flight is received
	close(opened)
	if err == nil {
		rest, restEnd := readFrames(c)
		if !reflect.DeepEqual(append(all[:1:1], rest...), all) || !errors.Is(restEnd, end) && restEnd.Error() != end.Error() {
			t.Errorf("after the handshake: got %v, %v\nwant %v, %v", rest, restEnd, all[1:], end)
		}
		c.Close()
	}
	<-sent
	checkAnswers(t, server, err, <-answers)
}

// readFrames reads frames until there are no more.
func readFrames(r interface{ ReadFrame() (*Frame, error) }) (all []*Frame, err error) {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return all, err
		}
		all = append(all, f)
	}
}

// The ways in which a handshake can end.
const (
	sessionOpen   = "session"
	violated      = "violation"
	refusedByPeer = "refusal"
	tooLate       = "too late"
)

func kindOf(err error) string {
	var violation *ProtocolError
	var refusal *ServerError
	switch {
	case err == nil:
		return sessionOpen
	case errors.As(err, &violation):
		return violated
	case errors.As(err, &refusal):
		return refusedByPeer
	case errors.Is(err, ErrConnectTimeout):
		return tooLate
	default:
		return err.Error()
	}
}

// outcome returns how a handshake must end with these frames.
func outcome(server bool, all []*Frame, end error) string {
	if len(all) == 0 {
		if kind := kindOf(end); kind == violated {
			return kind
		}
		return tooLate
	}
	first := all[0]
	beat, _ := first.Get("heart-beat")
	agreed, err := ParseHeartBeat(beat)
	if err == nil && (agreed.Send < 0 || agreed.Send > maxHeartBeat || agreed.Receive < 0 || agreed.Receive > maxHeartBeat) {
		return "a heart-beat out of bounds"
	}
	versions, _ := first.Get("accept-version")
	version, _ := first.Get("version")
	switch {
	case !server && first.Command == "ERROR":
		return refusedByPeer
	case server && (first.Command == "STOMP" || first.Command == "CONNECT") && slices.Contains(strings.Split(versions, ","), "1.2") && err == nil,
		!server && first.Command == "CONNECTED" && version == "1.2" && err == nil:
		return sessionOpen
	default:
		return violated
	}
}

// checkAnswers checks what the other side has received in a handshake that ended with
// err.
func checkAnswers(t *testing.T, server bool, err error, answers []*Frame) {
	t.Helper()
	var commands []string
	for _, f := range answers {
		commands = append(commands, f.Command)
	}
	var want []string
	switch {
	case !server:
		want = []string{"STOMP"}
	case err == nil:
		want = []string{"CONNECTED"}
	case kindOf(err) == violated:
		want = []string{"ERROR"}
	}
	if !slices.Equal(commands, want) {
		t.Errorf("after %v the other side has received %q, want %q", err, commands, want)
		return
	}
	if server && kindOf(err) == violated {
		message, _ := answers[0].Get("message")
		if reason := clip(protocolReason(t, err), DefaultLimits().HeaderValue); message != reason {
			t.Errorf("the message of the ERROR is %q, want the reason %q", message, reason)
		}
	}
}
