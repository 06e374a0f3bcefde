package link

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/outproxy"
	"peerlink/node"
	"peerlink/stomp"
)

// The stages of a [Probe], in their order.
const (
	StageDNS     = "dns"     // resolving the name of the server; missing if it is an IP address, or a proxy resolves it
	StageTCP     = "tcp"     // connecting, through the proxy if there is one
	StageTLS     = "tls"     // the handshake, in which each side verifies the certificates of the other
	StageConnect = "connect" // the opening of a STOMP session
	StageReceipt = "receipt" // DISCONNECT and its receipt, one round trip
)

// Probe is the result of connecting to one server of a peer with this node's certificate, and
// disconnecting. No message is sent.
type Probe struct {
	Server  string    `json:"server"`            // as in the peer's stomp.toml
	Address string    `json:"address,omitempty"` // the IP address and port that TCP connected to; empty with a proxy
	Proxy   string    `json:"proxy,omitempty"`   // the URL of the proxy, without user name and password
	At      time.Time `json:"at"`                // when it began
	OK      bool      `json:"ok"`
	Stages  []Stage   `json:"stages"` // up to and including the first that failed
	// Failure is what the failed stage means for sending to the peer; nil if OK.
	Failure *LinkState `json:"failure,omitempty"`

	// Shown is what the server has shown in the TLS handshake, whether this node accepts it or not;
	// nil before that.
	Shown *Shown `json:"-"`
	// Refused is set if the peer has refused the certificates of this node.
	Refused bool `json:"-"`
	// LosesLargePackets is set if the TLS handshake was possible only without a post-quantum key
	// exchange, which has larger packets.
	LosesLargePackets bool `json:"-"`
	// HeartBeat has the intervals that were agreed on in STOMP.
	HeartBeat stomp.HeartBeat `json:"-"`
}

// Shown is what a server has shown in a TLS handshake.
type Shown struct {
	Version     string // of TLS
	KeyExchange string
	Chain       []*x509.Certificate // as sent, the server's first; not verified
}

// Describe returns the certificates in words: the name and the key of each.
func (s *Shown) Describe() string {
	var parts []string
	for _, c := range s.Chain {
		parts = append(parts, describeCertificate(c))
	}
	return strings.Join(parts, " < ")
}

// Stage is one stage of a [Probe].
type Stage struct {
	Name    string  `json:"stage"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail,omitempty"` // what was found; of a failed stage, the error, which may quote the peer
	Err     error   `json:"-"`                // nil if OK
}

// Failed returns the stage that failed, nil if none did.
func (p *Probe) Failed() *Stage {
	if n := len(p.Stages); n > 0 && !p.Stages[n-1].OK {
		return &p.Stages[n-1]
	}
	return nil
}

// Prober probes servers of peers, as a service with the same configuration would connect to them.
type Prober struct{ *shared }

// NewProber returns a Prober. Of cfg it needs Dir and Certificate, and not Broker. Without Certificate,
// its probes end after the TLS handshake, in which only the peer shows certificates.
func NewProber(cfg Config) *Prober {
	cfg.setDefaults()
	if cfg.Certificate != nil {
		cfg.Certificate.setClock(cfg.Now)
	}
	return &Prober{&shared{cfg: cfg, log: cfg.Log}}
}

// Ping probes each server of a peer, one after the other. The error is [ErrNotActive] if there must
// be no traffic with the peer, or an error of the peer's files. That of a probe is in its result.
func (pr *Prober) Ping(ctx context.Context, peerID string) ([]Probe, error) {
	p, err := pr.Peer(peerID)
	if err != nil {
		return nil, err
	}
	var probes []Probe
	for _, server := range servers(p) {
		probe := pr.Probe(ctx, p, server, "tcp")
		if ctx.Err() != nil {
			return probes, context.Cause(ctx)
		}
		probes = append(probes, probe)
	}
	return probes, nil
}

// Peer reads a peer's files. It returns an error unless the peer's servers can be probed.
func (pr *Prober) Peer(peerID string) (*node.Peer, error) {
	p, err := pr.cfg.Dir.Peer(peerID)
	switch {
	case err != nil:
		return nil, err
	case p.Deactivated != "":
		return nil, fmt.Errorf("%w: %s has been deactivated", ErrNotActive, peerID)
	case p.Suspended != nil:
		return nil, fmt.Errorf("%w: the link with %s is suspended here; resume it first (peerlink peer resume %s)", ErrNotActive, peerID, peerID)
	case p.SubCA == nil:
		return nil, fmt.Errorf("%w: there is no peer certificate from %s, without which its servers refuse this node; register the one that its owner has sent (peerlink peer register CERT)", ErrNotActive, peerID)
	case p.StompErr != nil:
		return nil, fmt.Errorf("peer %s: %w", peerID, p.StompErr)
	case p.RevokedErr != nil:
		return nil, fmt.Errorf("peer %s: %w", peerID, p.RevokedErr)
	}
	return p, nil
}

