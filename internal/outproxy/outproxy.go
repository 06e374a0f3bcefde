// Package outproxy makes TCP connections through an outbound proxy: SOCKS5 (RFC 1928, RFC 1929) or
// HTTP CONNECT (RFC 9110, section 9.3.6).
//
// The proxy resolves host names; this package does not. What the proxy sends before the connection
// is established is bounded in size, and in time by the context. No error contains a user name or a
// password.
package outproxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"peerlink/internal/excerpt"
)

const (
	maxURL = 1000 // bytes of a proxy's URL
	// maxCredential is the maximum size, in bytes, of a user name and of a password (RFC 1929).
	maxCredential = 255
	// maxAnswer is the maximum size, in bytes, of the header of an HTTP proxy's answer.
	maxAnswer = 16 << 10
)

// Proxy is an outbound proxy. It can be used by several goroutines at once.
type Proxy struct {
	scheme, address string // address is host:port
	user            *url.Userinfo
}

// expectedURL is the form of a proxy's URL, for errors.
const expectedURL = "expected socks5://host:port or http://host:port, with user@ before the host if the proxy wants one"

// Parse returns the proxy with a URL: socks5://host:port or http://host:port. A user name, and a
// password after it, may precede the host. socks5h:// means the same as socks5://. Errors do not
// contain the URL, because it may contain a password.
func Parse(text string) (*Proxy, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Host == "" || len(text) > maxURL {
		return nil, errors.New("it is not the URL of a proxy: " + expectedURL + " (other characters than letters and digits in a user name or password as %XX)")
	}
	p := &Proxy{scheme: u.Scheme, address: u.Host, user: u.User}
	switch p.scheme {
	case "socks5", "http":
	case "socks5h":
		p.scheme = "socks5"
	default:
		return nil, fmt.Errorf("proxies with %q URLs are not supported: %s", excerpt.Of(u.Scheme), expectedURL)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 || u.Hostname() == "" {
		return nil, errors.New("the proxy's URL has no host and port: " + expectedURL)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the proxy's URL has something after the port: " + expectedURL)
	}
	return p, p.checkUser()
}

func (p *Proxy) checkUser() error {
	if p.user == nil {
		return nil
	}
	password, _ := p.user.Password()
	switch {
	case p.user.Username() == "":
		return errors.New("the proxy's URL has a password and no user name")
	case len(p.user.Username()) > maxCredential, len(password) > maxCredential:
		return fmt.Errorf("the user name or password for the proxy has more than %d bytes", maxCredential)
	case p.scheme == "http" && strings.Contains(p.user.Username(), ":"):
		return errors.New("the user name for an HTTP proxy must not contain a colon")
	}
	return nil
}

// WithPassword returns a proxy like p with this password. It fails if the URL of p has no user name,
// or has a password.
func (p *Proxy) WithPassword(password string) (*Proxy, error) {
	if p.user == nil {
		return nil, errors.New("there is a password for the proxy, but its URL has no user name before the host")
	}
	if _, given := p.user.Password(); given {
		return nil, errors.New("there are two passwords for the proxy, one of them in its URL: remove one")
	}
	with := *p
	with.user = url.UserPassword(p.user.Username(), password)
	return &with, with.checkUser()
}

// String returns the URL of the proxy, without user name and password.
func (p *Proxy) String() string { return p.scheme + "://" + p.address }

// Error is the error of a connection that could not be made because of the proxy: it cannot be
// reached, or it has not made the connection.
type Error struct {
	Proxy   string // its URL, without user name and password
	Address string // to which it was asked to connect
	// Err is why. If the proxy has answered, the text contains what it has said.
	Err error
}

// Error returns the names of the proxy and the address, and the cause.
func (e *Error) Error() string {
	return fmt.Sprintf("proxy %s, for a connection to %s: %v", e.Proxy, e.Address, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errNoAnswer means that the proxy has accepted a connection, and has not answered before the end of
// the context.
var errNoAnswer = errors.New("it accepts the connection, and does not answer in time")

// Dial connects to an address, as host:port, through the proxy. The end of ctx interrupts it, and has
// no effect later. The error is an [*Error].
func (p *Proxy) Dial(ctx context.Context, address string) (net.Conn, error) {
	dial := p.dialHTTP
	if p.scheme == "socks5" {
		dial = p.dialSOCKS
	}
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, &Error{p.String(), address, err}
	}
	return conn, nil
}

// dialSOCKS connects by SOCKS5.
func (p *Proxy) dialSOCKS(ctx context.Context, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.user != nil {
		password, _ := p.user.Password()
		auth = &proxy.Auth{User: p.user.Username(), Password: password}
	}
	var toProxy rememberingDialer
	d, err := proxy.SOCKS5("tcp", p.address, auth, &toProxy)
	if err != nil {
		return nil, err
	}
	if _, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", address); err != nil {
		return nil, socksError(ctx, err, toProxy.conn != nil)
	}
	// The connection itself is returned, not the wrapper, which lacks the methods of a TCP connection.
	// Nothing was read ahead.
	return toProxy.conn, nil
}

// rememberingDialer makes the connection to the proxy, and keeps it in conn.
type rememberingDialer struct {
	net.Dialer
	conn net.Conn
}

// DialContext implements [proxy.ContextDialer].
func (d *rememberingDialer) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	d.conn, err = d.Dialer.DialContext(ctx, network, address)
	return d.conn, err
}

// socksError returns the cause in an error of package proxy. connected reports whether there was a
// connection to the proxy.
func socksError(ctx context.Context, err error, connected bool) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && strings.HasPrefix(op.Op, "socks") {
		err = op.Err
	}
	if !connected {
		return err
	}
	return handshakeError(ctx, errors.New("it answers: "+strings.TrimPrefix(err.Error(), "unknown error ")), err)
}

// handshakeError returns the error of a handshake with the proxy: answered if the proxy has answered,
// and otherwise an error that says how it has failed. err is what has interrupted the handshake.
func handshakeError(ctx context.Context, answered, err error) error {
	var network *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return errNoAnswer
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return fmt.Errorf("it has closed the connection without a complete answer: %w", err)
	}
	return answered
}

// dialHTTP connects by HTTP CONNECT.
func (p *Proxy) dialHTTP(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	// An expired deadline interrupts what is blocked.
	interrupted := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = p.requestConnect(conn, address)
	if !interrupted() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, handshakeError(ctx, err, err)
	}
	return conn, nil
}

// requestConnect sends an HTTP proxy the request to connect, and reads the answer.
func (p *Proxy) requestConnect(conn net.Conn, address string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: make(http.Header)}
	req.Header.Set("User-Agent", "peerlink")
	if p.user != nil {
		password, _ := p.user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(p.user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	buffered := bufio.NewReader(limited)
	resp, err := http.ReadResponse(buffered, req)
	switch {
	case err != nil && limited.N <= 0:
		return fmt.Errorf("it answers with a header of more than %d bytes", maxAnswer)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case err != nil && !isNetworkError(err):
		return errors.New("it does not answer as an HTTP proxy")
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		// The text after the number is not shown: a proxy could put the password there.
		return fmt.Errorf("it answers %s", strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", http.StatusText(resp.StatusCode))))
	case buffered.Buffered() > 0:
		return errors.New("it sends data before the connection is used")
	}
	return nil
}

func isNetworkError(err error) bool {
	var network *net.OpError
	return errors.As(err, &network)
}
