//go:build !unix

package costtest

import "time"

var begin = time.Now()

// spent is the time that has passed.
func spent() time.Duration { return time.Since(begin) }
