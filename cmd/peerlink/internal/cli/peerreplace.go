package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

func (a *app) peerReplaceCommand() *cobra.Command {
	var t trustFlags
	var subnet string
	var asJSON bool
	c := &cobra.Command{
		Use:   "replace PEER BUNDLE.zip",
		Short: "Replace a peer whose owner has lost the root key",
		Long: `Takes the info-bundle of the node that the owner of a peer has made with a new
root key, and signs the peer certificate for it in place of the earlier one.

Whoever can make you do this takes over the peer's accounts. So call the owner,
on a number that you have known before, and let them read the new fingerprint to
you, as 12 words or as digits: it has to be typed, or given with --fingerprint.
If this node's root key is on another machine, "peerlink request new --replace"
asks for the same.

An accounting authority keeps its ID. The directory of the peer is moved to
the folder "replaced"; its name and its queues stay. The server keys that it has
revoked do not: the earlier root key has signed their list. They are remembered for
the case that the earlier root key comes back.
There is no traffic until you register the certificate that the new node issues,
and the earlier root key is not accepted any more. Messages wait.

An agent with a new root key has a new ID. The link with the earlier one ends for
good, as with "peerlink peer deactivate". The new one gets its subnet, and so its
accounts (--subnet keep): then messages wait in the queues of the earlier one, and
"peerlink serve" sends them to the new one as soon as it is registered. Or it gets
another subnet, and with it no accounts (--subnet new): then what waits for the
earlier one is answered in its name.
If the bundle was the wrong one, replace its node by the right one: the subnet, and
the accounts, go on to that.

swpt_stomp of the reference implementation does not compare root keys: while it
serves this directory, it accepts the earlier certificate of an accounting
authority too. Its swpt-drainer answers what waits for an agent that was replaced,
whoever has the accounts now: do not run it for that agent.`,
		Example: `  peerlink peer replace 1234abcd new-node.zip
  peerlink peer replace 'Bobs Bank' new-node.zip --subnet keep --fingerprint 'aardvark adroitness …'`,
		Args: someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			b, err := readBundle(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			if err := a.checkTrust(cmd.Context(), b, t); err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			r := node.Replacement{Bundle: b}
			if r.Peer, err = findReplaced(d, args[0]); err != nil {
				return err
			}
			if r.KeepSubnet, err = a.keepSubnet(cmd.Context(), d, r.Peer, subnet); err != nil {
				return err
			}
			res, err := a.replacePeer(cmd.Context(), d, r, t)
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			return a.showReplacement(d, r.Peer, res, asJSON)
		},
	}
	t.add(c)
	c.Flags().StringVar(&subnet, "subnet", "", "at an accounting authority: keep, or `new`")
	jsonFlag(c, &asJSON)
	a.kustomizeFlag(c)
	return a.keyFlags(c)
}

// findReplaced returns the ID of the peer that is to be replaced. Its directory may be missing after an
// interrupted replacement: then only the whole ID is accepted, which [node.Dir.CheckReplacement] checks.
func findReplaced(d *node.Dir, text string) (id string, err error) {
	id, err = d.FindPeer(text)
	if errors.Is(err, node.ErrUnknownPeer) && node.CheckID(text) == nil {
		return text, nil
	}
	return id, err
}

// keepSubnet returns whether the new node gets the subnet of the peer, which only the node's owner can
// decide. It asks on a terminal.
func (a *app) keepSubnet(ctx context.Context, d *node.Dir, id, choice string) (keep bool, err error) {
	if d.Identity().Type != nodetype.AccountingAuthority {
		if choice != "" {
			return false, usagef("--subnet is for accounting authorities, which give subnets: leave it out")
		}
		return false, nil
	}
	check := func(s string) error {
		if s != "keep" && s != "new" {
			return fmt.Errorf("%q: expected keep or new", s)
		}
		return nil
	}
	if choice == "" {
		if !isTerminal(a.stdin) {
			return false, usagef("--subnet is missing: with --subnet keep the new node gets the subnet of %s, and so its accounts, with --subnet new another one", id)
		}
		a.printMessage("With the subnet of %s, the new node gets its accounts, too.", id)
		if choice, err = a.ask(ctx, "Subnet of the new node: keep or new", check); err != nil {
			return false, err
		}
	}
	if err := check(choice); err != nil {
		return false, usagef("--subnet %v", err)
	}
	return choice == "keep", nil
}

