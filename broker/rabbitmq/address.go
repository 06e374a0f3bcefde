package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// writeTimeout is how long one write to RabbitMQ may take. RabbitMQ stops
// reading when it is short of memory or disk, and a machine may vanish; without
// a limit a write would then hold up everybody who uses the connection.
const writeTimeout = 30 * time.Second

// address is where RabbitMQ is, and as whom to log in.
type address struct {
	url   string // with the password
	shown string // without
}

// parseAddress checks an AMQP URL. Its errors do not quote the URL: a password
// with a special character that is not percent-encoded makes any part of it a
// part of the password.
func parseAddress(s string) (address, error) {
	u, err := url.Parse(s)
	if err != nil || strings.Contains(u.EscapedPath()+"?"+u.RawQuery+"#"+u.Fragment, "@") {
		return address{}, errors.New("the broker URL can not be understood: expected amqp://user:password@host:port/vhost," +
			" with special characters in user, password and vhost percent-encoded")
	}
	if u.Scheme != "amqp" && u.Scheme != "amqps" {
		return address{}, errors.New("the broker URL does not start with amqp:// or amqps://")
	}
	if _, err := amqp.ParseURI(s); err != nil {
		return address{}, fmt.Errorf("broker URL %s: %w", u.Redacted(), err)
	}
	return address{url: s, shown: u.Redacted()}, nil
}

// dial connects and logs in. It returns the socket, too: closing that ends the
// connection whatever it waits for. purpose is what RabbitMQ shows to its operator as
// the name of the connection. ctx bounds all of it, not the connection's life.
func (a address) dial(ctx context.Context, purpose string) (*amqp.Connection, net.Conn, error) {
	var socket net.Conn
	conn, err := amqp.DialConfig(a.url, amqp.Config{
		Properties: amqp.Table{"product": "peerlink", "connection_name": "peerlink " + purpose},
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			// Cleared by the library when it is logged in.
			if deadline, ok := ctx.Deadline(); ok {
				if err := c.SetDeadline(deadline); err != nil {
					c.Close()
					return nil, err
				}
			}
			socket = impatientConn{c}
			return socket, nil
		},
	})
	if err != nil {
		if socket != nil {
			socket.Close() // the library leaves it open
		}
		return nil, nil, explain(err)
	}
	return conn, socket, nil
}

// impatientConn fails writes that take longer than writeTimeout.
type impatientConn struct{ net.Conn }

func (c impatientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
