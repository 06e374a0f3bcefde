//go:build peerlink_test_cost

package pki

// keyCost and keyParallelization are N and p of scrypt for new key files. They are small in
// programs that are compiled for the tests of the commands, because these tests make and open
// many key files.
const (
	keyCost            = 1 << 10
	keyParallelization = 1
)
