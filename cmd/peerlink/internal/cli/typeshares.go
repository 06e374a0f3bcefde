package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"peerlink/node/keyshare"
)

// shareTyping prompts for shares on the terminal until there are enough. Each line and each share is checked immediately, so that
// only wrong ones have to be typed again.
type shareTyping struct {
	app    *app
	ctx    context.Context
	root   crypto.PublicKey // the node's root key
	shares []*keyshare.Share
	ahead  string // a line of the next share that was read already
}

// typedShares prompts for the shares of the given root key.
func (a *app) typedShares(ctx context.Context, root crypto.PublicKey) ([]*keyshare.Share, error) {
	if !isTerminal(a.stdin) {
		return nil, usagef("name the files with the shares: there is no terminal to type them on")
	}
	t := &shareTyping{app: a, ctx: ctx, root: root}
	for {
		switch enough := len(t.shares) > 0 && len(t.shares) >= t.shares[0].Threshold(); {
		case enough && slices.ContainsFunc(t.shares, (*keyshare.Share).HasSealedKey):
			return t.shares, nil
		case enough:
			a.printMessage("\nThe sealed key is missing, which is the same on all pages: type all lines of one of them, or paste the text of its QR code.")
		default:
			a.printMessage("\nShare %d: type its lines of words, or paste the text of its QR code. Of all pages but one, lines 1 to %d are enough: press Enter twice after them.", len(t.shares)+1, keyshare.ShareLines)
		}
		s, err := t.share()
		if errors.Is(err, errInterrupted) {
			return nil, err
		}
		if err == nil {
			err = t.add(s)
		}
		if err != nil {
			a.printMessage("%v. This share was not taken: once more, please, or another one (Ctrl-C ends this).", err)
			continue
		}
		a.printMessage("%v", s)
	}
}

// add adds a share. It fails if the share is not one of the root key, or not of the same split as the earlier shares. A share that
// was added without the sealed key may be added again with it.
func (t *shareTyping) add(s *keyshare.Share) error {
	if err := s.CheckKey(t.root); err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(t.shares), func(o *keyshare.Share) bool {
		return o.String() == s.String() && !o.HasSealedKey() && s.HasSealedKey()
	})
	all := append(others, s)
	if err := keyshare.CheckTogether(all); err != nil {
		return err
	}
	t.shares = all
	return nil
}

// share reads the lines of one share, and prompts again for a mistyped line. Pasted text may have the headings of a page, and an
// empty line below line 5.
func (t *shareTyping) share() (*keyshare.Share, error) {
	const sealed = keyshare.ShareLines + 1 // the first line of the sealed key
	var text strings.Builder
	ended := false // there was an empty line, which ends the share unless the sealed key follows
	for n := 1; ; {
		line, err := t.line(n, ended)
		switch {
		case err != nil:
			return nil, err
		case strings.HasPrefix(strings.ToUpper(line), "PEERLINK-SHARE"):
			return keyshare.Parse(line)
		case line == "" && n == sealed && !ended:
			ended = true
			continue
		case line == "" && n == sealed:
			return keyshare.Parse(text.String())
		case line == "" && n > 1:
			t.app.printMessage("The share is not complete yet: line %d is next.", n)
			continue
		case line == "" || keyshare.IsHeading(line):
			continue
		}
		err = keyshare.CheckLine(n, line)
		if err != nil && n == sealed && keyshare.CheckLine(1, line) == nil {
			t.ahead = line
			return keyshare.Parse(text.String())
		}
		if err != nil {
			t.app.printMessage("%v", err)
			continue
		}
		// A line may have been typed with its number, as it is on the page.
		bare := strings.TrimLeft(line, "0123456789 \t.:)(-#")
		fmt.Fprintf(&text, "%d %s\n", n, bare)
		if n++; n <= sealed {
			continue
		}
		if s, err := keyshare.Parse(text.String()); !errors.Is(err, keyshare.ErrIncomplete) {
			return s, err
		}
	}
}

// line reads a line from the terminal.
func (t *shareTyping) line(n int, ended bool) (string, error) {
	if line := t.ahead; line != "" {
		t.ahead = ""
		return line, nil
	}
	switch {
	case ended:
		fmt.Fprintf(t.app.stderr, "%2d (or Enter again, if that was all): ", n)
	case n == keyshare.ShareLines+1:
		fmt.Fprintf(t.app.stderr, "%2d (or Enter twice, if that was all): ", n)
	default:
		fmt.Fprintf(t.app.stderr, "%2d: ", n)
	}
	return t.app.readLine(t.ctx)
}
