package offline

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// Reading a request or an answer of the permitted size allocates at most 32 MiB in
// total, and takes at most half a second, whatever the file contains.
func TestReadCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	n := nodetest.New(t, aa, "aa.example.com:1234")
	now := time.Now()
	rootPEM := string(pki.EncodeCertificatePEM(n.Root()))
	file := func(format, more string) []byte {
		return fmt.Appendf(nil, `{"format":%q,"version":1,"id":%q,"created":%q,"node_type":%q,"node_id":%q,%s}`,
			format, strings.Repeat("0", idDigits), formatTime(now), aa, n.Identity().ID, more)
	}
	list := func(name, item string) string {
		return fmt.Sprintf(`%q:[%s%s]`, name, strings.Repeat(item+",", MaxSize/(len(item)+1)-1000), item)
	}
	escaped := strings.Repeat(`\u0041`, MaxSize/6-1000)
	inputs := map[string][]byte{
		"servers":       file(requestFormat, list("server_certs", "{}")),
		"peers":         file(requestFormat, list("peer_certs", "{}")),
		"nodeinfo":      file(requestFormat, `"info_bundle":{`+list("nodeinfo", "{}")+`}`),
		"names":         file(requestFormat, list("x", `"":{"":{"":1}}`)),
		"answers":       file(answerFormat, list("peer_certs", `""`)),
		"one text":      file(answerFormat, `"root_csr":"`+strings.Repeat("A", MaxSize-1000)+`"`),
		"escaped":       file(answerFormat, `"root_csr":"`+escaped+`"`),
		"escaped bytes": file(requestFormat, `"root_certificate":"`+escaped+`"`),
		"deep":          file(requestFormat, `"x":`+strings.Repeat(`[`, MaxSize/2)),
		"deep objects":  file(requestFormat, `"x":`+strings.Repeat(`{"":`, MaxSize/5)),
		"a long number": file(requestFormat, `"days":`+strings.Repeat("9", MaxSize-1000)),
		"one name":      file(requestFormat, `"`+strings.Repeat("a", MaxSize-1000)+`":1`),
		"only a name":   []byte(strings.Repeat("[", MaxSize)),
	}
	// Text that looks like many keys, and lines of base64 that are a little too short for a key.
	almostKeys := func(text string) []byte {
		f := requestFile{header: header{requestFormat, version, strings.Repeat("0", idDigits)}, Created: formatTime(now),
			NodeType: aa.String(), NodeID: n.Identity().ID, Root: []byte(rootPEM), InfoBundle: &infoBundleFile{File: "info.zip", Nodeinfo: []nodeinfoFile{
				{infobundle.StompTOML, []byte("servers = 1\n")}, // refused after the search for keys
				{infobundle.UpdatedAt, []byte(now.UTC().Format(time.DateOnly) + "\n")},
				{"x.txt", []byte(strings.Repeat(text, MaxSize*7/10/len(text)))},
			}}}
		data, err := json.MarshalIndent(f, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return append(data, '\n')
	}
	inputs["keys"] = almostKeys("MBwCAQATGWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYQ!")
	inputs["short lines"] = almostKeys(strings.Repeat("A", 39) + " ")
	// In the form that encode writes, so that all of it is checked.
	request := func(peers int, bundle []byte) []byte {
		f := requestFile{header: header{requestFormat, version, strings.Repeat("0", idDigits)}, Created: formatTime(now),
			NodeType: aa.String(), NodeID: n.Identity().ID, Root: []byte(rootPEM)}
		for i := range peers {
			f.PeerCerts = append(f.PeerCerts, peerCertFile{Serial: pki.SerialHex(big.NewInt(int64(1000 + i))), Bundle: bundle, Subnet: fmt.Sprintf("%06x", i+1)})
		}
		data, err := json.MarshalIndent(f, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return append(data, '\n')
	}
	slow := costtest.NewSlowKey(t, 8192, 1<<17-1)
	d, err := node.Init(context.Background(), t.TempDir(), node.InitOptions{Type: ca, Servers: []string{"ca.example.com:1"}, Key: slow})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(d.Identity(), slow, pki.RootCSR)
	if err != nil {
		t.Fatal(err)
	}
	bundle := func(files ...infobundle.File) []byte {
		t.Helper()
		data, err := infobundle.Create(pki.EncodeCertificatePEM(d.Root()), pki.EncodeCSRPEM(csr), files, slow)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	stomp := infobundle.File{Name: infobundle.StompTOML, Data: []byte("servers = [\"x.example.com:1\"]\nhost = \"/\"\ndestination = \"/x\"\n")}
	date := infobundle.File{Name: infobundle.UpdatedAt, Data: []byte("2026-11-28\n")}
	inputs["slow keys"] = request(maxItems, bundle(stomp, date))
	inputs["bundles that unpack to much"] = request(maxItems, bundle(stomp, date, infobundle.File{Name: "zeros.txt", Data: make([]byte, 1<<20)}))
	long := stomp
	long.Data = append(long.Data, strings.Repeat("# a comment\n", 5000)...)
	inputs["long stomp.toml"] = request(maxItems, bundle(long, date))
	large := request(1, []byte(strings.Repeat("x", MaxSize/4*3-10_000)))
	inputs["a large bundle"] = large
	for name, data := range inputs {
		if len(data) > MaxSize {
			t.Errorf("%s: the file has %d bytes, want at most %d", name, len(data), MaxSize)
		}
		var err, err2 error
		costtest.Check(t, name+" as a request", func() { _, err = ReadRequest(data, now) })
		costtest.Check(t, name+" as an answer", func() { _, err2 = ReadAnswer(data) })
		if err == nil || err2 == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
