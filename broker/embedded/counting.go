package embedded

import (
	"database/sql/driver"
	"fmt"
	"log/slog"
	"time"
)

// countingVersion is the version of the function rowSize, by which received messages are
// counted. What was counted of a message is stored with it, and subtracted when the message is
// removed. But messages that were stored with a schema version below 4 are counted by rowSize
// when they are removed. So when a service opens a store whose table usage was made with another
// version of rowSize, it computes the table again, once.
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
	// recountTime bounds the time of recount at the start of a service, since a service that takes too long to start is
	// killed: enough for millions of messages.
	recountTime = 20 * time.Second
	// recountLogInterval is the interval between the log records of recount's progress.
	recountLogInterval = time.Second
)

// recount computes table usage from the messages, in one transaction, if the table was not made
// with countingVersion. If that takes longer than limit, it returns an error, and the table stays
// as it was.
func (w *writeConn) recount(log *slog.Logger, limit time.Duration) error {
	if n, err := w.number("SELECT count(*) FROM store WHERE counting = " + countingVersion); err != nil || n > 0 {
		return err
	}
	return w.commitChange(func() error {
		c := &recounting{usage: make(map[string]int64), log: log, start: time.Now(), limit: limit}
		if err := c.countAll(w); err != nil {
			return err
		}
		return c.write(w)
	})
}

// recounting is a run of recount.
type recounting struct {
	usage    map[string]int64 // by sending peer
	messages int64            // counted so far
	log      *slog.Logger
	start    time.Time
	limit    time.Duration
	logged   time.Time // when the progress was logged last
}

// countAll counts the messages of all queues.
func (c *recounting) countAll(w *writeConn) error {
	c.logged = c.start
	page, err := w.prepare("SELECT peer, counted, content, count(*), max(seq) FROM" +
		" (SELECT seq, peer, counted, octet_length(type) + octet_length(content_type) + octet_length(routing_key)" +
		" + octet_length(headers) + coalesce(octet_length(body), 0) AS content" +
		" FROM messages WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?)" +
		" GROUP BY peer, counted, content")
	if err != nil {
		return err
	}
	defer page.close()
	var queues []int64
	err = w.allQueues.query(func(cols []driver.Value) bool {
		queues = append(queues, number(cols[0]))
		return true
	})
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
		if err := page.query(func(cols []driver.Value) bool {
			c.add(text(cols[0]), number(cols[1]), int(number(cols[2])), number(cols[3]))
			last = max(last, number(cols[4]))
			return true
		}, queue, after, int64(recountPage)); err != nil || last == after {
			return err
		}
		if time.Since(c.start) > c.limit {
			return fmt.Errorf("%d messages were counted in %v, and there are more", c.messages, c.limit)
		}
		if time.Since(c.logged) >= recountLogInterval {
			c.logged = time.Now()
			c.log.Info("counting how much each peer's messages take, after an upgrade", "messages", c.messages)
		}
	}
}

// add adds n messages with the same peer, column counted, and bytes of texts and body.
func (c *recounting) add(peer string, counted int64, content int, n int64) {
	c.messages += n
	if peer != "" {
		c.usage[peer] += n * countedOf(counted, contentSize(content))
	}
}

// write replaces the content of table usage.
func (c *recounting) write(w *writeConn) error {
	if err := w.exec("DELETE FROM usage"); err != nil {
		return err
	}
	for peer, bytes := range c.usage {
		if _, err := w.addUsage.number(peer, bytes); err != nil {
			return err
		}
	}
	c.log.Info("counted how much each peer's messages take, after an upgrade",
		"messages", c.messages, "peers", len(c.usage), "after", time.Since(c.start).Round(time.Millisecond))
	return w.exec("UPDATE store SET counting = " + countingVersion)
}
