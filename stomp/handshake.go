package stomp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	// Version is the only version of STOMP that this package implements.
	Version = "1.2"

	// DefaultConnectTimeout is how long the opening handshake may take.
	DefaultConnectTimeout = 10 * time.Second

	// serverName is the server header of CONNECTED.
	serverName = "peerlink"
)

// Accept performs the server's part of the opening handshake (STOMP 1.2, "Connecting"):
// it reads CONNECT or STOMP, sends CONNECTED, and starts the heart-beats. Before it sends
// CONNECTED, it calls check, unless that is nil, with the client's frame. If check returns
// an error, the client is rejected, and receives the text of the error.
//
// If Accept fails, it closes the connection, after sending an ERROR if the client has
// caused the failure. The error is a [*ProtocolError], the error of check, the cause of the
// end of ctx, or one of [Conn.ReadFrame].
func (c *Conn) Accept(ctx context.Context, own HeartBeat, check func(connect *Frame) error) error {
	own = own.orDefault()
	return c.closeOnError(ctx, func() error {
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

// readConnect reads and checks the client's first frame, and returns its heart-beat
// header. If it rejects the frame, it sends the client an ERROR and closes the connection.
func (c *Conn) readConnect(check func(connect *Frame) error) (HeartBeat, error) {
	connect, err := c.ReadFrame()
	if err != nil {
		return HeartBeat{}, c.failIfClientError(err)
	}
	if !isConnect(connect.Command) {
		return HeartBeat{}, c.failIfClientError(protocolErrorf("expected CONNECT or STOMP first, not %.40s", connect.Command))
	}
	if versions, _ := connect.Get("accept-version"); !slices.Contains(strings.Split(versions, ","), Version) {
		return HeartBeat{}, c.failVersion()
	}
	beat, _ := connect.Get("heart-beat")
	theirs, err := ParseHeartBeat(beat)
	if err != nil {
		return HeartBeat{}, c.failIfClientError(err)
	}
	if check != nil {
		if err := check(connect); err != nil {
			c.Fail(&ServerError{Message: err.Error()})
			return HeartBeat{}, err
		}
	}
	return theirs, nil
}

// failIfClientError sends an ERROR and closes the connection if err is a violation of the
// protocol, [ErrSilent] or [ErrSlow]. It returns err.
func (c *Conn) failIfClientError(err error) error {
	var violation *ProtocolError
	switch {
	case errors.As(err, &violation):
		c.Fail(&ServerError{Message: violation.Reason})
	case errors.Is(err, ErrSilent) || errors.Is(err, ErrSlow):
		c.Fail(&ServerError{Message: err.Error()})
	}
	return err
}

// failVersion sends the client an ERROR with the supported version (STOMP 1.2, "Protocol
// Negotiation"), closes the connection, and returns the error.
func (c *Conn) failVersion() error {
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

// connect performs the client's part of the opening handshake. The headers, alternating
// names and values, are added to those of every client. If connect fails, it closes the
// connection.
func (c *Conn) connect(ctx context.Context, own HeartBeat, headers ...string) error {
	own = own.orDefault()
	return c.closeOnError(ctx, func() error {
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
			return protocolErrorf("server has chosen version %.40q of STOMP, expected %s", version, Version)
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

// closeOnError runs f, and closes the connection if f fails or ctx ends before f does.
func (c *Conn) closeOnError(ctx context.Context, f func() error) error {
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
