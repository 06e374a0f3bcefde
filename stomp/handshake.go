package stomp

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"
)

const (
	// Version is the version of STOMP that clients of this package use, and servers unless
	// [Acceptance].Versions has others.
	Version = "1.2"

	version10 = "1.0"

	// DefaultConnectTimeout is how long the opening handshake may take.
	DefaultConnectTimeout = 10 * time.Second

	// serverName is the server header of CONNECTED.
	serverName = "peerlink"
)

// AllVersions are the versions of STOMP that [Acceptance].Versions may have, the preferred one
// first. In version 1.0 headers are not escaped, and its clients do not send accept-version.
// Version 1.1 is read and written as 1.2.
var AllVersions = []string{Version, "1.1", version10}

// Acceptance configures [Conn.Accept].
type Acceptance struct {
	HeartBeat HeartBeat // what to offer and to request
	// MinHeartBeat, if not 0, makes the server offer what the client requests, and request what the
	// client offers, but no interval that is shorter than this. HeartBeat has no effect then.
	MinHeartBeat time.Duration
	Versions     []string // of STOMP, the preferred one first; nil: only [Version]
	// Check is called with the client's frame before CONNECTED is sent. If it returns an error,
	// the client is rejected, and receives the text of the error. It may be nil.
	Check func(connect *Frame) error
}

// Accept performs the server's part of the opening handshake (STOMP 1.2, "Connecting"):
// it reads CONNECT or STOMP, sends CONNECTED, and starts the heart-beats.
//
// If Accept fails, it closes the connection, after sending an ERROR if the client has
// caused the failure. The error is a [*ProtocolError], the error of a.Check, the cause of the
// end of ctx, or one of [Conn.ReadFrame].
func (c *Conn) Accept(ctx context.Context, a Acceptance) error {
	own := a.HeartBeat.orDefault()
	if len(a.Versions) == 0 {
		a.Versions = []string{Version}
	}
	return c.closeOnError(ctx, func() error {
		version, theirs, err := c.readConnect(a)
		if err != nil {
			return err
		}
		if a.MinHeartBeat > 0 {
			own = theirs.mirrored(a.MinHeartBeat)
		}
		connected := NewFrame("CONNECTED",
			"version", version,
			"heart-beat", own.String(),
			"server", serverName,
		)
		if version == version10 { // requires a session header
			connected.Headers = append(connected.Headers, Header{"session", rand.Text()})
			c.reader.raw = true
			c.setRaw()
		}
		if err := c.WriteFrame(connected); err != nil {
			return err
		}
		c.StartHeartBeat(own.Negotiate(theirs))
		return nil
	})
}

func (c *Conn) setRaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = true
}

// readConnect reads and checks the client's first frame, and returns the version to use and the
// client's heart-beat header. If it rejects the frame, it sends the client an ERROR and closes the
// connection.
func (c *Conn) readConnect(a Acceptance) (version string, theirs HeartBeat, err error) {
	connect, err := c.ReadFrame()
	if err != nil {
		return "", HeartBeat{}, c.failIfClientError(err)
	}
	if !isConnect(connect.Command) {
		return "", HeartBeat{}, c.failIfClientError(protocolErrorf("expected CONNECT or STOMP first, not %.40s", connect.Command))
	}
	if version = chooseVersion(connect, a.Versions); version == "" {
		return "", HeartBeat{}, c.failVersion(a.Versions)
	}
	beat, _ := connect.Get("heart-beat")
	if theirs, err = ParseHeartBeat(beat); err != nil {
		return "", HeartBeat{}, c.failIfClientError(err)
	}
	if a.Check != nil {
		if err := a.Check(connect); err != nil {
			c.Fail(&ServerError{Message: err.Error()})
			return "", HeartBeat{}, err
		}
	}
	return version, theirs, nil
}

// chooseVersion returns the first of the versions that the client accepts, or "" if it accepts
// none of them.
func chooseVersion(connect *Frame, versions []string) string {
	accepted, ok := connect.Get("accept-version")
	if !ok {
		accepted = version10
	}
	theirs := strings.Split(accepted, ",")
	for _, v := range versions {
		if slices.Contains(theirs, v) {
			return v
		}
	}
	return ""
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

// failVersion sends the client an ERROR with the supported versions (STOMP 1.2, "Protocol
// Negotiation"), closes the connection, and returns the error.
func (c *Conn) failVersion(versions []string) error {
	supported := strings.Join(versions, ",")
	violation := &ProtocolError{Reason: "accept-version does not have " + supported}
	e := &ServerError{
		Message:     violation.Reason,
		ContentType: "text/plain",
		Body:        []byte("Supported protocol versions are " + supported),
	}
	f := e.frame(c.encoder())
	f.Headers = append(f.Headers, Header{"version", supported})
	c.sendLast(f)
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
