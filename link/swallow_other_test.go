//go:build !linux

package link_test

import "testing"

// swallow opens an address where packets are dropped.
func swallow(t *testing.T, _ string) {
	t.Helper()
	t.Skip("skipped, an address that swallows packets: it is made on Linux only")
}
