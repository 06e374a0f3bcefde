package node

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"peerlink/internal/excerpt"
	"peerlink/internal/toml"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
)

// StompConfig is the content of a node's stomp.toml: the STOMP servers of the node,
// and the parameters with which its peers connect to them ("STOMP Message Transport for
// the Swaptacular Messaging Protocol", section on stomp.toml).
type StompConfig struct {
	Servers              []string // "host:port"; a repeated server is chosen more often
	Host                 string   // the host header in CONNECT
	Destination          string   // the destination header in SEND
	Login                *string  // optional CONNECT headers
	Passcode             *string
	AcceptedContentTypes []string // best first; application/json is always added as the last

	BundleURLs    []string // URLs of the node's newest info-bundle ([BundleURLsKey])
	BundleURLsErr error    // the first error in the list of URLs, which sending does not need
}

// Bounds on the content of a peer's stomp.toml. The limits of headers are the same as
// in the reference's frames.
const (
	maxStompTOML   = infobundle.MaxStompTOML
	maxStompKeys   = 1000 // including unknown keys
	maxServers     = 100  // also the maximum number of accepted content types
	maxHeaderValue = 500  // bytes
)

// ParseStompTOML parses a stomp.toml. clientID is the node ID of the node that
// connects to the servers; it replaces ${NODE_ID} in host, login and destination.
// Unknown keys are allowed. ParseStompTOML accepts TOML 1.0 only, which is what the
// reference reads, and no byte order mark.
func ParseStompTOML(data []byte, clientID string) (*StompConfig, error) {
	c, err := parseStompTOML(data, clientID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", infobundle.StompTOML, err)
	}
	return c, nil
}

func parseStompTOML(data []byte, clientID string) (*StompConfig, error) {
	if len(data) > maxStompTOML {
		return nil, fmt.Errorf("it has %d bytes, more than the %d allowed", len(data), maxStompTOML)
	}
	// A map, because a decoder into a struct ignores the letter case of keys.
	var f map[string]any
	if err := toml.Unmarshal(data, &f, maxStompKeys); err != nil {
		return nil, err
	}
	c := new(StompConfig)
	var err error
	if c.Servers, err = stringList(f, "servers"); err != nil {
		return nil, err
	}
	if n := len(c.Servers); n == 0 || n > maxServers {
		return nil, fmt.Errorf("servers must name 1 to %d servers as \"host:port\", but it names %d", maxServers, n)
	}
	for _, s := range c.Servers {
		if err := CheckServer(s); err != nil {
			return nil, fmt.Errorf("servers: %w", err)
		}
	}
	if c.AcceptedContentTypes, err = stringList(f, "accepted-content-types"); err != nil {
		return nil, err
	}
	if n := len(c.AcceptedContentTypes); n > maxServers {
		return nil, fmt.Errorf("accepted-content-types lists %d types, more than %d", n, maxServers)
	}
	c.AcceptedContentTypes = append(c.AcceptedContentTypes, "application/json")
	if err := c.readHeaders(f, clientID); err != nil {
		return nil, err
	}
	c.BundleURLs, c.BundleURLsErr = bundleURLs(f[BundleURLsKey])
	return c, nil
}

// readHeaders reads the values of the headers of CONNECT and SEND.
func (c *StompConfig) readHeaders(f map[string]any, clientID string) error {
	var host, destination *string
	for key, field := range map[string]**string{"host": &host, "destination": &destination, "login": &c.Login, "passcode": &c.Passcode} {
		v, there := f[key]
		if !there {
			continue
		}
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("%s: expected a string in quotation marks", key)
		}
		if key != "passcode" {
			s = strings.ReplaceAll(s, "${NODE_ID}", clientID)
		}
		if len(s) > maxHeaderValue {
			return fmt.Errorf("%s has %d bytes, more than the %d a STOMP header may have", key, len(s), maxHeaderValue)
		}
		if strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%s has a control character: expected text on one line", key)
		}
		*field = &s
	}
	if host == nil || destination == nil {
		return errors.New("both host and destination must be given")
	}
	c.Host, c.Destination = *host, *destination
	return nil
}

// stringList returns the list of strings under a key, or nil if there is no such key.
func stringList(f map[string]any, key string) ([]string, error) {
	v, there := f[key]
	if !there {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: expected a list of strings, such as [\"a\", \"b\"]", key)
	}
	strs := make([]string, len(list))
	for i, e := range list {
		if strs[i], ok = e.(string); !ok {
			return nil, fmt.Errorf("%s: expected each entry to be a string in quotation marks", key)
		}
	}
	return strs, nil
}

var dnsLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// CheckServer checks the address of a server in a stomp.toml: a DNS name or an IPv4
// address, a colon, a port. IPv6 addresses are refused because the reference's client
// can not parse them, and would refuse the whole file. A DNS name may resolve to IPv6
// addresses.
func CheckServer(s string) error {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return fmt.Errorf("%q has no port: expected \"host:port\", for example \"stomp.example.com:1234\"", excerpt.Of(s))
	}
	if net.ParseIP(strings.Trim(s, "[]")) != nil || strings.HasPrefix(s, "[") {
		return fmt.Errorf("%q is an IPv6 address, which not every peer can read: use a DNS name", excerpt.Of(s))
	}
	if host == "" {
		return fmt.Errorf("%q has no valid host: expected \"host:port\", for example \"stomp.example.com:1234\"", excerpt.Of(s))
	}
	if err := checkDNSName(host); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no valid port: expected a number from 1 to 65535 after the colon", excerpt.Of(s))
	}
	return nil
}

// checkDNSName checks the form of a DNS name. It accepts IPv4 addresses too.
func checkDNSName(host string) error {
	name := strings.TrimSuffix(host, ".")
	valid := len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		valid = valid && dnsLabel.MatchString(label)
	}
	if !valid {
		return fmt.Errorf("%q is not a valid host: expected a DNS name or an IPv4 address", excerpt.Of(host))
	}
	return nil
}

// EncodeStompTOML returns the content of the stomp.toml of a node of the given type, in
// the form that the reference's init writes.
func EncodeStompTOML(t nodetype.Type, servers []string) []byte {
	quoted := make([]string, len(servers))
	for i, s := range servers {
		quoted[i] = strconv.Quote(s)
	}
	return fmt.Appendf(nil, "servers = [%s]\nhost = \"/\"\ndestination = %q\n", strings.Join(quoted, ", "), t.Destination())
}
