package smp

import (
	"errors"
	"strings"
	"testing"
)

// Invariant: PeekIDs returns the same values as Outgoing uses, and stops parsing when it
// has them.
func TestPeekIDs(t *testing.T) {
	for _, body := range []string{
		`{"type": "AccountPurge", "debtor_id": -9223372036854775808, "creditor_id": 7}`,
		` {"x": [{}], "creditor_id": "7", "ts": 5, "debtor_id": -9223372036854775808, "type": "AccountPurge", and no more`,
		`{"\u0074ype": "Account\u0050urge", "debtor_id": "-9223372036854775808", "creditor_id": 7.0}`,
	} {
		typ, debtor, creditor, err := PeekIDs([]byte(body))
		if typ != AccountPurge || debtor != -9223372036854775808 || creditor != 7 || err != nil {
			t.Errorf("%s: %q, %d, %d, %v", body, typ, debtor, creditor, err)
		}
	}
	for typ, s := range samples(t) {
		got, debtor, creditor, err := PeekIDs(s.body())
		if got != typ || debtor == 0 || creditor == 0 || err != nil {
			t.Errorf("%s: %q, %d, %d, %v", typ, got, debtor, creditor, err)
		}
	}
	for _, c := range []struct {
		body string
		kind error
	}{
		{``, errSyntax},
		{`[]`, errSyntax},
		{`{"type": "AccountPurge", "debtor_id": 1, "creditor_id"`, errSyntax},
		{`{"type": "AccountPurge", "debtor_id": 1, "creditor_id": }`, errSyntax},
		{"{\"x\": \"\xff\", \"type\": \"AccountPurge\", \"debtor_id\": 1, \"creditor_id\": 2}", errSyntax},
		{`{}`, errField},
		{`{"type": "AccountPurge", "debtor_id": 1}`, errField},
		{`{"debtor_id": 1, "creditor_id": 2}`, errField},
		{`{"type": "Account", "debtor_id": 1, "creditor_id": 2}`, errField},
		{`{"type": 5, "debtor_id": 1, "creditor_id": 2}`, errField},
		{`{"type": "AccountPurge", "debtor_id": null, "creditor_id": 2}`, errField},
		{`{"type": "AccountPurge", "debtor_id": 9223372036854775808, "creditor_id": 2}`, errField},
		{strings.Repeat(" ", MaxApplicationBody+1), errTooLong},
	} {
		if typ, debtor, creditor, err := PeekIDs([]byte(c.body)); !errors.Is(err, c.kind) || typ != "" || debtor != 0 || creditor != 0 {
			t.Errorf("%.80s: %q, %d, %d, error is %v, expected %v", c.body, typ, debtor, creditor, err, c.kind)
		}
	}
}
