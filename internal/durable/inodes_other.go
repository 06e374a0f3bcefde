//go:build !linux && !darwin && !freebsd

package durable

// FreeInodes is not implemented for this system.
func FreeInodes(string) (free uint64, known bool) { return 0, false }
