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

// StompConfig is a node's STOMP servers manifest, stomp.toml: where and how
// its peers send to it ("STOMP Message Transport for the Swaptacular Messaging
// Protocol", section on stomp.toml).
type StompConfig struct {
	Servers              []string // "host:port"; repeats add weight
	Host                 string   // the host header in CONNECT
	Destination          string   // the destination header in SEND
	Login                *string  // optional CONNECT headers
	Passcode             *string
	AcceptedContentTypes []string // best first; application/json is always the last resort

	BundleURLs    []string // where the node publishes its newest info-bundle ([BundleURLsKey])
	BundleURLsErr error    // what is wrong with others that it names; sending does not need them
}

// Bounds on what a peer may put into its stomp.toml. The header limits are
// those of the reference's frames.
const (
	maxStompTOML   = 64 << 10
	maxStompKeys   = 1000 // known or unknown
	maxServers     = 100
	maxHeaderValue = 500
)

// ParseStompTOML reads a stomp.toml. clientID is the node ID of the node that
// is going to dial: it replaces ${NODE_ID} in host, login and destination.
// Unknown keys are allowed. Anything beyond TOML 1.0, which is what the
// reference reads, is refused, and so is a byte order mark.
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
	// A map, because the fields of a struct are found in any letter case.
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
		return nil, fmt.Errorf("servers must name 1 to %d servers as \"host:port\", it names %d", maxServers, n)
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

// readHeaders reads what goes into the headers of CONNECT and SEND.
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

// stringList returns the strings under a key, none if there is no such key.
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

// CheckServer checks a server address as it may stand in a stomp.toml: a DNS
// name or an IPv4 address, a colon, a port. IPv6 addresses are refused because
// the reference's client can not read them, and would then refuse the whole
// file; a DNS name may well have IPv6 addresses.
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

// checkDNSName checks the form of a DNS name. IPv4 addresses have it too.
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

// EncodeStompTOML writes the stomp.toml of a node of the given type, as the
// reference's init does.
func EncodeStompTOML(t nodetype.Type, servers []string) []byte {
	quoted := make([]string, len(servers))
	for i, s := range servers {
		quoted[i] = strconv.Quote(s)
	}
	return fmt.Appendf(nil, "servers = [%s]\nhost = \"/\"\ndestination = %q\n", strings.Join(quoted, ", "), t.Destination())
}
