// Package pulse detects loops that hang.
package pulse

import (
	"sync/atomic"
	"time"
)

// start is when the process began: times are stored relative to it with the monotonic
// clock, so that changes of the machine's clock have no effect.
var start = time.Now()

// Pulse records the last pass of one loop. The zero Pulse belongs to a loop that does not
// run.
type Pulse struct{ last atomic.Int64 }

// Beat is called in each pass of the loop.
func (p *Pulse) Beat() { p.last.Store(int64(max(time.Since(start), 1))) }

// Stop is called when the loop ends.
func (p *Pulse) Stop() { p.last.Store(0) }

// Silence returns the time since the last pass, or 0 if the loop does not run.
func (p *Pulse) Silence() time.Duration {
	last := p.last.Load()
	if last == 0 {
		return 0
	}
	return time.Since(start) - time.Duration(last)
}
