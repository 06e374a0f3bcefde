//go:build !peerlink_test_cost

package keyshare

// defaultCost is the binary logarithm of scrypt's N for new shares. With it, scrypt needs
// 128 MiB for about half a second: more than for key files, because an attacker has decades to
// collect as many pages as the threshold, and little enough for an old computer without a
// network.
const defaultCost = 17
