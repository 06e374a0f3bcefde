//go:build peerlink_test_cost

package keyshare

// defaultCost is minimal in programs compiled for tests of commands, which make many shares
// of test keys.
const defaultCost = minCost
