//go:build !peerlink_test_cost

package keyshare

// defaultCost is the binary logarithm of scrypt's N for new shares: 128 MiB for about half
// a second. That is more than for key files, because an attacker has decades to collect T
// pages, and little enough for an old computer without a network.
const defaultCost = 17
