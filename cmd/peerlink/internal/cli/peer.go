package cli

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/pki"
)

func (a *app) peerCommand() *cobra.Command {
	return group("peer", "Become peers with other nodes, and show the states of the peerings",
		a.peerAddCommand(), a.peerSignCommand(), a.peerRegisterCommand(), a.peerListCommand(), a.peerShowCommand(), a.peerNameCommand(), a.peerQueuesCommand(), a.peerFollowCommand(), a.peerSuspendCommand(), a.peerResumeCommand(),
		a.peerRemoveCommand(), a.peerReplaceCommand(), a.peerDeactivateCommand())
}

func (a *app) peerSignCommand() *cobra.Command {
	var t trustFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "sign BUNDLE.zip",
		Short: "Take a node's info-bundle: make it a peer, or update what is known of it",
		Long: `Checks another node's info-bundle, pins its root certificate for ever, and signs
the peer certificate that has to be sent back to its owner. For a node that is a
peer already, a newer bundle updates its servers' addresses; that needs no root
key, unless its peer certificate is not valid, because it was signed with a wrong
clock: then a new one is signed, with the same subnet. A bundle that differs
from what is known, but is not newer, is refused. Dates are compared in UTC.

The ID of an agent is derived from its key, so it needs no check. That of an
accounting authority is not: ask its owner for the fingerprint, in words, over another
channel than the bundle's, or look it up in a registry that you trust.`,
		Example: `  peerlink peer sign their-node.zip
  peerlink peer sign --fingerprint sha256:0f3a… their-node.zip
  peerlink peer sign --fingerprint 'aardvark adroitness …' their-node.zip
  peerlink peer sign --registry https://example.org/authorities.toml --registry-key publisher.pem their-node.zip`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			b, err := readBundle(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.checkTrust(cmd.Context(), b, t); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			res, err := d.SignPeer(cmd.Context(), b, func() (crypto.Signer, error) {
				if err := a.confirmRootKey(cmd.Context(), b, t); err != nil {
					return nil, err
				}
				return a.announcedKey(cmd.Context(), d, func() {
					a.announceSigning(fmt.Sprintf("Signing the peer certificate of %s", b.Identity), b.Root.PublicKey)
				})
			})
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			id := res.Peer.Identity
			if err := a.result(asJSON, signedPeer{res.CertFile, res.New, res.Renewed, res.Updated, describePeer(d, res.Peer)}, res.CertFile); err != nil {
				return err
			}
			switch {
			case res.New:
				a.printMessage("Send this certificate to the owner of %s, who files it with\n\"peerlink peer register\". Send them your info-bundle too, if they do not have it\n(\"peerlink bundle create\"), and register the certificate that they send you.", id)
			case res.Renewed:
				a.printMessage("The certificate that %s was given before is not valid now, so this is a new one: send it to the\nowner, who files it with \"peerlink peer register\".", id)
				if res.IgnoredReason != "" {
					a.warn("%s: nothing else was taken over: %s.", args[0], res.IgnoredReason)
				}
			case res.Updated:
				a.printMessage("%s was known already: took over its newer info (%s).", id, res.Peer.UpdatedAt)
			case res.IgnoredReason != "":
				err = fmt.Errorf("%s: nothing was taken over for %s, which is known already: %s", args[0], id, res.IgnoredReason)
			default:
				a.printMessage("%s was known already, and so is all that this bundle says (%s): nothing to do.", id, orNone(res.Peer.UpdatedAt))
			}
			a.warnDeactivated(id.ID, res.Peer.Deactivated)
			if res.Peer.SubCA == nil {
				return err
			}
			// Done even if the peer is up to date, because an earlier run may have been
			// interrupted before this.
			return errors.Join(err, a.updateKustomize(d, res.Peer))
		},
	}
	t.add(c)
	jsonFlag(c, &asJSON)
	a.kustomizeFlag(c)
	return a.keyFlags(c)
}

