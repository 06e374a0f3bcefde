package node

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"peerlink/internal/excerpt"
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
	maxServers     = 100
	maxHeaderValue = 500
)

// ParseStompTOML reads a stomp.toml. clientID is the node ID of the node that
// is going to dial: it replaces ${NODE_ID} in host, login and destination.
// Unknown keys are allowed.
func ParseStompTOML(data []byte, clientID string) (*StompConfig, error) {
	if len(data) > maxStompTOML {
		return nil, fmt.Errorf("stomp.toml has %d bytes, more than the %d allowed", len(data), maxStompTOML)
	}
	var f struct {
		Servers     []string `toml:"servers"`
		Host        *string  `toml:"host"`
		Destination *string  `toml:"destination"`
		Login       *string  `toml:"login"`
		Passcode    *string  `toml:"passcode"`
		Accepted    []string `toml:"accepted-content-types"`
		BundleURLs  any      `toml:"info-bundle-urls"`
	}
	if err := toml.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("stomp.toml: %w", err)
	}
	if n := len(f.Servers); n == 0 || n > maxServers {
		return nil, fmt.Errorf("stomp.toml: servers must name 1 to %d servers as \"host:port\", it names %d", maxServers, n)
	}
	for _, s := range f.Servers {
		if err := CheckServer(s); err != nil {
			return nil, fmt.Errorf("stomp.toml: servers: %w", err)
		}
	}
	if f.Host == nil || f.Destination == nil {
		return nil, fmt.Errorf("stomp.toml: both host and destination must be given")
	}
	if len(f.Accepted) > maxServers {
		return nil, fmt.Errorf("stomp.toml: accepted-content-types lists %d types, more than %d", len(f.Accepted), maxServers)
	}
	fill := func(s *string) *string {
		if s == nil {
			return nil
		}
		v := strings.ReplaceAll(*s, "${NODE_ID}", clientID)
		return &v
	}
	c := &StompConfig{
		Servers:              f.Servers,
		Host:                 *fill(f.Host),
		Destination:          *fill(f.Destination),
		Login:                fill(f.Login),
		Passcode:             f.Passcode,
		AcceptedContentTypes: append(f.Accepted, "application/json"),
	}
	for key, v := range map[string]*string{"host": &c.Host, "destination": &c.Destination, "login": c.Login, "passcode": c.Passcode} {
		if v != nil && len(*v) > maxHeaderValue {
			return nil, fmt.Errorf("stomp.toml: %s has %d bytes, more than the %d a STOMP header may have", key, len(*v), maxHeaderValue)
		}
	}
	c.BundleURLs, c.BundleURLsErr = bundleURLs(f.BundleURLs)
	return c, nil
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
