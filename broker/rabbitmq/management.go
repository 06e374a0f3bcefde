package rabbitmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"peerlink/broker"
	"peerlink/internal/jsonlimit"
)

// Management reads from the HTTP interface of RabbitMQ's management plugin what AMQP does not show.
type Management struct {
	base  *url.URL // without user
	user  *url.Userinfo
	vhost string
	http  http.Client
}

// Bounds of an answer of the management plugin.
const (
	managementTimeout = 5 * time.Second
	maxManagement     = 2 << 20  // bytes
	maxQueueMemory    = 16 << 20 // bytes that decoding an answer may allocate
)

// ErrNoManagement is returned if the management plugin is not there, or does not permit the user.
var ErrNoManagement = errors.New("the management plugin of RabbitMQ does not answer")

// ErrManagementURL is returned for an invalid URL of the management plugin.
var ErrManagementURL = errors.New("invalid URL")

// errNotFound is wrapped in the error of get if the plugin has no such object.
var errNotFound = errors.New("404 Not Found")

// OpenManagement returns a Management for the first of the broker's URLs. base is the URL of the plugin;
// if it is empty, that is the plugin's usual port on the same host, with TLS if the broker's URL has it. The
// user is that of base or, if it has none, that of the broker's URL.
func OpenManagement(brokerURL, base string) (*Management, error) {
	urls, err := parseURLs(brokerURL)
	if err != nil {
		return nil, err
	}
	amqpURL, err := url.Parse(urls[0].url)
	if err != nil {
		return nil, errors.New("the broker URL can not be understood")
	}
	m := &Management{user: amqpURL.User, vhost: vhostOf(amqpURL)}
	m.http = http.Client{Timeout: managementTimeout, Transport: &http.Transport{IdleConnTimeout: 2 * managementTimeout}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if base == "" {
		m.base = usualManagement(amqpURL)
		return m, nil
	}
	if m.base, err = url.Parse(base); err != nil || m.base.Scheme != "http" && m.base.Scheme != "https" || m.base.Host == "" {
		return nil, fmt.Errorf("%w: expected the URL of RabbitMQ's management plugin, such as http://127.0.0.1:15672", ErrManagementURL)
	}
	if m.base.User != nil {
		m.user, m.base.User = m.base.User, nil
	}
	return m, nil
}

func usualManagement(broker *url.URL) *url.URL {
	if broker.Scheme == "amqps" {
		return &url.URL{Scheme: "https", Host: net.JoinHostPort(broker.Hostname(), "15671")}
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(broker.Hostname(), "15672")}
}

func vhostOf(u *url.URL) string {
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		return path
	}
	return "/"
}

// QueueInfo is what the management plugin says about a queue.
type QueueInfo struct {
	Type      string         `json:"type"` // "classic", "quorum" or "stream"
	Policy    string         `json:"policy"`
	Arguments map[string]any `json:"-"`
	Limits    map[string]any `json:"-"` // the definition of the policies that apply
	// LimitsKnown reports whether the plugin knows the policies already: it learns them some
	// seconds after the queue was declared.
	LimitsKnown bool `json:"-"`
}

// Queue returns what the plugin says about a queue. The error wraps [ErrNoManagement] if the plugin can
// not be asked, and [broker.ErrNoQueue] if it knows no such queue.
func (m *Management) Queue(ctx context.Context, name string) (*QueueInfo, error) {
	body, err := m.get(ctx, "/api/queues/"+url.PathEscape(m.vhost)+"/"+url.PathEscape(name))
	if errors.Is(err, errNotFound) {
		return nil, fmt.Errorf("%w: the management plugin does not know %s", broker.ErrNoQueue, name)
	}
	if err != nil {
		return nil, err
	}
	var raw struct {
		QueueInfo
		Arguments json.RawMessage `json:"arguments"`
		Effective json.RawMessage `json:"effective_policy_definition"`
	}
	info := &raw.QueueInfo
	if err = jsonlimit.Unmarshal(body, &raw, maxQueueMemory/2); err == nil {
		info.Arguments, err = object(raw.Arguments)
	}
	if err == nil {
		info.Limits, err = object(raw.Effective)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its answer about queue %s is not JSON of a queue: %w", ErrNoManagement, name, err)
	}
	info.LimitsKnown = len(raw.Effective) > 0
	return info, nil
}

// object returns the members of an object in JSON. Erlang can not tell an empty object from an empty
// list, and writes [] for both.
func object(text json.RawMessage) (members map[string]any, err error) {
	if len(text) == 0 || text[0] == '[' {
		return nil, nil
	}
	if err := jsonlimit.Check(text, &members, maxQueueMemory/4); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return members, d.Decode(&members)
}

func (m *Management) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base.String()+path, nil)
	if err != nil {
		return nil, err
	}
	if m.user != nil {
		password, _ := m.user.Password()
		req.SetBasicAuth(m.user.Username(), password)
	}
	res, err := m.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w at %s", ErrNoManagement, m.base.Host)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w at %s: %w", ErrNoManagement, m.base.Host, errNotFound)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w at %s: %s", ErrNoManagement, m.base.Host, res.Status)
	}
	body, err := jsonlimit.ReadBody(res, maxManagement)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: read its answer: %w", ErrNoManagement, m.base.Host, err)
	}
	return body, nil
}

// Check returns an error that wraps [ErrNoManagement] if the plugin can not be asked.
func (m *Management) Check(ctx context.Context) error {
	_, err := m.get(ctx, "/api/whoami")
	return err
}