func (a *app) peerRegisterCommand() *cobra.Command {
	var asJSON bool
	c := a.kustomizeFlag(&cobra.Command{
		Use:   "register CERT",
		Short: "File the peer certificate that a peer has issued to this node",
		Long: `Checks the peer certificate that the owner of another node has sent, and files it.
The node must have been signed here first ("peerlink peer sign"). From then on
"peerlink serve" keeps a link to it.`,
		Example: "  peerlink peer register peercert.crt",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			data, err := readText(cmd.Context(), args[0], maxInputFile)
			if err != nil {
				return err
			}
			p, already, err := d.RegisterPeer(cmd.Context(), data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := a.result(asJSON, describePeer(d, p), p.Identity.ID); err != nil {
				return err
			}
			if already {
				a.printMessage("%s was registered already, with this very certificate.", p.Identity)
			} else {
				a.printMessage("%s is registered. A running \"peerlink serve\" links to it within seconds.", p.Identity)
				a.warnOtherSubnet(d, p)
			}
			a.warnDeactivated(p.Identity.ID, p.Deactivated)
			return a.updateKustomize(d, p)
		},
	})
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) peerListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the peers and the state of each peering",
		Long: `Lists the peers. Their states:

  signed       we have issued a peer certificate and wait for the peer's
  registered   both certificates are there; the service has not run since
  active       the service has set up the link
  suspended    the link is paused ("peerlink peer suspend")
  deactivated  the link was ended for good`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			ids, err := d.PeerIDs()
			if err != nil {
				return err
			}
			list := make([]peerInfo, 0, len(ids))
			peers := &grid{columns: []column{{title: "ID"}, nameColumn, {title: "TYPE", drop: 2}, {title: "STATE"}, {title: "SUBNET", drop: 1}, {title: "SERVERS", cut: 24}}}
			var broken []error
			for _, id := range ids {
				p, err := d.Peer(id)
				if err != nil {
					broken = append(broken, err)
					continue
				}
				info := describePeer(d, p)
				list = append(list, info)
				peers.add(info.ID, info.Name, info.Type, info.State, orNone(info.Subnet), strings.Join(info.Servers, ", "))
			}
			if asJSON {
				err = a.json(list)
			} else if len(list) > 0 {
				a.showGrid(peers)
			} else if len(broken) == 0 {
				a.printMessage("No peers yet. Ask the owner of another node for an info-bundle, or its URL, then \"peerlink peer add\".")
			}
			return errors.Join(append(broken, err)...)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) peerShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show PEER",
		Short: "Show everything about one peer",
		Args:  someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			p, err := d.Peer(id)
			if err != nil {
				return err
			}
			info := describePeer(d, p)
			if asJSON {
				return a.json(info)
			}
			rows := [][2]string{
				{"node ID", info.ID},
				{"name", info.Name},
				{"type", info.Type},
				{"state", info.State},
				{"deactivated", info.Deactivated},
				{"suspended", info.Suspended},
				{"reason", info.SuspendReason},
			}
			rows = append(rows, fingerprintRows(info.Fingerprint, info.FingerprintWords)...)
			rows = append(rows, [][2]string{
				{"subnet", info.Subnet},
				{"queues", fmt.Sprint(info.Queues)},
				{"servers", strings.Join(info.Servers, ", ")},
				{"servers problem", info.ServersProblem},
				{"bundle made", info.UpdatedAt},
				{"bundle URLs", strings.Join(info.BundleURLs, ", ")},
				{"URLs problem", info.BundleURLsProblem},
				{"followed", info.followed()},
				{"issued", info.Issued.String()},
				{"received", info.Received.String()},
			}...)
			shown := rows[:0]
			for _, r := range rows {
				if r[1] != "" {
					shown = append(shown, r)
				}
			}
			a.table(shown)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) peerQueuesCommand() *cobra.Command {
	var asJSON bool
	c := a.kustomizeFlag(&cobra.Command{
		Use:   "queues PEER N",
		Short: "Set the number of queues and connections for sending to a peer",
		Long: `Sets how many queues, with a connection each, carry messages to a peer when the
broker is RabbitMQ. The number may only grow, up to 99; but a peer accepts 10
connections unless its operator has changed that, and messages in a queue without
a connection are not sent. The embedded broker needs no more than one.`,
		Args: someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return usagef("%q is not a number of queues", args[1])
			}
			if err := d.SetQueues(cmd.Context(), id, n); err != nil {
				return err
			}
			a.printMessage("Peer %s has %d queues.", id, n)
			return errors.Join(a.changedPeer(d, id, asJSON), a.updateKustomizeOf(d, id))
		},
	})
	jsonFlag(c, &asJSON)
	return c
}

