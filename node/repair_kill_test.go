package node

import (
	"context"
	"crypto"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// If a repair is killed after any of its steps, the completed steps are permanent,
// and the next repair does the other steps. Afterwards, the node can sign again.
func TestRepairKilled(t *testing.T) {
	ctx := context.Background()
	newKey := func() crypto.Signer {
		key, err := pki.GenerateKey(pki.P256)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key := newKey()
	d, err := Init(ctx, t.TempDir(), InitOptions{Type: nodetype.AccountingAuthority, ID: "1234abcd", Servers: []string{"x.example.com:1"}, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"db/serial", "db/index", "db/index.attr", "db/crlnumber", "root-ca.conf", "certs", "peers", "db/subnets/creditors"} {
		if err := os.RemoveAll(d.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"db/subnets/debtors/1234abcd05": strings.Repeat("0", 32) + "\n",
		"db/subnets/debtors/1234abcd06": "",
		"db/subnets/debtors/SEQNUM":     "6\n",
		"db/.index.tmp-1":               "x",
	} {
		if err := os.WriteFile(d.file(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defects, err := d.Defects(ctx)
	if err != nil || len(defects) != 11 {
		t.Fatalf("%d defects (%+v), error %v; want 11", len(defects), defects, err)
	}
	for len(defects) > 0 {
		if err := defects[0].fix(); err != nil {
			t.Fatalf("%s: %v", defects[0].File, err)
		}
		left, err := d.Defects(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) != len(defects)-1 {
			t.Fatalf("after %s: %+v are left", defects[0].File, left)
		}
		for i, defect := range left {
			if defect.File != defects[i+1].File {
				t.Errorf("after %s: %s is left, want %s", defects[0].File, defect.File, defects[i+1].File)
			}
		}
		defects = left
	}
	der, err := pki.NewCSR(d.Identity(), newKey(), pki.ServerCSR)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.SignServer(ctx, key, csr, time.Hour); err != nil {
		t.Error(err)
	}
	if subnet, err := d.pool(nodetype.DebtorsAgent).reserve(strings.Repeat("1", 32), nil); err != nil || subnet != "1234abcd00" {
		t.Errorf("subnet %q, error %v", subnet, err)
	}
}
