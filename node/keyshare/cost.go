//go:build !peerlink_test_cost

package keyshare

// defaultCost takes 128 MiB, for about half a second: more than the key file
// asks for, since on paper there are decades to bring T pages together, and
// little enough for any computer that is kept off the network.
const defaultCost = 17
