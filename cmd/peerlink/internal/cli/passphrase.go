package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/sethvargo/go-diceware/diceware"
	passwordvalidator "github.com/wagslane/go-password-validator"

	"peerlink/internal/guard"
	"peerlink/internal/passphrase"
)

const (
	// minPassphrase is the minimum number of characters, as for OpenSSL.
	minPassphrase = 4
	// dicewareWords is the number of words of a generated passphrase, with 12.9 bits each.
	dicewareWords = 6
	// weakBits is the entropy, in bits, below which there is a warning about a passphrase.
	weakBits = 70
	// guessesPerSecond is the assumed rate of an attacker with a stolen key file: about 8,000
	// machines, each of which tries a dozen passphrases per second with scrypt.
	guessesPerSecond = 1e5
)

// newPassphrase returns the passphrase for a new root key file. A typed passphrase is prompted for twice.
// The passphrase can always be typed at a prompt. It is not normalized.
func (a *app) newPassphrase(ctx context.Context) ([]byte, error) {
	pass, err := a.typeablePassphrase(ctx)
	if err != nil {
		return nil, err
	}
	normal := passphrase.Normal(pass)
	defer clear(normal)
	if n := utf8.RuneCount(normal); n < minPassphrase {
		return nil, fmt.Errorf("the passphrase has %d characters; at least %d are needed, and 20 or more are wise", n, minPassphrase)
	}
	for _, warning := range passphrase.Warnings(pass) {
		a.warn("%s", warning)
	}
	if bits := entropy(normal); bits < weakBits {
		a.label("Warning:")
		a.printMessage("This passphrase is weak. If its characters are random, whoever steals the key file can guess it in %s;\nif it contains words or names, much sooner. Change it with \"peerlink key passphrase\".", crackTime(bits))
	}
	return pass, nil
}

func (a *app) typeablePassphrase(ctx context.Context) ([]byte, error) {
	if a.passphraseFile == "" {
		pass, err := a.choosePassphrase(ctx)
		if err != nil {
			return nil, err
		}
		return pass, passphrase.Check(pass)
	}
	given, err := a.readPassphrase(ctx)
	if err != nil {
		return nil, err
	}
	if given.Converted() {
		a.printMessage("The passphrase file is not in plain UTF-8. The passphrase is the text of its first line, as it would be typed.")
	}
	pass, err := given.Typeable()
	if err != nil && given.Err == nil {
		err = fmt.Errorf("%s %s: %w", a.passphraseSource(), a.passphraseFile, err)
	}
	return pass, err
}

// choosePassphrase prompts for a passphrase, and offers a generated one.
func (a *app) choosePassphrase(ctx context.Context) ([]byte, error) {
	if !isTerminal(a.stdin) {
		return nil, a.noTerminalError()
	}
	guard.ProtectProcess()
	words, err := diceware.Generate(dicewareWords)
	if err != nil {
		return nil, err
	}
	offer := []byte(strings.Join(words, " "))
	defer clear(offer)
	a.printMessage("The root key is the only secret of a node, and only its passphrase protects it.\n"+
		"Here is a good one, %d words chosen by lot:\n\n    %s\n\n"+
		"Who steals the key file would need %s to find it. Write it down, and keep the paper\n"+
		"where you will find it in twenty years, away from the key.",
		dicewareWords, offer, crackTime(dicewareWords*math.Log2(7776)))
	for {
		pass, err := a.typedTwice(ctx, offer)
		if !errors.Is(err, errNotTheSame) {
			return pass, err
		}
		a.printMessage("%v. Once more:", err)
	}
}

var errNotTheSame = errors.New("that is not the same passphrase")

// typedTwice prompts twice for the same passphrase. If nothing is typed at the first prompt, the
// passphrase is the offered one.
func (a *app) typedTwice(ctx context.Context, offer []byte) ([]byte, error) {
	pass, err := a.askSecret(ctx, "Press Enter to take it, or type your own: ")
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 {
		pass = bytes.Clone(offer)
	}
	again, err := a.askSecret(ctx, "Now type it, from your notes: ")
	if err == nil && !passphrase.Same(pass, again) {
		err = errNotTheSame
	}
	clear(again)
	return pass, err
}

// entropy estimates the entropy of a passphrase in bits from its length and the kinds of its characters,
// as if the characters were chosen at random. The true entropy of meaningful words is lower, so a passphrase
// below weakBits is certainly weak.
func entropy(pass []byte) float64 { return passwordvalidator.GetEntropy(string(pass)) }

// crackTime returns a description of the average time for guessing a passphrase.
func crackTime(bits float64) string {
	seconds := math.Exp2(bits-1) / guessesPerSecond
	const year = 365 * 24 * 3600
	for _, unit := range []struct {
		seconds float64
		name    string
	}{{1e9 * year, "billions of years"}, {1e6 * year, "millions of years"}, {1e3 * year, "thousands of years"}, {2 * year, "years"},
		{2 * 24 * 3600, "days"}, {2 * 3600, "hours"}, {120, "minutes"}} {
		if seconds >= unit.seconds {
			return unit.name
		}
	}
	return "seconds"
}
