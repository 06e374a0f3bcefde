package stomp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	// Version is the only version of STOMP that this package speaks.
	Version = "1.2"

	// DefaultConnectTimeout is how long the opening handshake may take.
	DefaultConnectTimeout = 10 * time.Second

	// serverName is what servers say they are.
	serverName = "peerlink"
)

// Accept is the server's half of the opening handshake (STOMP 1.2,
// "Connecting"): it reads CONNECT or STOMP, answers CONNECTED, and starts the
// heart-beats. In between check, unless it is nil, may refuse the client by
// what its frame says. The client gets the text of the error.
//
// When Accept fails, the connection is closed, after the client was told why if
// that is the client's business. The error is a [*ProtocolError], what check
// has returned, the cause of the end of ctx, or one of [Conn.ReadFrame].
func (c *Conn) Accept(ctx context.Context, own HeartBeat, check func(connect *Frame) error) error {
	own = own.orDefault()
	return c.closeUnless(ctx, func() error {
		theirs, err := c.readConnect(check)
		if err != nil {
			return err
		}
		if err := c.WriteFrame(NewFrame("CONNECTED",
			"version", Version,
			"heart-beat", own.String(),
			"server", serverName,
		)); err != nil {
			return err
		}
		c.StartHeartBeat(own.Negotiate(theirs))
		return nil
	})
}

// readConnect reads the client's first frame and returns the heart-beat it asks
// for, or tells it why it is refused.
func (c *Conn) readConnect(check func(connect *Frame) error) (HeartBeat, error) {
	connect, err := c.ReadFrame()
	if err != nil {
		return HeartBeat{}, c.refuse(err)
	}
	if !isConnect(connect.Command) {
		return HeartBeat{}, c.refuse(protocolErrorf("expected CONNECT or STOMP first, not %.40s", connect.Command))
	}
	if versions, _ := connect.Get("accept-version"); !slices.Contains(strings.Split(versions, ","), Version) {
		return HeartBeat{}, c.refuseVersion()
	}
	beat, _ := connect.Get("heart-beat")
	theirs, err := ParseHeartBeat(beat)
	if err != nil {
		return HeartBeat{}, c.refuse(err)
	}
	if check != nil {
		if err := check(connect); err != nil {
			c.Fail(&ServerError{Message: err.Error()})
			return HeartBeat{}, err
		}
	}
	return theirs, nil
}

// refuse returns err, and before that, if it is about what the client did,
// tells the client and closes the connection.
func (c *Conn) refuse(err error) error {
	var violation *ProtocolError
	switch {
	case errors.As(err, &violation):
		c.Fail(&ServerError{Message: violation.Reason})
	case errors.Is(err, ErrSilent) || errors.Is(err, ErrSlow):
		c.Fail(&ServerError{Message: err.Error()})
	}
	return err
}

// refuseVersion tells the client which version it should have offered (STOMP
// 1.2, "Protocol Negotiation").
func (c *Conn) refuseVersion() error {
	violation := &ProtocolError{Reason: "accept-version does not have " + Version}
	e := &ServerError{
		Message:     violation.Reason,
		ContentType: "text/plain",
		Body:        []byte("Supported protocol versions are " + Version),
	}
	f := e.frame()
	f.Headers = append(f.Headers, Header{"version", Version})
	c.sendLast(DefaultLimits(), f)
	return violation
}

// connect is the client's half of the opening handshake. The headers, names and
// values in turn, come in addition to those of every client. The connection is
// closed when connect fails.
func (c *Conn) connect(ctx context.Context, own HeartBeat, headers ...string) error {
	own = own.orDefault()
	return c.closeUnless(ctx, func() error {
		headers := append([]string{"accept-version", Version, "heart-beat", own.String()}, headers...)
		if err := c.WriteFrame(NewFrame("STOMP", headers...)); err != nil {
			return err
		}
		answer, err := c.ReadFrame()
		switch {
		case err != nil:
			return err
		case answer.Command == "ERROR":
			return serverErrorFrom(answer)
		case answer.Command != "CONNECTED":
			return protocolErrorf("expected CONNECTED, not %.40s", answer.Command)
		}
		if version, _ := answer.Get("version"); version != Version {
			return protocolErrorf("server speaks version %.40q of STOMP, not %s", version, Version)
		}
		beat, _ := answer.Get("heart-beat")
		theirs, err := ParseHeartBeat(beat)
		if err != nil {
			return err
		}
		c.StartHeartBeat(own.Negotiate(theirs))
		return nil
	})
}

// closeUnless runs f, and closes the connection when f fails or ctx ends before
// f does.
func (c *Conn) closeUnless(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { c.closeWith(context.Cause(ctx)) })
	err := f()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
	}
	return err
}

// withConnectTimeout limits the opening handshake.
func withConnectTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		d = DefaultConnectTimeout
	}
	return context.WithTimeoutCause(ctx, d, ErrConnectTimeout)
}
