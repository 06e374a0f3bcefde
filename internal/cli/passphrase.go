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
	// minPassphrase is the least number of characters, as for OpenSSL.
	minPassphrase = 4
	// dicewareWords makes a generated passphrase, 12.9 bits for each word.
	dicewareWords = 6
	// weakBits is the entropy below which a passphrase is warned about.
	weakBits = 70
	// guessesPerSecond is what we credit an attacker with who has stolen the
	// key file: some thousand machines, each trying a dozen passphrases a second
	// against scrypt.
	guessesPerSecond = 1e5
)

// newPassphrase gets the passphrase of a new root key file; typed ones twice. It
// is one that can be typed.
func (a *app) newPassphrase(ctx context.Context) ([]byte, error) {
	pass, err := a.typeablePassphrase(ctx)
	if err != nil {
		return nil, err
	}
	if n := utf8.RuneCount(pass); n < minPassphrase {
		return nil, fmt.Errorf("the passphrase has %d characters; at least %d are needed, and 20 or more are wise", n, minPassphrase)
	}
	for _, warning := range passphrase.Warnings(pass) {
		a.warn("%s", warning)
	}
	if bits := entropy(pass); bits < weakBits {
		a.label("Warning:")
		a.say("This passphrase is weak: who steals the key file finds it in %s, or sooner.\nChange it with \"peerlink key passphrase\".", crackTime(bits))
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
		a.say("The passphrase file is not in plain UTF-8. The passphrase is the text of its first line, as it would be typed.")
	}
	return given.Typeable()
}

// choosePassphrase lets a person choose: a generated passphrase, or their own.
func (a *app) choosePassphrase(ctx context.Context) ([]byte, error) {
	if !isTerminal(a.stdin) {
		return nil, errNoTerminal
	}
	guard.Process()
	words, err := diceware.Generate(dicewareWords)
	if err != nil {
		return nil, err
	}
	offer := []byte(strings.Join(words, " "))
	defer clear(offer)
	a.say("The root key is the only secret of a node, and only its passphrase protects it.\n"+
		"Here is a good one, %d words chosen by lot:\n\n    %s\n\n"+
		"Who steals the key file would need %s to find it. Write it down, and keep the paper\n"+
		"where you will find it in twenty years, away from the key.",
		dicewareWords, offer, crackTime(dicewareWords*math.Log2(7776)))
	for {
		pass, err := a.typedTwice(ctx, offer)
		if !errors.Is(err, errNotTheSame) {
			return pass, err
		}
		a.say("%v. Once more:", err)
	}
}

var errNotTheSame = errors.New("that is not the same passphrase")

// typedTwice asks for a passphrase, which is the one on offer if nothing is typed, and
// for the same again.
func (a *app) typedTwice(ctx context.Context, offer []byte) ([]byte, error) {
	pass, err := a.askSecret(ctx, "Press Enter to take it, or type your own: ")
	if err != nil {
		return nil, err
	}
	if len(pass) == 0 {
		pass = bytes.Clone(offer)
	}
	again, err := a.askSecret(ctx, "Now type it, from your notes: ")
	if err == nil && !bytes.Equal(pass, again) {
		err = errNotTheSame
	}
	clear(again)
	return pass, err
}

// entropy estimates how hard a passphrase is to guess, in bits: by its length
// and the kinds of its characters, as if they were chosen by lot. Words that
// make sense are easier, so that what this calls weak certainly is.
func entropy(pass []byte) float64 { return passwordvalidator.GetEntropy(string(pass)) }

// crackTime says in words how long guessing takes, on average.
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