// probing is a probe in progress.
type probing struct {
	Probe
	*shared
	peer *node.Peer
	conn net.Conn
	tls  *peerConn
}

// Probe probes one server of a peer, an address as host:port. network is "tcp", or "tcp4" or "tcp6"
// for addresses of one family only, which a proxy does not know. All stages together take at most about the times of the
// configuration. If no certificate from the peer is registered, the probe ends after the TLS handshake.
func (pr *Prober) Probe(ctx context.Context, p *node.Peer, server, network string) Probe {
	pg := &probing{Probe: Probe{Server: server, At: time.Now().UTC()}, shared: pr.shared, peer: p}
	err := pg.run(ctx, network)
	if pg.conn != nil {
		pg.conn.Close()
	}
	pg.OK = err == nil
	if err != nil {
		failure := explain(err, p.Identity.ID, pr.cfg.Now())
		failure.Since = pg.At
		if proxy := new(outproxy.Error); errors.As(err, &proxy) {
			failure.Remedy = proxyRemedy(proxy)
		} else if failure.Verdict == VerdictUnreachable {
			failure.Remedy = unreachableRemedy(pg.Failed().Name, p.Identity.ID)
		}
		pg.Failure = &failure
	}
	return pg.Probe
}

// unreachableRemedy returns what the operator can do if no session with the peer could be opened
// because the stage failed. It is more exact than that of [LinkState], which is to probe.
func unreachableRemedy(stage, peer string) string {
	switch stage {
	case StageDNS:
		return fmt.Sprintf("if other names can be resolved here, ask the owner of %s for its present address, in a new info-bundle: peerlink peer sign BUNDLE.zip", peer)
	case StageTCP:
		return fmt.Sprintf("see that no firewall between here and there blocks the port, and ask the owner of %s whether its service runs at this address", peer)
	case StageTLS:
		return fmt.Sprintf("ask the owner of %s which program listens at this address; if it is peerlink, the network may lose large packets", peer)
	}
	return fmt.Sprintf("ask the owner of %s to look into the log of its service", peer)
}

// proxyRemedy returns what the operator can do if the proxy makes no connection to the peer.
func proxyRemedy(e *outproxy.Error) string {
	return fmt.Sprintf("see that --proxy is right and %s can be reached from here; if it answers, ask who runs it whether it permits connections to %s, and can make them", e.Proxy, excerpt.Of(e.Address))
}

func (pg *probing) run(ctx context.Context, network string) error {
	if err := pg.reach(ctx, network); err != nil {
		return err
	}
	if err := pg.stage(StageTLS, func() (string, error) { return pg.handshake(ctx) }); err != nil {
		_, pg.Refused = certificateAlert(err)
		return err
	}
	if pg.tls.own == nil {
		return nil
	}
	return pg.session(ctx)
}

// reach makes a TCP connection, in one or two stages.
func (pg *probing) reach(ctx context.Context, network string) error {
	if pg.cfg.Proxy != nil {
		pg.Proxy = pg.cfg.Proxy.String()
		return pg.stage(StageTCP, func() (detail string, err error) {
			pg.conn, err = pg.dialTCP(ctx, pg.Server)
			return "through the proxy " + pg.Proxy, err
		})
	}
	host, port, err := net.SplitHostPort(pg.Server)
	if err != nil {
		return pg.stage(StageDNS, func() (string, error) { return "", err })
	}
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = append(ips, ip)
	} else if err := pg.stage(StageDNS, func() (detail string, err error) {
		ips, err = pg.resolve(ctx, host, network)
		return joinAddresses(ips), err
	}); err != nil {
		return err
	}
	return pg.stage(StageTCP, func() (string, error) { return pg.connect(ctx, network, ips, port) })
}

// stage runs a stage, and records its result.
func (pg *probing) stage(name string, do func() (detail string, err error)) error {
	begin := time.Now()
	detail, err := do()
	s := Stage{Name: name, OK: err == nil, Seconds: time.Since(begin).Seconds(), Detail: detail, Err: err}
	if err != nil {
		s.Detail = describeNetworkError(err)
	}
	pg.Stages = append(pg.Stages, s)
	return err
}

