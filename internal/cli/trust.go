package cli

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/node/infobundle"
	"peerlink/node/pki"
	"peerlink/node/registry"
)

// trust says how it is known that a root key belongs to an accounting
// authority, whose ID does not prove it.
type trust struct {
	fingerprint string // as compared by a person
	registry    string // file or URL
	registryKey string // file with the publisher's key
}

func (t *trust) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.fingerprint, "fingerprint", "", "the fingerprint that the owner of an accounting authority has told you (sha256:…)")
	c.Flags().StringVar(&t.registry, "registry", "", "a list of accounting authorities, `FILE or URL`, that must confirm the fingerprint")
	c.Flags().StringVar(&t.registryKey, "registry-key", "", "`FILE` with the public key by which the registry must be signed")
}

// confirm makes sure that a new peer's root key is the one of the node whose
// name it carries.
func (a *app) confirm(ctx context.Context, b *infobundle.Bundle, t trust) error {
	got := pki.Fingerprint(b.Root.PublicKey)
	if t.fingerprint != "" {
		want, err := registry.ParseFingerprint(t.fingerprint)
		if err != nil {
			return &usageError{"--fingerprint: " + err.Error()}
		}
		if want != got {
			return fmt.Errorf("the fingerprint of %s in this bundle is %s, not %s: this is not the bundle that its owner has made", b.Identity, got, want)
		}
	}
	if b.Identity.Type.IDDerived() {
		return nil
	}
	if t.registry != "" {
		return a.confirmByRegistry(ctx, b, t)
	}
	if t.fingerprint != "" {
		return nil
	}
	if !isTerminal(a.stdin) {
		return fmt.Errorf("%s has chosen its ID, so the bundle alone does not prove who made it: compare the fingerprint with its owner and give it with --fingerprint (the bundle's is %s), or use --registry", b.Identity, got)
	}
	a.say("%s has chosen its ID, so the bundle alone does not prove who made it.\n"+
		"Call its owner, and let them read the fingerprint of their root key to you. In this bundle it is\n\n  %s\n", b.Identity, got)
	answer, err := a.ask(bufio.NewReader(a.stdin), "Is it the same? Type its last four digits to confirm")
	if err != nil {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(answer), got[len(got)-4:]) {
		return errors.New("not confirmed: nothing was signed")
	}
	return nil
}

func (a *app) confirmByRegistry(ctx context.Context, b *infobundle.Bundle, t trust) error {
	var key ed25519.PublicKey
	if t.registryKey != "" {
		data, err := readBounded(t.registryKey, maxSecretFile)
		if err != nil {
			return err
		}
		if key, err = registry.ParseKey(string(data)); err != nil {
			return fmt.Errorf("%s: %w", t.registryKey, err)
		}
	}
	list, err := registry.Load(ctx, t.registry, key)
	if err != nil {
		return err
	}
	entry, err := list.Check(b.Identity.ID, b.Root.PublicKey)
	if errors.Is(err, registry.ErrUnlisted) && t.fingerprint != "" {
		return nil // a person has compared it
	}
	if err != nil {
		return err
	}
	a.say("The registry confirms: %s is %q.", b.Identity, plain(entry.Name))
	return nil
}
