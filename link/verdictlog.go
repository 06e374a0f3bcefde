package link

import (
	"context"
	"log/slog"
	"time"

	"peerlink/internal/logthrottle"
)

// verdictLogger logs the changes of the verdicts on links, each once. Entries about one direction of
// a link are limited, so that a peer that comes and goes can not fill the log.
type verdictLogger struct {
	log     *slog.Logger
	limiter *logthrottle.Limiter
	seen    map[directionOf]Verdict // the present ones
	trouble map[directionOf]Verdict // those that were logged because messages do not pass, until it is logged that they do
}

// directionOf is one direction of the link with a peer.
type directionOf struct{ peer, direction string }

// watchVerdicts logs the changes of all verdicts until ctx is done.
func (s *Service) watchVerdicts(ctx context.Context) {
	w := verdictLogger{s.log, s.logLimiter, make(map[directionOf]Verdict), make(map[directionOf]Verdict)}
	tick := time.NewTicker(s.cfg.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range s.peers.all() {
			out, in := p.linkStates(s.shared, time.Now())
			w.note(directionOf{p.id, "out"}, out)
			w.note(directionOf{p.id, "in"}, in)
		}
	}
}

// note records the present state of a direction, and logs it if its verdict is another one than before.
func (w *verdictLogger) note(d directionOf, now LinkState) {
	before := w.seen[d]
	w.seen[d] = now.Verdict
	if before == now.Verdict {
		return
	}
	if trouble := w.trouble[d]; trouble != "" {
		before = trouble
	}
	level := w.level(d, now.Verdict)
	if !w.log.Enabled(context.Background(), level) {
		return
	}
	args := []any{"peer", d.peer, "direction", d.direction, "verdict", now.Verdict}
	for _, more := range [][2]string{{"before", string(before)}, {"reason", now.Reason}, {"what_to_do", now.Remedy}} {
		if more[1] != "" {
			args = append(args, more[0], more[1])
		}
	}
	w.limiter.Log(w.log, level, logthrottle.Key{Who: d.peer, Kind: "verdict " + d.direction}, "the state of the link has changed", args...)
}

// level returns the level at which a new verdict is logged. That a link rests, connects and is linked
// again is usual, unless it was in trouble before.
func (w *verdictLogger) level(d directionOf, now Verdict) slog.Level {
	switch severity := now.Severity(); {
	case now == VerdictConnecting:
		return slog.LevelDebug
	case severity == Bad:
		w.trouble[d] = now
		return slog.LevelWarn
	case severity == Warn:
		w.trouble[d] = now
		return slog.LevelInfo
	case w.trouble[d] != "":
		delete(w.trouble, d)
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
