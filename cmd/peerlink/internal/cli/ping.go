package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/terminal"
	"peerlink/internal/wait"
	"peerlink/link"
)

// maxPings bounds --count.
const maxPings = 1000

// pingPause is the time between two rounds of "ping".
const pingPause = time.Second

// pingFlags are the flags of "ping".
type pingFlags struct {
	serverCert, serverKey string
	proxy                 outboundProxy
	count                 int
	json                  bool
}

// pingResult is what "ping --json" prints.
type pingResult struct {
	Peer   string       `json:"peer"`
	OK     bool         `json:"ok"`     // all probes
	Probes []link.Probe `json:"probes"` // of each server, as many as there were rounds
}

func (a *app) pingCommand() *cobra.Command {
	var f pingFlags
	c := &cobra.Command{
		Use:   "ping PEER",
		Short: "Connect to each server of a peer now, and show how long that takes",
		Long: `Connects to each server of a peer as "peerlink serve" does, with this node's
certificate, and disconnects. It prints how long each stage has taken:

  dns      resolving the server's name, unless it is an IP address, or --proxy is given
  tcp      connecting, through the proxy if there is one
  tls      the handshake, in which each node verifies the other one's certificates
  connect  opening a STOMP session
  receipt  the end of the session, which the peer confirms: one round trip

Of a stage that fails it prints the error and what can be done. No message is sent,
and no service has to run here. If one runs, its certificate is used unless another is
named. The exit code is 1 if any server fails.`,
		Example: `  peerlink -C my-node ping "Harbour Bank"
  peerlink -C my-node ping 1234abcd --server-cert server.crt --server-key server.key`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.count < 1 || f.count > maxPings {
				return usagef("--count %d: expected 1 to %d", f.count, maxPings)
			}
			if err := a.readNodedataURL(cmd); err != nil {
				return err
			}
			return a.ping(cmd, args[0], f)
		},
	}
	serverCertFlags(c, &f.serverCert, &f.serverKey)
	outboundProxyFlags(c, &f.proxy)
	c.Flags().IntVar(&f.count, "count", 1, "connect to each server `N` times, with a second between")
	jsonFlag(c, &f.json)
	return c
}

func (a *app) ping(cmd *cobra.Command, peer string, f pingFlags) error {
	ctx := cmd.Context()
	d, id, err := a.openPeer(peer)
	if err != nil {
		return err
	}
	log, _, err := a.newLogger(&a.stderr, "warning", "text", false)
	if err != nil {
		return err
	}
	proxy, err := f.proxy.config(ctx, func(text string) { log.Warn(text) })
	if err != nil {
		return err
	}
	f.serverCert, f.serverKey = serviceCertificate(cmd, d, f.serverCert, f.serverKey)
	a.serverFiles(&f.serverCert, &f.serverKey)
	cert, err := loadCertificate(d, f.serverCert, f.serverKey, log)
	if err != nil {
		return err
	}
	pr := link.NewProber(link.Config{Dir: d, Certificate: cert, Proxy: proxy})
	result := pingResult{Peer: id, OK: true}
	for round := range f.count {
		if round > 0 {
			if err := wait.Sleep(ctx, pingPause); err != nil {
				return err
			}
		}
		probes, err := pr.Ping(ctx, id)
		if err != nil {
			return err
		}
		for _, p := range probes {
			result.OK = result.OK && p.OK
			if !f.json {
				a.showProbe(p)
			}
		}
		result.Probes = append(result.Probes, probes...)
	}
	if f.json {
		if err := a.json(result); err != nil {
			return err
		}
	}
	if !result.OK {
		return errSilent
	}
	return nil
}

// showProbe prints a line about a probe and, if it has failed, what that means.
func (a *app) showProbe(p link.Probe) {
	words := []string{terminal.Line(p.Server)}
	if p.Proxy != "" {
		words = append(words, "through "+terminal.Line(p.Proxy))
	}
	for _, s := range p.Stages {
		if s.OK {
			words = append(words, fmt.Sprintf("%s %s", s.Name, milliseconds(s.Seconds)))
		}
	}
	failed := p.Failed()
	if failed == nil {
		a.print("%s", strings.Join(words, "  "))
		return
	}
	a.print("%s  %s FAILED after %s: %s", strings.Join(words, "  "), failed.Name, milliseconds(failed.Seconds), terminal.Line(failed.Detail))
	if p.Failure.Reason != failed.Detail {
		a.print("    %s", terminal.Line(p.Failure.Reason))
	}
	a.print("    what to do: %s", terminal.Line(p.Failure.Remedy))
}

func milliseconds(seconds float64) string { return fmt.Sprintf("%.1f ms", seconds*1000) }
