package rabbitmq

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
)

// newSilentConn returns a connection on which RabbitMQ answers nothing, and a function
// that reports whether the connection was cut.
func newSilentConn(t *testing.T) (l *liveConn, isCut func() bool) {
	life, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	here, there := net.Pipe()
	b := &Broker{opts: Options{ConnectTimeout: 10 * time.Second}, life: life, log: slog.New(slog.DiscardHandler)}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		_, _ = there.Read(make([]byte, 1))
	}()
	isCut = func() bool {
		synctest.Wait()
		select {
		case <-cut:
			return true
		default:
			return false
		}
	}
	return &liveConn{broker: b, socket: here, born: time.Now(), block: newBlockage()}, isCut
}

// If RabbitMQ does not answer a method, the connection is cut after the timeout if RabbitMQ
// answers nothing else, and after six times the timeout if it answers everything else.
func TestMethodBehindOthers(t *testing.T) {
	for name, tt := range map[string]struct{ answersFor, wants time.Duration }{
		"frozen":               {0, 10 * time.Second},
		"behind others":        {25 * time.Second, 35 * time.Second},
		"answers all but this": {2 * time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, isCut := newSilentConn(t)
				answered := make(chan error)
				start := time.Now()
				go func() {
					for time.Since(start) < tt.answersFor {
						time.Sleep(time.Second)
						l.recordAnswer()
					}
				}()
				err := l.call(context.Background(), func() error { return <-answered }, nil)
				if took := time.Since(start); err == nil || took != tt.wants || !isCut() {
					t.Errorf("after %v: %v, the connection was cut: %v; want an error after %v", took, err, isCut(), tt.wants)
				}
				close(answered)
				time.Sleep(tt.answersFor) // until the other goroutine has ended
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l, isCut := newSilentConn(t)
		err := l.call(context.Background(), func() error {
			for range 30 {
				time.Sleep(time.Second)
				l.recordAnswer()
			}
			return nil
		}, nil)
		if err != nil || isCut() {
			t.Errorf("%v, the connection was cut: %v", err, isCut())
		}
		l.cut()
	})
}

// If a write has not ended although its context has, the connection is cut, but only if
// RabbitMQ does not answer.
func TestHangingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, answers := range []bool{false, true} {
			l, isCut := newSilentConn(t)
			ctx, cancel := context.WithCancel(context.Background())
			done := l.limitWrite(ctx)
			cancel()
			time.Sleep(900 * time.Millisecond)
			if answers {
				l.recordAnswer()
			}
			time.Sleep(200 * time.Millisecond)
			if isCut() == answers {
				t.Errorf("RabbitMQ answers: %v; the connection was cut: %v", answers, isCut())
			}
			done()
			l.cut()
		}
	})
}

// A confirmation of RabbitMQ counts as an answer for methods on the same connection.
func TestConfirmationsAreAnswers(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	inbox := "accounts_in" + suffix()
	o.inbox(inbox)
	p := openStream(t, b)
	l := b.publishing.latest()
	before := l.lastAnswer.Load()
	o.check(p.Publish(testContext(t), incoming(inbox, "", strings.Repeat("x", 1000))))
	if _, err := p.wait(1); err != nil {
		t.Fatal(err)
	}
	if l.lastAnswer.Load() <= before {
		t.Error("the confirmation does not count as an answer")
	}
}
