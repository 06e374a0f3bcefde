//go:build peerlink_test_cost

package pki

// keyCost and keyParallelization are small in programs compiled for tests of commands,
// which open many test keys.
const (
	keyCost            = 1 << 10
	keyParallelization = 1
)
