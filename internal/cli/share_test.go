package cli

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"peerlink/node/keyshare"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Whoever types a share from paper may type the numbers of the lines as they stand
// there, or leave them out, and gets a mistyped line asked for again.
func TestTypedShare(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Type: nodetype.AccountingAuthority, ID: "1234abcd"}
	shares, err := keyshare.Split(key, id, []byte("correct horse"), 2, 2, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ ?([0-9]+)  (.*)$`).FindAllStringSubmatch(shares[0].Text(), -1)
	for name, form := range map[string]string{"without numbers": "$2", "with numbers": "$1  $2", "with a period": "$1. $2"} {
		var typed strings.Builder
		typed.WriteString("some mistyped words\n")
		for _, line := range lines {
			typed.WriteString(strings.NewReplacer("$1", line[1], "$2", line[2]).Replace(form) + "\n")
		}
		typed.WriteString("\n")
		text, err := (&app{stderr: io.Discard}).typedShare(bufio.NewReader(strings.NewReader(typed.String())))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := keyshare.Parse(text)
		if err != nil || got.Text() != shares[0].Text() {
			t.Errorf("%s: %v", name, err)
		}
	}
}
