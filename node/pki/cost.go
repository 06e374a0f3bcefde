//go:build !peerlink_test_cost

package pki

// keyCost and keyParallelization are N and p of scrypt for new key files. N=2^14 with r=8
// needs 16 MiB. Some versions of OpenSSL do not accept the next power of two by default,
// because it exceeds their limit of 32 MiB. p=5 increases the time instead.
const (
	keyCost            = 1 << 14
	keyParallelization = 5
)
