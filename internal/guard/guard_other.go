//go:build !linux

package guard

func protect() { noCoreDumps() }

func confine() { noCoreDumps() }
