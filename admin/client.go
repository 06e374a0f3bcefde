package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Limits of a response.
const (
	clientTimeout = 15 * time.Second
	maxResponse   = 16 << 20 // bytes of the body
	// maxValues is the maximum number of commas in a response, which is about the number of
	// JSON values.
	maxValues = 1_000_000
	// maxObjects is the maximum number of JSON objects and nulls in a response. Each can cost
	// half a kilobyte of memory.
	maxObjects = 60_000
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
	if n := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("null")); n > maxObjects {
		return nil, fmt.Errorf("%s: the response is too large for one of a peerlink service: it has %d objects and nulls, expected at most %d", c.address, n, maxObjects)
	}
	if n := bytes.Count(body, []byte(",")); n > maxValues {
		return nil, fmt.Errorf("%s: the response is too large for one of a peerlink service: it has %d values, expected at most %d", c.address, n, maxValues)
	}
	l := new(Links)
	if err := json.Unmarshal(body, l); err != nil {
		return nil, fmt.Errorf("%s: the response is not that of a peerlink service: %w", c.address, err)
	}
	return l, nil
}

// LogLevel returns the log level of the service, as the service has sent it: any text, if another
// program listens at the address.
func (c *Client) LogLevel(ctx context.Context) (string, error) {
	body, err := c.do(ctx, http.MethodGet, "/log-level", "")
	return strings.TrimSpace(string(body)), err
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
	response, err := io.ReadAll(io.LimitReader(res.Body, maxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.address, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s responded with %s: %.200s", c.address, res.Status, strings.TrimSpace(string(response)))
	}
	if len(response) > maxResponse {
		return nil, fmt.Errorf("%s: the response is too large for one of a peerlink service: expected at most %d bytes", c.address, maxResponse)
	}
	return response, nil
}
