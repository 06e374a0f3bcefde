//go:build !unix

package costtest

import "time"

var begin = time.Now()

// Spent returns the elapsed time.
func Spent() time.Duration { return time.Since(begin) }