func (pg *probing) resolve(ctx context.Context, host, network string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, pg.cfg.ConnectTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, strings.Replace(network, "tcp", "ip", 1), host)
	return ips[:min(len(ips), maxAddresses)], err
}

func joinAddresses(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.Unmap().String())
	}
	return strings.Join(texts, ", ")
}

// connect connects to the first address that accepts.
func (pg *probing) connect(ctx context.Context, network string, ips []netip.Addr, port string) (detail string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pg.cfg.ConnectTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: pg.cfg.ConnectTimeout / time.Duration(max(len(ips), 1))}
	errs := []error{}
	if len(ips) == 0 {
		return "", fmt.Errorf("%s has no address", pg.Server)
	}
	for _, ip := range ips {
		addr := net.JoinHostPort(ip.Unmap().String(), port)
		pg.conn, err = dialer.DialContext(ctx, network, addr)
		if err == nil {
			pg.Address = addr
			return addr, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// handshake completes the TLS handshake. The peer may refuse this node's certificates later: its
// alert arrives after the handshake. If there is no answer in time, handshake connects again, and
// offers key exchanges with small packets only.
func (pg *probing) handshake(ctx context.Context) (detail string, err error) {
	if pg.cfg.Certificate != nil && pg.peer.SubCA != nil {
		if err := pg.checkClientChain(&peerState{Peer: pg.peer}); err != nil {
			return "", err
		}
	}
	pg.tls, err = pg.clientHandshake(ctx, pg.conn, pg.peer, nil, pg.show)
	if errors.Is(err, errTLSTimeout) && pg.classicalHandshake(ctx) == nil {
		pg.LosesLargePackets, err = true, nil
	}
	if err != nil {
		return "", err
	}
	pg.conn = pg.tls
	detail = fmt.Sprintf("%s, %s, %s", pg.Shown.Version, pg.Shown.KeyExchange, describeChain(pg.tls.chain))
	if pg.LosesLargePackets {
		detail += "; only with a key exchange that has small packets: the network loses large ones"
	}
	return detail, nil
}

// classicalHandshake connects again, and completes the handshake with a key exchange that needs small
// packets only.
func (pg *probing) classicalHandshake(ctx context.Context) error {
	conn, err := pg.dialTCP(ctx, cmp.Or(pg.Address, pg.Server))
	if err != nil {
		return err
	}
	pg.tls, err = pg.clientHandshake(ctx, conn, pg.peer, classical, pg.show)
	return err
}

// show records what the server has shown.
func (pg *probing) show(cs tls.ConnectionState) {
	pg.Shown = &Shown{Version: tls.VersionName(cs.Version), KeyExchange: cs.CurveID.String(), Chain: cs.PeerCertificates}
}

// session opens a STOMP session and ends it.
func (pg *probing) session(ctx context.Context) error {
	var client *stomp.Client
	err := pg.stage(StageConnect, func() (detail string, err error) {
		c := pg.peer.Stomp
		client, err = stomp.NewClient(ctx, pg.tls, stomp.ClientConfig{
			Host: c.Host, Login: c.Login, Passcode: c.Passcode, Destination: c.Destination,
			HeartBeat: pg.cfg.HeartBeat, ConnectTimeout: pg.cfg.ConnectTimeout,
		})
		return "", err
	})
	if _, ok := certificateAlert(err); ok {
		pg.Refused = true
		pg.blameTLS()
	}
	if err != nil {
		return err
	}
	pg.HeartBeat = client.HeartBeat()
	defer client.Close()
	if err := awaitRefusal(ctx, client); err != nil {
		connect := &pg.Stages[len(pg.Stages)-1]
		connect.OK, connect.Err, connect.Detail = false, err, describeNetworkError(err)
		return err
	}
	return pg.stage(StageReceipt, func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, pg.cfg.DrainTimeout)
		defer cancel()
		return "", client.Disconnect(ctx)
	})
}

// blameTLS makes the TLS stage the one that failed: with TLS 1.3, a client learns only after the
// handshake that the server has refused its certificates.
func (pg *probing) blameTLS() {
	n := len(pg.Stages)
	refused := pg.Stages[n-1]
	refused.Name, refused.Seconds = StageTLS, refused.Seconds+pg.Stages[n-2].Seconds
	pg.Stages = append(slices.Clip(pg.Stages[:n-2]), refused)
}
