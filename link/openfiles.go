package link

import "math"

const (
	// defaultPendingConns and defaultHandshakes are the defaults where the limit of
	// open files is far away.
	defaultPendingConns = 4096
	defaultHandshakes   = 256

	// fewOpenFiles is a limit of open files below which a warning is logged: a
	// hundred peers need up to 2,000 at once.
	fewOpenFiles = 4096

	// unlimited is the limit of open files where there is none.
	unlimited = math.MaxInt
)

// strangersWithin returns how many connections may wait for their ClientHello, and
// how many handshakes may go on at once, where a process may have limit open files.
// With those that wait for their handshake, four times as many as go on, they take
// little more than half of the limit. The rest is for what strangers must not use
// up: the connections of peers, this node's own to them, and its files.
func strangersWithin(limit int) (pendingConns, handshakes int) {
	pendingConns = max(min(defaultPendingConns, limit/3), 1)
	handshakes = max(min(defaultHandshakes, limit/24), 4)
	return pendingConns, handshakes
}

// warnFewOpenFiles logs a warning if the process may have few open files.
func (s *Service) warnFewOpenFiles() {
	if limit := openFiles(); limit < fewOpenFiles {
		s.log.Warn("this process may have few open files: with many peers, or many strangers that connect, it has none left for some connections",
			"limit", limit, "what_to_do", "allow 65536 (LimitNOFILE in systemd, ulimit -n in a shell)")
	}
}
