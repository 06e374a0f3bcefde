package rabbitmq

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// endpoints are the URLs at which RabbitMQ can be reached: one, or those of several nodes of
// a cluster.
type endpoints []endpoint

// endpoint is one URL, with host and credentials.
type endpoint struct {
	url        string // with the password
	redacted   string // without the password
	host, port string
}

// maxURLs bounds the number of URLs.
const maxURLs = 16

// urlStart matches the separator and the beginning of a further URL. A comma alone is no
// separator, since a password may contain a comma.
var urlStart = regexp.MustCompile(`,\s*amqps?://`)

// parseURLs parses AMQP URLs, separated by commas.
func parseURLs(s string) (endpoints, error) {
	s = strings.TrimSpace(s)
	var list endpoints
	for {
		text, rest := s, ""
		start := urlStart.FindStringIndex(s)
		if start != nil {
			text, rest = s[:start[0]], s[start[0]+1:]
		}
		n, err := parseURL(strings.TrimSpace(text))
		if err != nil && (start != nil || list != nil) {
			err = fmt.Errorf("URL number %d: %w", len(list)+1, err)
		}
		if err != nil {
			return nil, err
		}
		if list = append(list, n); len(list) > maxURLs {
			return nil, fmt.Errorf("there are more than %d broker URLs", maxURLs)
		}
		if start == nil {
			return list, nil
		}
		s = strings.TrimSpace(rest)
	}
}

// parseURL parses one AMQP URL. Its errors contain no password: if the URL cannot be parsed,
// or contains an "@" after the host, a password may have special characters that are not
// percent-encoded, so that any part of the URL may be a part of the password. The URL is
// quoted in no error then, and otherwise without the password.
func parseURL(s string) (endpoint, error) {
	u, err := url.Parse(s)
	if err != nil || strings.Contains(u.EscapedPath()+"?"+u.RawQuery+"#"+u.Fragment, "@") {
		return endpoint{}, errors.New("the broker URL can not be understood: expected amqp://user:password@host:port/vhost," +
			" with special characters in user, password and vhost percent-encoded; several such URLs with commas between them")
	}
	if u.Scheme != "amqp" && u.Scheme != "amqps" {
		return endpoint{}, errors.New("the broker URL does not start with amqp:// or amqps://")
	}
	parsed, err := amqp.ParseURI(s)
	if err != nil {
		return endpoint{}, fmt.Errorf("broker URL %s: %w", u.Redacted(), err)
	}
	return endpoint{url: s, redacted: u.Redacted(), host: parsed.Host, port: fmt.Sprint(parsed.Port)}, nil
}

// String returns the URLs without passwords.
func (e endpoints) String() string {
	texts := make([]string, len(e))
	for i, n := range e {
		texts[i] = n.redacted
	}
	return strings.Join(texts, ",")
}

// WithoutPasswords returns AMQP URLs, separated by commas, without the passwords in them. If they are not
// valid, it returns a text that has nothing of them.
func WithoutPasswords(urls string) string {
	e, err := parseURLs(urls)
	if err != nil {
		return "(not a URL of RabbitMQ)"
	}
	return e.String()
}
