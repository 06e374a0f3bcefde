//go:build peerlink_test_cost

package keyshare

// defaultCost is minimal in programs compiled for tests of commands, because these tests make
// many shares.
const defaultCost = minCost
