package local

import (
	"context"
	"errors"
	"net"

	"peerlink/internal/pendingconns"
	"peerlink/internal/socket"
)

// errTooManyOpening is the cause when a connection that has not sent the passcode is closed
// because there are too many of these, or because no file descriptors are left.
var errTooManyOpening = errors.New("too many connections have not shown the passcode")

// openingConn is an accepted connection that has not sent the passcode yet.
type openingConn struct {
	nc      net.Conn
	user    int             // the user of the client, -1 if unknown
	ctx     context.Context // ends with the connection, or when the door is closed
	cancel  context.CancelCauseFunc
	pending *pendingconns.Conn[int]
}

// newOpeningConn adds a connection to those that have not sent the passcode.
func newOpeningConn(ctx context.Context, nc net.Conn, pending *pendingconns.Set[int]) *openingConn {
	c := &openingConn{nc: nc, user: socket.ClientUser(nc)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.pending = pending.Add(c.user, c)
	return c
}

// Close closes the connection in favour of others. [pendingconns.Set] calls it.
func (c *openingConn) Close() error {
	c.cancel(errTooManyOpening)
	return c.nc.Close()
}

// admit removes the connection from those that have not sent the passcode, so that it is
// not closed in favour of others any more. It returns an error if the connection has been
// closed already.
func (c *openingConn) admit() error {
	if !c.pending.Remove() {
		return errTooManyOpening
	}
	return nil
}

// done releases what belongs to the connection. It is called when the connection has
// ended.
func (c *openingConn) done() {
	c.pending.Remove()
	c.cancel(nil)
}