// signedPeer is the result of "peer sign" in JSON.
type signedPeer struct {
	File    string   `json:"file"`    // the peer certificate for the peer
	New     bool     `json:"new"`     // the node was no peer before
	Renewed bool     `json:"renewed"` // the certificate is a new one for a known peer
	Updated bool     `json:"updated"` // newer info of a known peer was taken over
	Peer    peerInfo `json:"peer"`
}

// warnDeactivated warns that there is no link with a peer if it has been deactivated. date is the result of
// [node.Dir.Deactivated].
func (a *app) warnDeactivated(id, date string) {
	if date != "" {
		a.warn("peer %s is deactivated (%s): the link was ended for good, no message goes to it or comes from it, and its ID can not be used here again; for another link its owner needs a node with another ID.", id, date)
	}
}

// changedPeer prints, if asJSON is set, a peer that a command has changed.
func (a *app) changedPeer(d *node.Dir, id string, asJSON bool) error {
	if !asJSON {
		return nil
	}
	p, err := d.Peer(id)
	if err != nil {
		return err
	}
	return a.json(describePeer(d, p))
}

// peerInfo is a peer in JSON.
type peerInfo struct {
	ID                string    `json:"id"`
	Name              string    `json:"name,omitempty"`
	Type              string    `json:"type"`
	State             string    `json:"state"`
	Deactivated       string    `json:"deactivated,omitempty"`
	Suspended         string    `json:"suspended,omitempty"` // the date
	SuspendReason     string    `json:"suspend_reason,omitempty"`
	Fingerprint       string    `json:"fingerprint"`
	FingerprintWords  string    `json:"fingerprint_words"`
	Subnet            string    `json:"subnet,omitempty"`
	Queues            int       `json:"queues"`
	Servers           []string  `json:"servers"`
	ServersProblem    string    `json:"servers_problem,omitempty"`
	UpdatedAt         string    `json:"updated_at,omitempty"`
	BundleURLs        []string  `json:"info_bundle_urls"` // where the peer publishes its info-bundle
	BundleURLsProblem string    `json:"info_bundle_urls_problem,omitempty"`
	Follow            bool      `json:"follow"`             // whether the service may fetch it
	Issued            *certInfo `json:"issued"`             // the peer certificate for the peer
	Received          *certInfo `json:"received,omitempty"` // the peer certificate from the peer
}

type certInfo struct {
	File     string    `json:"file"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
}

func (c *certInfo) String() string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s (serial %s, until %s)", c.File, c.Serial, c.NotAfter.Format(time.DateOnly))
}

func describePeer(d *node.Dir, p *node.Peer) peerInfo {
	cert := func(name string, c *x509.Certificate) *certInfo {
		if c == nil {
			return nil
		}
		return &certInfo{filepath.Join(d.Path(), "peers", p.Identity.ID, name), pki.SerialHex(c.SerialNumber), c.NotAfter.UTC()}
	}
	info := peerInfo{
		ID:               p.Identity.ID,
		Name:             p.Name,
		Type:             p.Identity.Type.String(),
		State:            p.State(),
		Deactivated:      p.Deactivated,
		Fingerprint:      pki.Fingerprint(p.Root.PublicKey),
		FingerprintWords: fingerprintWords(p.Root.PublicKey),
		Subnet:           p.Subnet,
		Queues:           p.Queues,
		Servers:          []string{},
		UpdatedAt:        p.UpdatedAt,
		BundleURLs:       []string{},
		Follow:           !p.NoFollow,
		Issued:           cert("peercert.crt", p.Issued),
		Received:         cert("sub-ca.crt", p.SubCA),
	}
	if p.Suspended != nil {
		info.Suspended, info.SuspendReason = p.Suspended.Since, p.Suspended.Reason
	}
	if p.StompErr != nil {
		info.ServersProblem = p.StompErr.Error()
	} else {
		info.Servers = p.Stomp.Servers
		info.BundleURLs = append(info.BundleURLs, p.Stomp.BundleURLs...)
		if err := p.Stomp.BundleURLsErr; err != nil {
			info.BundleURLsProblem = err.Error()
		}
	}
	return info
}

// followed returns a description of whether the peer's published info-bundle is fetched.
func (i peerInfo) followed() string {
	switch {
	case !i.Follow:
		return "no, switched off"
	case len(i.BundleURLs) == 0:
		return "no, its stomp.toml has no URL of an info-bundle"
	default:
		return "yes"
	}
}
