// Package pulse shows whether a loop still goes on.
package pulse

import (
	"sync/atomic"
	"time"
)

// start is when the process began: times are kept as the time since then, which no
// change of the machine's clock affects.
var start = time.Now()

// Pulse is the pulse of one loop. The zero Pulse is that of a loop that does not run.
type Pulse struct{ last atomic.Int64 }

// Beat is called in each turn of the loop.
func (p *Pulse) Beat() { p.last.Store(int64(max(time.Since(start), 1))) }

// Stop is called when the loop ends.
func (p *Pulse) Stop() { p.last.Store(0) }

// Silence returns how long ago the last turn was; 0 if the loop does not run.
func (p *Pulse) Silence() time.Duration {
	last := p.last.Load()
	if last == 0 {
		return 0
	}
	return time.Since(start) - time.Duration(last)
}
