//go:build !unix

package costtest

import "time"

var begin = time.Now()

// Spent is the time that has passed.
func Spent() time.Duration { return time.Since(begin) }
