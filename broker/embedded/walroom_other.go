//go:build !linux

package embedded

// keepSharedMemory is not implemented for this system.
func keepSharedMemory(string) (release func()) { return func() {} }
