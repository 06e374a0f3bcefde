package rabbitmq

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// address is one URL with host and credentials of RabbitMQ, or the URLs of several nodes
// of a cluster.
type address []node

// node is one URL.
type node struct {
	url        string // with the password
	shown      string // without the password
	host, port string
}

// maxURLs is the maximum number of URLs of an address.
const maxURLs = 16

// urlStart matches the beginning of a further URL. A comma alone is no separator, since a
// password may contain one.
var urlStart = regexp.MustCompile(`,\s*amqps?://`)

// parseAddress parses AMQP URLs, separated by commas. Its errors do not quote a URL: if a
// password has a special character that is not percent-encoded, any part of the URL may be
// a part of the password.
func parseAddress(s string) (address, error) {
	s = strings.TrimSpace(s)
	var a address
	for {
		one, rest := s, ""
		start := urlStart.FindStringIndex(s)
		if start != nil {
			one, rest = s[:start[0]], s[start[0]+1:]
		}
		n, err := parseURL(strings.TrimSpace(one))
		if err != nil && (start != nil || a != nil) {
			err = fmt.Errorf("URL number %d: %w", len(a)+1, err)
		}
		if err != nil {
			return nil, err
		}
		if a = append(a, n); len(a) > maxURLs {
			return nil, fmt.Errorf("there are more than %d broker URLs", maxURLs)
		}
		if start == nil {
			return a, nil
		}
		s = strings.TrimSpace(rest)
	}
}

func parseURL(s string) (node, error) {
	u, err := url.Parse(s)
	if err != nil || strings.Contains(u.EscapedPath()+"?"+u.RawQuery+"#"+u.Fragment, "@") {
		return node{}, errors.New("the broker URL can not be understood: expected amqp://user:password@host:port/vhost," +
			" with special characters in user, password and vhost percent-encoded; several such URLs with commas between them")
	}
	if u.Scheme != "amqp" && u.Scheme != "amqps" {
		return node{}, errors.New("the broker URL does not start with amqp:// or amqps://")
	}
	parsed, err := amqp.ParseURI(s)
	if err != nil {
		return node{}, fmt.Errorf("broker URL %s: %w", u.Redacted(), err)
	}
	return node{url: s, shown: u.Redacted(), host: parsed.Host, port: fmt.Sprint(parsed.Port)}, nil
}

// String returns the URLs without passwords.
func (a address) String() string {
	shown := make([]string, len(a))
	for i, n := range a {
		shown[i] = n.shown
	}
	return strings.Join(shown, ",")
}
