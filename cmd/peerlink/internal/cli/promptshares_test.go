package cli

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"peerlink/node/keyshare"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// newPrompter returns a set of shares, and a function that returns a sharePrompter
// whose input is the given text.
func newPrompter(t *testing.T) (shares []*keyshare.Share, prompt func(text string) *sharePrompter) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Type: nodetype.AccountingAuthority, ID: "1234abcd"}
	shares, err = keyshare.Split(key, id, []byte("correct horse"), 3, 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return shares, func(text string) *sharePrompter {
		a := &app{stderr: io.Discard, lines: bufio.NewReader(strings.NewReader(text))}
		return &sharePrompter{app: a, ctx: t.Context(), root: key.Public()}
	}
}

var numberedLines = regexp.MustCompile(`(?m)^ ?([0-9]+)  (.*)$`)

// The lines of a share can be typed with or without the numbers that they have on
// the page, and a mistyped line is asked for again.
func TestTypedShare(t *testing.T) {
	shares, prompt := newPrompter(t)
	lines := numberedLines.FindAllStringSubmatch(shares[0].Text(), -1)
	for name, form := range map[string]string{"without numbers": "$2", "with numbers": "$1  $2", "with a period": "$1. $2"} {
		var typed strings.Builder
		typed.WriteString("some mistyped words\n")
		for _, line := range lines {
			typed.WriteString(strings.NewReplacer("$1", line[1], "$2", line[2]).Replace(form) + "\n")
			if line[1] == "3" || line[1] == "9" {
				typed.WriteString("\n") // an empty line, typed by mistake
			}
		}
		got, err := prompt(typed.String()).readShare()
		if err != nil || got.Text() != shares[0].Text() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The text of a share that "key split --text" writes can be pasted with its headings
// and empty lines, and followed by the text of the next share.
func TestPastedShares(t *testing.T) {
	shares, prompt := newPrompter(t)
	prompter := prompt(shares[2].Text() + shares[0].Text())
	for _, want := range []*keyshare.Share{shares[2], shares[0]} {
		got, err := prompter.readShare()
		if err != nil || got.Text() != want.Text() {
			t.Fatalf("%v: %v", want, err)
		}
	}
}

// Of all shares but one, the first five lines are enough. An empty line or the first
// line of the next share ends them.
func TestTypedShortShare(t *testing.T) {
	shares, prompt := newPrompter(t)
	short := func(s *keyshare.Share) (text string) {
		for _, line := range numberedLines.FindAllString(s.Text(), keyshare.ShareLines) {
			text += line + "\n"
		}
		return text
	}
	for _, end := range []string{"", "\n", "\n\n"} {
		prompter := prompt(short(shares[1]) + end + shares[0].Text())
		for _, want := range []*keyshare.Share{shares[1], shares[0]} {
			got, err := prompter.readShare()
			if err != nil || got.String() != want.String() {
				t.Fatalf("after %q: %v: %v", end, want, err)
			}
		}
	}
}

// A share that does not belong to the shares before is refused at once, and the
// shares before are kept. A share with the sealed key replaces the same share
// without it.
func TestMismatchedShare(t *testing.T) {
	shares, prompt := newPrompter(t)
	otherShares, _ := newPrompter(t)
	short, err := keyshare.Parse(strings.Join(numberedLines.FindAllString(shares[0].Text(), keyshare.ShareLines), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	prompter := prompt("")
	for _, step := range []struct {
		share *keyshare.Share
		want  error
		count int
	}{
		{otherShares[0], keyshare.ErrOtherKey, 0},
		{short, nil, 1},
		{short, keyshare.ErrDuplicate, 1},
		{shares[0], nil, 1},
		{shares[0], keyshare.ErrDuplicate, 1},
		{otherShares[1], keyshare.ErrOtherKey, 1},
		{shares[2], nil, 2},
	} {
		if err := prompter.add(step.share); !errors.Is(err, step.want) || len(prompter.shares) != step.count {
			t.Errorf("add(%v): got error %v and %d shares, want %v and %d", step.share, err, len(prompter.shares), step.want, step.count)
		}
	}
	if _, err := keyshare.Combine(prompter.shares); err != nil {
		t.Error(err)
	}
}
