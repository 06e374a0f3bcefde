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

// typing returns an app on whose terminal a text is typed, and a set of shares.
func typing(t *testing.T) (shares []*keyshare.Share, start func(text string) *sharePrompter) {
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

// Whoever types a share from paper may type the numbers of the lines as they stand
// there, or leave them out, and gets a mistyped line asked for again.
func TestTypedShare(t *testing.T) {
	shares, start := typing(t)
	lines := numberedLines.FindAllStringSubmatch(shares[0].Text(), -1)
	for name, form := range map[string]string{"without numbers": "$2", "with numbers": "$1  $2", "with a period": "$1. $2"} {
		var typed strings.Builder
		typed.WriteString("some mistyped words\n")
		for _, line := range lines {
			typed.WriteString(strings.NewReplacer("$1", line[1], "$2", line[2]).Replace(form) + "\n")
			if line[1] == "3" || line[1] == "9" {
				typed.WriteString("\n") // a slip
			}
		}
		got, err := start(typed.String()).readShare()
		if err != nil || got.Text() != shares[0].Text() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The text of a share that "key split --text" writes can be pasted, with its headings
// and its empty lines, and the next one after it.
func TestPastedShares(t *testing.T) {
	shares, start := typing(t)
	typing := start(shares[2].Text() + shares[0].Text())
	for _, want := range []*keyshare.Share{shares[2], shares[0]} {
		got, err := typing.readShare()
		if err != nil || got.Text() != want.Text() {
			t.Fatalf("%v: %v", want, err)
		}
	}
}

// Of all pages but one, five lines are enough, which end with an empty line, or with the
// first line of the next page.
func TestTypedShortShare(t *testing.T) {
	shares, start := typing(t)
	short := func(s *keyshare.Share) (text string) {
		for _, line := range numberedLines.FindAllString(s.Text(), keyshare.ShareLines) {
			text += line + "\n"
		}
		return text
	}
	for _, end := range []string{"", "\n", "\n\n"} {
		typing := start(short(shares[1]) + end + shares[0].Text())
		for _, want := range []*keyshare.Share{shares[1], shares[0]} {
			got, err := typing.readShare()
			if err != nil || got.String() != want.String() {
				t.Fatalf("after %q: %v: %v", end, want, err)
			}
		}
	}
}

// A share that does not go together with those before is named at once, and is not
// taken: what was typed before stays. The same one with the sealed key is taken.
func TestUnfitShare(t *testing.T) {
	shares, start := typing(t)
	others, _ := typing(t)
	short, err := keyshare.Parse(strings.Join(numberedLines.FindAllString(shares[0].Text(), keyshare.ShareLines), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	typing := start("")
	for _, step := range []struct {
		share *keyshare.Share
		want  error
		have  int
	}{
		{others[0], keyshare.ErrOtherKey, 0},
		{short, nil, 1},
		{short, keyshare.ErrDuplicate, 1},
		{shares[0], nil, 1},
		{shares[0], keyshare.ErrDuplicate, 1},
		{others[1], keyshare.ErrOtherKey, 1},
		{shares[2], nil, 2},
	} {
		if err := typing.add(step.share); !errors.Is(err, step.want) || len(typing.shares) != step.have {
			t.Errorf("%v: %v, and then there are %d: want %v, %d", step.share, err, len(typing.shares), step.want, step.have)
		}
	}
	if _, err := keyshare.Combine(typing.shares); err != nil {
		t.Error(err)
	}
}