// replacePeer replaces a peer, after the fingerprint of the new root key has been confirmed.
func (a *app) replacePeer(ctx context.Context, d *node.Dir, r node.Replacement, t trustFlags) (*node.ReplaceResult, error) {
	return d.ReplacePeer(ctx, r, func() (crypto.Signer, error) {
		if err := a.confirmSuccessor(ctx, r, t); err != nil {
			return nil, err
		}
		return a.announcedKey(ctx, d, func() {
			a.announceSigning(fmt.Sprintf("Replacing %s by %s", r.Peer, r.Bundle.Identity), r.Bundle.Root.PublicKey)
		})
	})
}

// confirmSuccessor ensures that the new root key is that of the peer's owner. Also for an agent the
// fingerprint is needed, although its ID follows from its key: the ID is as new as the key.
func (a *app) confirmSuccessor(ctx context.Context, r node.Replacement, t trustFlags) error {
	if t.fingerprint != "" || t.registry != "" && !r.Bundle.Identity.Type.IDDerived() {
		return nil
	}
	if !isTerminal(a.stdin) {
		return fmt.Errorf("nothing proves that %s has the same owner as %s: have the owner read the fingerprint of the new root key to you, and give it with --fingerprint", r.Bundle.Identity, r.Peer)
	}
	a.printMessage("Nothing proves that this new root key belongs to the owner of %s.", r.Peer)
	return a.typeFingerprint(ctx, r.Bundle, "nothing was changed")
}

// typeFingerprint prompts for the fingerprint of the root key in an info-bundle. nothing, at the end of an
// error, describes what was not done. The bundle's fingerprint is not displayed, because operators could
// copy it from the screen.
func (a *app) typeFingerprint(ctx context.Context, b *infobundle.Bundle, nothing string) error {
	a.printMessage("Call its owner, let them read the fingerprint of their root key to you, and type it: its %d words in one\n"+
		"line, or all its digits, or at least the last %d of them.\n", pki.FingerprintWordCount, minTypedDigits)
	_, err := a.askAtMost(ctx, maxWrongAnswers, "Fingerprint", func(answer string) error { return compareTyped(answer, b.Root.PublicKey) })
	if err != nil {
		return fmt.Errorf("%w: %s", err, nothing)
	}
	return nil
}

// replacedPeer is the result of "peer replace", in JSON.
type replacedPeer struct {
	Replaced string   `json:"replaced"`        // node ID of the earlier peer
	File     string   `json:"file"`            // the peer certificate for the new peer
	Aside    string   `json:"aside,omitempty"` // the folder with the directory of the earlier peer
	Peer     peerInfo `json:"peer"`
}

func (a *app) showReplacement(d *node.Dir, old string, res *node.ReplaceResult, asJSON bool) error {
	made := replacedPeer{old, res.CertFile, res.ReplacedDir, describePeer(d, res.Peer)}
	if err := a.result(asJSON, made, made.File); err != nil {
		return err
	}
	if res.ReplacedDir != "" {
		a.printMessage("What was known of the earlier %s is in %s now.", old, res.ReplacedDir)
	} else {
		a.printMessage("The link with %s is ended for good.", old)
		if successor, err := d.CurrentSuccessor(old); err == nil && successor != "" {
			a.printMessage("What waits for it goes to %s, which has its accounts now.", successor)
		}
	}
	a.printMessage("Send the certificate, and your info-bundle, to the owner of %s, and register the certificate\nthat they send you (\"peerlink peer register\"): until then there is no traffic.", res.Peer.Identity)
	if res.ReplacedDir != "" {
		return nil
	}
	return a.updateKustomizeOf(d, old)
}

// warnOtherSubnet warns if a peer that has replaced another one with the same ID gives this agent another
// subnet than the earlier one.
func (a *app) warnOtherSubnet(d *node.Dir, p *node.Peer) {
	if earlier := d.EarlierSubnet(p.Identity.ID); earlier != "" && earlier != p.Subnet {
		a.warn("%s gives this node the subnet %s, and before it was replaced the subnet was %s: this node does not have its accounts there any more.\nIf its owner did not mean that, ask for a certificate with the subnet %s before any message is exchanged.", p.Identity, p.Subnet, earlier, earlier)
	}
}
