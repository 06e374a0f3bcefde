//go:build !unix

package pendingconns

import "math"

// OpenFiles returns the limit of open files of the process. This system has no limit
// that matters.
func OpenFiles() int { return math.MaxInt }
