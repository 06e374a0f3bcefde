package cli

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/shell"
	"peerlink/node"
	"peerlink/node/follow"
	"peerlink/node/infobundle"
	"peerlink/node/publish"
)

// peerAdding is one run of "peer add".
type peerAdding struct {
	a     *app
	d     *node.Dir
	trust trustFlags
	local bool // URLs may lead to addresses that are not public

	result addedPeer
	peer   *node.Peer
}

// addedPeer is the result of "peer add", in JSON.
type addedPeer struct {
	Kind       string    `json:"kind"`           // what was given: "info-bundle", "certificate" or "url"
	Signed     bool      `json:"signed"`         // a peer certificate was signed for the peer
	Updated    bool      `json:"updated"`        // newer info of a known peer was taken over
	Registered bool      `json:"registered"`     // the peer's certificate for this node was registered
	File       string    `json:"file,omitempty"` // the peer certificate for the peer
	Peer       *peerInfo `json:"peer"`
}

func (a *app) peerAddCommand() *cobra.Command {
	add := &peerAdding{a: a}
	var asJSON bool
	c := &cobra.Command{
		Use:   "add BUNDLE|CERT|URL",
		Short: "Become a peer of another node: sign, register, or both, from a file or a URL",
		Long: `Takes what the owner of another node has sent, recognizes what it is, and does
what is to be done with it:

  an info-bundle   signs the peer certificate for the node, as "peer sign" does
  a certificate    registers the peer certificate from a node, as "peer register"
  a URL            fetches the node's info-bundle and signs; then fetches the peer
                   certificate for this node, from peers/<ID>.crt beside the bundle
                   ("serve --publish" offers it there), and registers it

Then it says what is still missing, and what to hand over to the owner. Running it
again does no harm.

The fingerprint of an accounting authority has to be confirmed, and so has that of
every node whose info-bundle comes from a URL: call its owner, let them read it to
you, as 12 words or as digits, and type it, or give it with --fingerprint.`,
		Example: `  peerlink peer add their-bundle.zip
  peerlink peer add their-certificate.crt
  peerlink peer add https://example.com/info-bundle.zip
  peerlink peer add https://example.com/info-bundle.zip --fingerprint 'aardvark adroitness …'`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if add.d, err = a.open(); err != nil {
				return err
			}
			if err = add.add(cmd.Context(), args[0]); err != nil {
				err = named(args[0], err)
			}
			if add.peer == nil {
				return err
			}
			// With an error, the info-bundle was adopted nevertheless.
			return cmp.Or(add.finish(asJSON), err)
		},
	}
	add.trust.add(c)
	c.Flags().BoolVar(&add.local, "follow-local", false, "let the URL lead to loopback, link-local and private addresses")
	fromEnv(c.Flags(), "follow-local", "PEERLINK_FOLLOW_LOCAL")
	jsonFlag(c, &asJSON)
	a.kustomizeFlag(c)
	return a.keyFlags(c)
}

