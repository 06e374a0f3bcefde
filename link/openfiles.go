package link

import "peerlink/internal/pendingconns"

const (
	// defaultPendingConns and defaultHandshakes are the defaults if the limit of open
	// files is high enough.
	defaultPendingConns = 4096
	defaultHandshakes   = 256

	// fewOpenFiles is the limit of open files below which a warning is logged: a
	// hundred peers need up to 2,000 at once.
	fewOpenFiles = 4096
)

// connLimits returns how many connections may wait for their ClientHello, how many
// handshakes may run at once, and how many may wait for that, in a process with this limit
// of open files. Together they take two thirds of the limit at most. The rest is reserved
// for the connections from and to peers, and for files.
func connLimits(limit int) (pendingConns, handshakes, waiting int) {
	pendingConns = max(min(defaultPendingConns, limit/4), 1)
	handshakes = max(min(defaultHandshakes, limit/6), 4)
	waiting = max(min(4*defaultHandshakes, limit/4), 4)
	return pendingConns, handshakes, waiting
}

// warnFewOpenFiles logs a warning if the limit of open files is low.
func (s *Service) warnFewOpenFiles() {
	if limit := pendingconns.OpenFiles(); limit < fewOpenFiles {
		s.log.Warn("the limit of open files is low: with many peers, or many unauthenticated connections, new connections may fail",
			"limit", limit, "what_to_do", "allow 65536 (LimitNOFILE in systemd, ulimit -n in a shell)")
	}
}
