//go:build peerlink_test_cost

package keyshare

// defaultCost of a program that is compiled for tests of commands, which make many
// shares of keys that protect nothing.
const defaultCost = minCost
