package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"peerlink/internal/jsonlimit"
)

// Limits of a response: the state of a service with 5,000 peers has less. Reading one takes at most 32 MiB, all that
// is allocated counted together.
const (
	clientTimeout = 15 * time.Second
	maxResponse   = 14 << 20 // bytes of the body
	maxMemory     = 16 << 20 // bytes that decoding it may allocate
)

// ErrNoServer is returned if no HTTP response was received: no server listens at the address,
// the socket is not accessible, or the server has not answered in time.
var ErrNoServer = errors.New("no running service answers")

// Client sends requests to a running service.
type Client struct {
	address Address
	http    *http.Client
}

// NewClient returns a client for the address of a [Server]. A request fails if the response is not
// complete after 15 seconds.
func NewClient(address Address) *Client {
	return &Client{address, &http.Client{
		Timeout: clientTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, address.network, address.address)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Links returns the state of the service.
func (c *Client) Links(ctx context.Context) (*Links, error) {
	body, err := c.do(ctx, http.MethodGet, "/links", "")
	if err != nil {
		return nil, err
	}
	l := new(Links)
	if err := jsonlimit.Unmarshal(body, l, maxMemory); err != nil {
		return nil, fmt.Errorf("%s: the response is not that of a peerlink service: %w", c.address, err)
	}
	return l, nil
}

// LogLevel returns the log level of the service, as the service has sent it: any text, if another
// program listens at the address.
func (c *Client) LogLevel(ctx context.Context) (string, error) {
	body, err := c.do(ctx, http.MethodGet, "/log-level", "")
	return string(bytes.TrimSpace(body)), err
}

// SetLogLevel changes the log level of the service to one that [ParseLevel] accepts.
func (c *Client) SetLogLevel(ctx context.Context, level string) error {
	_, err := c.do(ctx, http.MethodPut, "/log-level", level)
	return err
}

// do sends a request and returns the body of the response. Any status but 200 is an error.
func (c *Client) do(ctx context.Context, method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrNoServer, c.address, err)
	}
	defer res.Body.Close()
	response, err := jsonlimit.ReadBody(res, maxResponse)
	if err != nil {
		return nil, fmt.Errorf("%s: read the response: %w", c.address, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s responded with %s: %.200s", c.address, res.Status, bytes.TrimSpace(response))
	}
	return response, nil
}
