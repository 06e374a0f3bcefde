package cli

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/internal/terminal"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
	"peerlink/node/registry"
)

// trustFlags are the flags that confirm the root key of a node. They are necessary because the ID of an accounting authority
// does not prove that the root key belongs to the authority.
type trustFlags struct {
	fingerprint string // as received from the node's owner
	registry    string // file or URL
	registryKey string // file with the publisher's key

	set *pflag.FlagSet // for finding out which flags are given, even if they are empty
}

func (t *trustFlags) add(c *cobra.Command) {
	t.set = c.Flags()
	c.Flags().StringVar(&t.fingerprint, "fingerprint", "", "the fingerprint that the owner of an accounting authority has told you (sha256:…, or its 12 words in quotes)")
	c.Flags().StringVar(&t.registry, "registry", "", "a list of accounting authorities, `FILE or URL`, that must confirm the fingerprint")
	c.Flags().StringVar(&t.registryKey, "registry-key", "", "`FILE` with the public key by which the registry must be signed")
}

// minTypedDigits is the minimum number of digits of a fingerprint that have to be typed: 96 bits, as many as its words have. With
// fewer digits, an attacker could generate keys until one has a fingerprint with the same end.
const minTypedDigits = 2 * pki.FingerprintWordCount

// checkTrust compares the root key in the bundle with the flags. It does so even for a known peer,
// so that no flag is ignored, except --registry for an agent, whose ID is derived from its key.
func (a *app) checkTrust(ctx context.Context, b *infobundle.Bundle, t trustFlags) error {
	if t.set.Changed("fingerprint") {
		if err := checkGiven(t.fingerprint, b); err != nil {
			return err
		}
	}
	if !t.set.Changed("registry") {
		if t.set.Changed("registry-key") {
			return usagef("--registry-key is for a registry: name it with --registry")
		}
		return nil
	}
	if t.registry == "" {
		return usagef("--registry is empty: expected the file or the URL of a registry")
	}
	if b.Identity.Type.IDDerived() {
		return nil // a registry lists accounting authorities only
	}
	return a.checkRegistry(ctx, b, t)
}

// checkGiven compares the root key in the bundle with the value of --fingerprint: digits or words.
func checkGiven(given string, b *infobundle.Bundle) error {
	differs := func(what string) error {
		return fmt.Errorf("the fingerprint of %s in this bundle is not %s: this is not the bundle that its owner has made, or the fingerprint was mistyped", b.Identity, what)
	}
	if isWords(given) {
		words, err := pki.ParseFingerprintWords(given)
		if err != nil {
			return &usageError{"--fingerprint: " + err.Error()}
		}
		if err := pki.CompareFingerprintWords(words, b.Root.PublicKey); err != nil {
			return differs(fmt.Sprintf("%q (%v)", strings.Join(words, " "), err))
		}
		return nil
	}
	want, err := registry.ParseFingerprint(given)
	if err != nil {
		return &usageError{fmt.Sprintf("--fingerprint: %v, or the %d words in quotes", err, pki.FingerprintWordCount)}
	}
	if want != pki.Fingerprint(b.Root.PublicKey) {
		return differs(want)
	}
	return nil
}

// isWords reports whether a person has typed the words of a fingerprint, and not its digits.
func isWords(typed string) bool {
	return !strings.ContainsAny(typed, "0123456789") && strings.IndexFunc(typed, unicode.IsLetter) >= 0
}

// confirmRootKey ensures that the root key in a new peer's info-bundle belongs to the node that the bundle names. It is called
// after checkTrust, and prompts for the fingerprint if no flag is given.
func (a *app) confirmRootKey(ctx context.Context, b *infobundle.Bundle, t trustFlags) error {
	if b.Identity.Type.IDDerived() || t.fingerprint != "" || t.registry != "" {
		return nil
	}
	if !isTerminal(a.stdin) {
		return fmt.Errorf("%s has chosen its ID, so the bundle alone does not prove who made it: have its owner read the fingerprint of their root key to you and give it with --fingerprint, or use --registry", b.Identity)
	}
	a.printMessage("%s has chosen its ID, so the bundle alone does not prove who made it.", b.Identity)
	return a.typeFingerprint(ctx, b, "nothing was signed")
}

// compareTyped compares a typed fingerprint with that of a root key: its words, or all its digits or the
// last ones. It ignores spaces, colons, hyphens, letter case and the prefix sha256.
func compareTyped(typed string, root crypto.PublicKey) error {
	if isWords(typed) {
		words, err := pki.ParseFingerprintWords(typed)
		if err != nil {
			return fmt.Errorf("not confirmed: %w", err)
		}
		if err := pki.CompareFingerprintWords(words, root); err != nil {
			return fmt.Errorf("not confirmed: what was typed is not the fingerprint in this bundle: %w", err)
		}
		return nil
	}
	clean := strings.NewReplacer(" ", "", "\t", "", ":", "", "-", "").Replace(strings.ToLower(typed))
	clean = strings.TrimPrefix(clean, "sha256")
	digits := strings.TrimPrefix(pki.Fingerprint(root), "sha256:")
	switch {
	case len(clean) < minTypedDigits:
		return fmt.Errorf("not confirmed: %d digits were typed, and the %d words or at least the last %d digits of the fingerprint are needed", len(clean), pki.FingerprintWordCount, minTypedDigits)
	case !strings.HasSuffix(digits, clean):
		return errors.New("not confirmed: what was typed is not the fingerprint in this bundle, nor the end of it")
	}
	return nil
}

// checkRegistry compares the bundle's root key with the registry. If the registry does not list the
// node, a fingerprint that was given is sufficient.
func (a *app) checkRegistry(ctx context.Context, b *infobundle.Bundle, t trustFlags) error {
	var key ed25519.PublicKey
	if t.registryKey != "" {
		data, err := readText(ctx, t.registryKey, maxInputFile)
		if err != nil {
			return err
		}
		if key, err = registry.ParseKey(string(data)); err != nil {
			return fmt.Errorf("%s: %w", t.registryKey, err)
		}
	}
	stop := a.working("Reading the registry")
	list, err := registry.Load(ctx, t.registry, key)
	stop()
	if err != nil {
		return err
	}
	entry, err := list.Check(b.Identity.ID, b.Root.PublicKey)
	if errors.Is(err, registry.ErrUnlisted) && t.fingerprint != "" {
		return nil // a fingerprint was given and compared
	}
	if err != nil {
		return err
	}
	a.printMessage("The registry confirms: %s is %q.", b.Identity, terminal.Line(entry.Name))
	return nil
}
