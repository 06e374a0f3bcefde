package infobundle

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"peerlink/internal/costtest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Reading a bundle of the permitted size allocates at most 32 MiB in total, and takes
// at most half a second, whatever the bundle contains.
func TestReadCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	a := newAuthor(t, nodetype.AccountingAuthority)
	toml := rawEntry{name: StompTOML, content: "x"}
	bundle := func(a author, inner []byte, parts ...rawEntry) []byte {
		t.Helper()
		sig, err := pki.SignData(a.key, inner)
		if err != nil {
			t.Fatal(err)
		}
		return rawZip{entries: append(parts, rawEntry{name: rootCert, content: string(a.root)}, rawEntry{name: rootCSR, content: string(a.csr)},
			rawEntry{name: nodeinfo, content: string(inner), deflate: true}, rawEntry{name: signature, content: string(sig)})}.bytes(t)
	}
	slow := costtest.NewSlowKey(t, 8192, 1<<17-1)
	id := pki.Identity{Type: nodetype.AccountingAuthority, ID: "1234abcd"}
	root, err := pki.SelfSign(id, slow, big.NewInt(1), now)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(id, slow, pki.RootCSR)
	if err != nil {
		t.Fatal(err)
	}
	slowAuthor := author{slow, pki.EncodeCertificatePEM(root), pki.EncodeCSRPEM(csr)}

	many := make([]rawEntry, maxNodeinfoFiles)
	for i := range many {
		many[i] = rawEntry{name: fmt.Sprint(strings.Repeat("x", 30), "/", strings.Repeat("y", maxName-40), i), content: "x", deflate: true}
	}
	folders := make([]rawEntry, 2*maxNodeinfoFiles)
	for i := range folders {
		folders[i] = rawEntry{name: strings.Repeat("x/", 95) + fmt.Sprint(i, "/")}
	}
	// As many headers, of 46 bytes each, as a bundle can have.
	central := strings.Repeat(centralSignature+strings.Repeat("\x00", centralSize-4), (MaxSize-200)/centralSize)
	listed := rawZip{entries: []rawEntry{toml}, inDirectory: central, end: set(8, "\xfe\xff\xfe\xff")}.bytes(t)
	tables := costtest.Deflate(MaxSize * 9 / 10)
	for name, data := range map[string][]byte{
		"zeros":           bundle(a, rawZip{entries: []rawEntry{{name: "zeros", content: string(make([]byte, maxUnpacked-1<<16)), deflate: true}, toml}}.bytes(t)),
		"many files":      bundle(a, rawZip{entries: append(many[:maxNodeinfoFiles-1], toml)}.bytes(t)),
		"many folders":    bundle(a, rawZip{entries: append(folders[:maxNodeinfoFiles], toml)}.bytes(t)),
		"many entries":    listed,
		"tables":          bundle(a, rawZip{entries: []rawEntry{toml}}.bytes(t), rawEntry{name: "x", deflate: true, packed: tables}),
		"tables inside":   bundle(a, rawZip{entries: []rawEntry{toml, {name: "x", deflate: true, packed: tables}}}.bytes(t)),
		"a large inside":  bundle(a, rawZip{entries: []rawEntry{toml, {name: "x", content: string(make([]byte, MaxSize-2000))}}}.bytes(t)),
		"slow keys":       bundle(slowAuthor, rawZip{entries: []rawEntry{toml}}.bytes(t)),
		"too large":       make([]byte, 20<<20),
		"nothing but PK ": bytes.Repeat([]byte(localSignature), MaxSize/4),
		"all ends":        bytes.Repeat([]byte(endSignature), MaxSize/4),
	} {
		if len(data) > MaxSize && name != "too large" {
			t.Errorf("%s: the bundle has %d bytes, want at most %d", name, len(data), MaxSize)
		}
		var err error
		costtest.Check(t, name, func() { _, err = Read(data, now) })
		t.Logf("%s: %d bytes, %v", name, len(data), err)
	}
}
