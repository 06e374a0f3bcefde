package link

import (
	"strings"
	"testing"
)

// Waiting receipts are bounded by their number and by their bytes, and receipts that
// were sent do not count any more.
func TestReceiptsAreBounded(t *testing.T) {
	for _, tt := range []struct{ size, most int }{{4, maxReceipts}, {480, maxReceiptBytes/480 + 1}} {
		r := new(receiver)
		r.changed.L = &r.mu
		for range 2 {
			n := 0
			for ; r.hasReceiptSlot(); n++ {
				r.add(strings.Repeat("r", tt.size), 0)
			}
			if n != tt.most {
				t.Errorf("%d receipts of %d bytes wait, want %d", n, tt.size, tt.most)
			}
			r.acquired.confirm(r.acquired.last())
			if _, ok, err := r.nextReceipt(); !ok || err != nil || r.receiptBytes != 0 || len(r.receipts.items) != 0 {
				t.Errorf("%v, %v: %d receipts of %d bytes are left", ok, err, len(r.receipts.items), r.receiptBytes)
			}
		}
	}
}
