package sshagent

import (
	"crypto/elliptic"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"peerlink/internal/costtest"
)

// Another program that answers instead of an agent can not use up the memory of the client, whatever length or
// number of keys its answer has.
func TestAnswerCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	signer, err := ssh.NewSignerFromKey(ecdsaKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	keys := func(n, size int, key string) string {
		list := strings.Repeat(key, size/len(key))
		return text("\x0c" + string(binary.BigEndian.AppendUint32(nil, uint32(n))) + list)
	}
	short, real := text(text("x"))+text(""), text(string(signer.PublicKey().Marshal()))+text("a comment")
	for name, answer := range map[string]string{
		"short keys":                 keys(200<<10/len(short), 200<<10, short),
		"keys":                       keys(200<<10/len(real), 200<<10, real),
		"a great number":             keys(16<<20/8, 200<<10, short),
		"16 MiB of short keys":       keys((16<<20-100)/len(short), 16<<20-100, short),
		"a great length":             "\x01\x00\x00\x00" + strings.Repeat("\x0c", 1<<20),
		"a length beyond all limits": "\xff\xff\xff\xff" + strings.Repeat("\x0c", 1<<20),
	} {
		listen(t, func(c net.Conn) { io.WriteString(c, answer); io.Copy(io.Discard, c) })
		costtest.Check(t, name, func() {
			if _, err := Open(t.Context(), "SHA256:x", nil); err == nil {
				t.Errorf("%s: no error", name)
			}
		})
	}
}
