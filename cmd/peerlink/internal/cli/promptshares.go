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

// sharePrompter prompts for shares on the terminal until there are enough. Each line and each share is checked immediately, so
// that only a wrong line or share has to be typed again.
type sharePrompter struct {
	app      *app
	ctx      context.Context
	root     crypto.PublicKey // the node's root key
	shares   []*keyshare.Share
	nextLine string // the first line of the next share, if it has been read already
}

// promptShares prompts for the shares of the given root key.
func (a *app) promptShares(ctx context.Context, root crypto.PublicKey) ([]*keyshare.Share, error) {
	if !isTerminal(a.stdin) {
		return nil, usagef("name the files with the shares: there is no terminal to type them on")
	}
	t := &sharePrompter{app: a, ctx: ctx, root: root}
	for {
		switch enough := len(t.shares) > 0 && len(t.shares) >= t.shares[0].Threshold(); {
		case enough && slices.ContainsFunc(t.shares, (*keyshare.Share).HasSealedKey):
			return t.shares, nil
		case enough:
			a.printMessage("\nThe sealed key is missing, which is the same on all pages: type all lines of one of them, or paste the text of its QR code.")
		default:
			a.printMessage("\nShare %d: type its lines of words, or paste the text of its QR code. Type all lines of one page. Of every other page, lines 1 to %d are enough; then press Enter twice.", len(t.shares)+1, keyshare.ShareLines)
		}
		s, err := t.readShare()
		if errors.Is(err, errInterrupted) { // also at the end of the input
			return nil, err
		}
		if err == nil {
			err = t.add(s)
		}
		if err != nil {
			a.printMessage("%v. This share is not used: type it again, or another share (Ctrl-C ends the command).", err)
			continue
		}
		a.printMessage("%v", s)
	}
}

// add adds a share. It returns an error if the share belongs to another root key or to another split than the earlier shares, or if
// it was added before. A share that was added without the sealed key may be added again with the sealed key, and is replaced.
func (t *sharePrompter) add(s *keyshare.Share) error {
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

// readShare reads the lines of one share, and prompts again for a mistyped line. Pasted text may include the headings of a page,
// and the empty line between the share and the sealed key.
func (t *sharePrompter) readShare() (*keyshare.Share, error) {
	const sealedLine = keyshare.ShareLines + 1 // number of the first line of the sealed key
	var text strings.Builder
	ended := false // there was an empty line, which ends the share unless the sealed key follows
	for n := 1; ; {
		line, err := t.readLine(n, ended)
		switch {
		case err != nil:
			return nil, err
		case strings.HasPrefix(strings.ToUpper(line), "PEERLINK-SHARE"):
			return keyshare.Parse(line)
		case line == "" && n == sealedLine && !ended:
			ended = true
			continue
		case line == "" && n == sealedLine:
			return keyshare.Parse(text.String())
		case line == "" && n > 1:
			t.app.printMessage("The share is not complete yet: line %d is next.", n)
			continue
		case line == "" || keyshare.IsHeading(line):
			continue
		}
		err = keyshare.CheckLine(n, line)
		if err != nil && n == sealedLine && keyshare.CheckLine(1, line) == nil {
			t.nextLine = line // the share ends here, without the sealed key
			return keyshare.Parse(text.String())
		}
		if err != nil {
			t.app.printMessage("%v", err)
			continue
		}
		// A line may have been typed with its number, as it is on the page.
		bare := strings.TrimLeft(line, "0123456789 \t.:)(-#")
		fmt.Fprintf(&text, "%d %s\n", n, bare)
		if n++; n <= sealedLine {
			continue
		}
		if s, err := keyshare.Parse(text.String()); !errors.Is(err, keyshare.ErrIncomplete) {
			return s, err
		}
	}
}

// readLine prompts for line n and reads it from the terminal, unless it has been read already. ended means that an empty line
// was read before.
func (t *sharePrompter) readLine(n int, ended bool) (string, error) {
	if line := t.nextLine; line != "" {
		t.nextLine = ""
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
