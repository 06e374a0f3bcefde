package embedded

import (
	"database/sql/driver"
	"fmt"
	"time"

	"peerlink/internal/wait"
)

// countingVersion is the version of the function rowSize, by which received messages are
// counted. What was counted of a message is stored with it, and subtracted when the message is
// removed. But messages that were stored with a schema version below 4 are counted by rowSize
// when they are removed. So a service whose store has a table usage that was made with another
// version of rowSize corrects the table, once, while it is running.
const countingVersion = "1"

// countedOf returns what was counted of a stored message; column is its column counted, and
// size its size by rowSize.
func countedOf(column int64, size int) int64 {
	if column >= 0 {
		return column
	}
	return int64(size)
}

const (
	// recountPage is how many messages recount reads at once.
	recountPage = 20_000
	// recountLogInterval is the interval between the log records of recount's progress.
	recountLogInterval = 10 * time.Second
	// recountPause is the time until a recount that has failed is tried again.
	recountPause = 10 * time.Minute
	// recountWALs is the size of the write-ahead log, as a multiple of disk.walLimit, at which
	// recount gives up: while it reads, the log can not be truncated.
	recountWALs = 8
)

// keepCounted corrects table usage if it was not made with countingVersion, and returns when that
// is done or the store is closed.
func (s *Store) keepCounted() {
	for {
		err := s.recount()
		if err == nil || s.life.Err() != nil {
			return
		}
		s.log.Warn("how much each peer's messages take can not be counted now, trying again later", "err", err, "pause", recountPause)
		if wait.Sleep(s.life, recountPause) != nil {
			return
		}
	}
}

// recount counts the messages as they are in one state of the file, and adds the difference between
// the result and table usage in that state to the table. Meanwhile messages are stored and removed:
// the table changes by what was stored with each, so that the difference stays the same.
func (s *Store) recount() error {
	c := newRecounting(s)
	if err := c.read(); err != nil || c.done {
		return err
	}
	return c.write()
}

// recounting is a run of recount.
type recounting struct {
	store    *Store
	done     bool             // table usage was made with countingVersion
	change   map[string]int64 // of table usage, by sending peer
	messages int64            // counted so far
	start    time.Time
	logged   time.Time // when the progress was logged last
}

func newRecounting(s *Store) *recounting {
	return &recounting{store: s, change: make(map[string]int64), start: time.Now(), logged: time.Now()}
}

// read reads one state of the file, on a connection of its own.
func (c *recounting) read() error {
	conn, err := openConn(c.store.path)
	if err != nil {
		return err
	}
	defer conn.close()
	if err := conn.exec("PRAGMA query_only = ON; BEGIN"); err != nil {
		return err
	}
	n, err := conn.number("SELECT count(*) FROM store WHERE counting = " + countingVersion)
	if c.done = n > 0; err != nil || c.done {
		return err
	}
	if err := c.countAll(conn); err != nil {
		return err
	}
	return conn.rows("SELECT peer, bytes FROM usage", func(cols []driver.Value) { c.change[text(cols[0])] -= number(cols[1]) })
}

// write corrects table usage.
func (c *recounting) write() error {
	s := c.store
	err := s.commit(s.life, func(t *tx) error {
		for peer, bytes := range c.change {
			t.usageChange[peer] += bytes
		}
		return t.exec("UPDATE store SET counting = " + countingVersion)
	})
	if err == nil {
		s.log.Info("counted how much each peer's messages take, after an upgrade",
			"messages", c.messages, "after", time.Since(c.start).Round(time.Millisecond))
	}
	return err
}

// countAll counts the messages of all queues.
func (c *recounting) countAll(conn *conn) error {
	page, err := conn.prepare("SELECT peer, counted, content, count(*), max(seq) FROM" +
		" (SELECT seq, peer, counted, octet_length(type) + octet_length(content_type) + octet_length(routing_key)" +
		" + octet_length(headers) + coalesce(octet_length(body), 0) AS content" +
		" FROM messages WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?)" +
		" GROUP BY peer, counted, content")
	if err != nil {
		return err
	}
	defer page.close()
	var queues []int64
	err = conn.rows("SELECT id FROM queues", func(cols []driver.Value) { queues = append(queues, number(cols[0])) })
	for _, queue := range queues {
		if err == nil {
			err = c.countQueue(page, queue)
		}
	}
	return err
}

// countQueue counts the messages of one queue.
func (c *recounting) countQueue(page *stmt, queue int64) error {
	for last := int64(0); ; {
		after := last
		if err := page.queryContext(c.store.life, func(cols []driver.Value) bool {
			c.add(text(cols[0]), number(cols[1]), int(number(cols[2])), number(cols[3]))
			last = max(last, number(cols[4]))
			return true
		}, queue, after, int64(recountPage)); err != nil || last == after {
			return err
		}
		if err := c.check(); err != nil {
			return err
		}
	}
}

// check returns an error if the reading should not go on. It logs the progress.
func (c *recounting) check() error {
	s := c.store
	switch log := s.disk.walBytes(); {
	case s.life.Err() != nil:
		return s.life.Err()
	case s.writer.lastError() != nil:
		return s.writer.lastError()
	case log > recountWALs*s.disk.walLimit():
		return fmt.Errorf("the write-ahead log has grown to %d bytes meanwhile", log)
	}
	if time.Since(c.logged) >= recountLogInterval {
		c.logged = time.Now()
		s.log.Info("counting how much each peer's messages take, after an upgrade", "messages", c.messages)
	}
	return nil
}

// add adds n messages with the same peer, column counted, and bytes of texts and body.
func (c *recounting) add(peer string, counted int64, content int, n int64) {
	c.messages += n
	if peer != "" {
		c.change[peer] += n * countedOf(counted, contentSize(content))
	}
}
