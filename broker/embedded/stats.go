package embedded

import (
	"context"
	"database/sql/driver"
	"fmt"
	"os"
	"time"

	"peerlink/internal/latency"
)

// Stats are the figures of a store at one moment.
type Stats struct {
	Queues    []QueueStats // sorted by name
	FileBytes int64        // size of the file and its write-ahead log
	Problem   *Problem     // nil unless the store can not be written
	// Unconsumed has the bytes of the messages received from each peer that no application has
	// consumed. PeerQuota is how many there may be of each peer; 0: no limit.
	Unconsumed map[string]int64
	PeerQuota  int64
	FreeBytes  int64             // on the disk; -1: unknown
	Commits    latency.Histogram // how long the transactions took that have stored, moved or removed messages, from BEGIN to the end of the synced COMMIT
	MinFree    int64             // the free bytes from which few messages of peers are accepted; 0: no limit
}

// Problem is the reason why, and the time since when, a store can not be written or read, or
// accepts few or no messages of peers.
type Problem struct {
	Since time.Time
	Err   error
}

// QueueStats are the figures of a queue or an inbox.
type QueueStats struct {
	Name     string
	Depth    int64     // number of messages in it, delivered or not
	Oldest   time.Time // arrival of the oldest message in it; zero if it is empty
	SetAside int64     // number of dead letters
	Total    uint64    // number of messages ever stored in it; one that was retried counts again
}

// selectQueueStats selects the columns that queueStatsOf reads.
const selectQueueStats = "SELECT name, depth, next_seq," +
	" (SELECT arrived FROM messages WHERE queue = queues.id ORDER BY seq LIMIT 1)," +
	" (SELECT count(*) FROM set_aside WHERE queue = queues.id)" +
	" FROM queues ORDER BY name"

func queueStatsOf(cols []driver.Value) QueueStats {
	q := QueueStats{Name: text(cols[0]), Depth: number(cols[1]), Total: uint64(number(cols[2]) - 1), SetAside: number(cols[4])}
	if cols[3] != nil {
		q.Oldest = time.UnixMilli(number(cols[3]))
	}
	return q
}

// Stats reads the figures of all queues from the file.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	stats := Stats{Problem: s.writer.problem.Load(), Unconsumed: s.quotas.all(), PeerQuota: s.quotas.limit, FreeBytes: -1, MinFree: s.disk.minFree, Commits: s.writer.commits.Histogram()}
	if free, err := s.disk.freeBytes(); err == nil {
		stats.FreeBytes = free
	}
	err := s.read(ctx, "read figures", func(r *readConn) error {
		return r.queueStats.query(func(cols []driver.Value) bool {
			stats.Queues = append(stats.Queues, queueStatsOf(cols))
			return true
		})
	})
	if err != nil {
		return Stats{}, fmt.Errorf("message store %s: %w", s.path, err)
	}
	for _, path := range []string{s.path, s.path + "-wal"} {
		if info, err := os.Stat(path); err == nil {
			stats.FileBytes += info.Size()
		}
	}
	return stats, nil
}

// Health returns an error if the store cannot be written or read, or if it accepts few or no
// messages of peers because the disk is almost full or the reserve is missing; the error
// contains the time since when. Otherwise it returns nil.
func (s *Store) Health() error {
	if t := s.writer.problem.Load(); t != nil {
		return fmt.Errorf("message store can not be written since %s: %w", t.Since.UTC().Format(time.DateTime), t.Err)
	}
	if t := s.faults.problem(); t != nil {
		return fmt.Errorf("message store can not be read since %s: %w", t.Since.UTC().Format(time.DateTime), t.Err)
	}
	if t := s.disk.problem(); t != nil {
		return fmt.Errorf("message store accepts few or no messages of peers since %s: %w", t.Since.UTC().Format(time.DateTime), t.Err)
	}
	return nil
}

// maxSilence is how long the writer may take for one pass of its loop before
// [Store.Stalled] reports it. The largest transaction takes seconds on a slow disk.
const maxSilence = 30 * time.Second

// Stalled returns an error if the writer's goroutine hangs, as on a disk that does not
// respond. Writes that fail are not a stall: they are retried.
func (s *Store) Stalled() error { return s.stalledFor(maxSilence) }

func (s *Store) stalledFor(limit time.Duration) error {
	if d := s.writer.pulse.Silence(); d > limit {
		return fmt.Errorf("a transaction of the message store has not ended for %v, the disk may not respond", d.Round(time.Second))
	}
	return nil
}

// Queues returns the names of all queues and inboxes.
func (s *Store) Queues(ctx context.Context) ([]string, error) {
	stats, err := s.Stats(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(stats.Queues))
	for i, q := range stats.Queues {
		names[i] = q.Name
	}
	return names, nil
}

// NonEmptyQueues returns the names of the queues and inboxes that have messages or dead
// letters.
func (s *Store) NonEmptyQueues(ctx context.Context) ([]string, error) {
	stats, err := s.Stats(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, q := range stats.Queues {
		if q.Depth > 0 || q.SetAside > 0 {
			names = append(names, q.Name)
		}
	}
	return names, nil
}