// named returns an error with the name of what the command was given, unless it has it already.
func named(name string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && path.Path == name || strings.HasPrefix(err.Error(), name+" ") || strings.HasPrefix(err.Error(), name+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// add does what is to be done with a file or a URL.
func (p *peerAdding) add(ctx context.Context, what string) error {
	if strings.Contains(what, "://") {
		p.result.Kind = "url"
		return p.addURL(ctx, what)
	}
	data, err := readBounded(ctx, what, infobundle.MaxSize)
	if err != nil {
		return err
	}
	switch kind := kindOfFile(data); kind {
	case bundleFile:
		p.result.Kind = "info-bundle"
		b, err := infobundle.Read(data, time.Now())
		if err != nil {
			return err
		}
		return p.sign(ctx, b, false)
	case certificateFile:
		p.result.Kind = "certificate"
		return p.register(ctx, data)
	default:
		return errors.New(wrongFile[kind])
	}
}

// sign makes the node of an info-bundle a peer, or takes over newer info of a known one.
func (p *peerAdding) sign(ctx context.Context, b *infobundle.Bundle, fetched bool) error {
	if err := p.a.checkTrust(ctx, b, p.trust); err != nil {
		return err
	}
	res, err := p.d.SignPeer(ctx, b, func() (crypto.Signer, error) {
		if err := p.confirm(ctx, b, fetched); err != nil {
			return nil, err
		}
		return p.a.announcedKey(ctx, p.d, func() {
			p.a.announceSigning(fmt.Sprintf("Signing the peer certificate of %s", b.Identity), b.Root.PublicKey)
		})
	})
	if err != nil {
		return err
	}
	if res.IgnoredReason != "" {
		p.a.warn("nothing was taken over from the info-bundle: %s.", res.IgnoredReason)
	}
	p.peer, p.result.Signed, p.result.Updated, p.result.File = res.Peer, res.New || res.Renewed, res.Updated, res.CertFile
	return nil
}

// confirm ensures that the root key of a new peer belongs to the node that was meant. An agent's ID follows
// from its key, and is enough if the operator has chosen the file; but at a URL there may be the bundle of
// any agent.
func (p *peerAdding) confirm(ctx context.Context, b *infobundle.Bundle, fetched bool) error {
	if !fetched || !b.Identity.Type.IDDerived() || p.trust.fingerprint != "" {
		return p.a.confirmRootKey(ctx, b, p.trust)
	}
	if !isTerminal(p.a.stdin) {
		return fmt.Errorf("nothing proves that the info-bundle at this URL, of %s, is the one of the node that you mean: have its owner read the fingerprint of their root key to you, and give it with --fingerprint", b.Identity)
	}
	p.a.printMessage("There is the info-bundle of %s. Nothing proves that this is the node that you mean.", b.Identity)
	return p.a.typeFingerprint(ctx, b, "nothing was signed")
}

// register registers the peer certificate that a peer has issued to this node.
func (p *peerAdding) register(ctx context.Context, data []byte) error {
	if err := p.checkForeign(data); err != nil {
		return err
	}
	return p.registered(p.d.RegisterPeer(ctx, data))
}

// registered takes the result of registering a peer.
func (p *peerAdding) registered(peer *node.Peer, already bool, err error) error {
	if err != nil {
		return err
	}
	p.peer, p.result.Registered = peer, !already
	return nil
}

// addURL fetches a node's info-bundle and signs it, unless that was done before, and then fetches and
// registers the node's peer certificate for this node.
func (p *peerAdding) addURL(ctx context.Context, from string) error {
	if err := node.CheckBundleURL(from); err != nil {
		return &usageError{err.Error()}
	}
	fetcher := &follow.Fetcher{AllowLocal: p.local, OwnHosts: p.d.OwnHosts()}
	stop := p.a.working("Fetching the info-bundle")
	b, err := fetcher.FetchNew(ctx, from)
	stop()
	if err != nil {
		return fmt.Errorf("fetch the info-bundle: %w", err)
	}
	if err := p.sign(ctx, b, true); err != nil {
		return err
	}
	if p.peer.SubCA != nil {
		return nil
	}
	return p.fetchCertificate(ctx, fetcher, from)
}

// fetchCertificate fetches and registers the peer certificate that a peer offers beside its info-bundle. If
// there is none, that is no error: its owner may not have signed this node yet.
func (p *peerAdding) fetchCertificate(ctx context.Context, fetcher *follow.Fetcher, bundle string) error {
	from, err := publish.CertificateURL(bundle, p.d.Identity().ID)
	if err != nil {
		return err
	}
	stop := p.a.working("Fetching the peer certificate")
	data, err := fetcher.FetchCertificate(ctx, from)
	stop()
	switch {
	case errors.Is(err, follow.ErrNotFound):
		p.a.printMessage("There is no certificate for this node at %s yet.", from)
		return nil
	case err != nil:
		p.a.warn("the peer certificate for this node could not be fetched from %s: %v.", from, err)
		return nil
	}
	if err = p.checkForeign(data); err == nil {
		// The owner of the place, whose fingerprint was confirmed, must not decide which other nodes are registered.
		err = p.registered(p.d.RegisterPeerFrom(ctx, p.peer.Identity, data))
	}
	if err != nil {
		return fmt.Errorf("the certificate at %s: %w", from, err)
	}
	return nil
}

// finish prints what was done, what is missing, and what to hand over.
func (p *peerAdding) finish(asJSON bool) error {
	info := describePeer(p.d, p.peer)
	p.result.Peer = &info
	if err := p.a.result(asJSON, p.result, info.ID); err != nil {
		return err
	}
	id := p.peer.Identity
	switch {
	case p.result.Signed:
		p.a.printMessage("%s is signed: it has a peer certificate now, %s.", id, p.result.File)
	case p.result.Updated:
		p.a.printMessage("The newer info of %s was taken over (%s).", id, p.peer.UpdatedAt)
	}
	if p.result.Registered {
		p.a.printMessage("The peer certificate from %s is registered.", id)
		p.a.warnOtherSubnet(p.d, p.peer)
	}
	p.printMissing()
	if p.peer.SubCA == nil {
		return nil
	}
	return p.a.updateKustomize(p.d, p.peer)
}

// printMissing says what is still to be done for a link with the peer, by this node's owner and by the
// peer's.
func (p *peerAdding) printMissing() {
	id := p.peer.Identity.ID
	if p.peer.Deactivated != "" {
		p.a.warnDeactivated(id, p.peer.Deactivated)
		return
	}
	if p.peer.SubCA != nil {
		p.a.printMessage("Nothing is missing here: a running \"peerlink serve\" links to %s as soon as its owner has registered\nthe certificate %s.", id, p.d.IssuedFile(id))
		return
	}
	p.a.printMessage("Missing: the peer certificate from %s. As soon as you have it, or its URL:\n\n  %s\n", id, p.a.commandFor("peer add CERT-OR-URL"))
	bundle := p.d.CurrentBundle()
	if bundle == "" {
		p.a.printMessage("Make a new info-bundle first: none here has what %s says now.\n\n  %s\n", filepath.Join(p.a.dir, "nodeinfo"), p.a.createBundle())
		bundle = "the new one"
	}
	p.a.printMessage("Hand over to the owner of %s, unless they have it:\n", id)
	if urls := p.d.OwnBundleURLs(); len(urls) > 0 {
		p.a.printMessage("  your URL, from which they get both:\n    peerlink peer add %s\nor", shell.Quote(urls[0]))
	}
	p.a.printMessage("  your info-bundle, %s\n  their certificate, %s", bundle, p.d.IssuedFile(id))
	p.a.printMessage("  by telephone, for example, the fingerprint of your root key:\n%s", fingerprintText(p.d.Root().PublicKey, "    "))
}
