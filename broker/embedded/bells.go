package embedded

import (
	"sync"

	"peerlink/internal/bell"
)

// bells are the bells of those who wait for messages, by queue.
type bells struct {
	mu      sync.Mutex
	byQueue map[string]map[bell.Bell]*Watcher // the Watcher whose bell it is, or nil
}

func newBells() *bells {
	return &bells{byQueue: make(map[string]map[bell.Bell]*Watcher)}
}

// add lets b ring for the queue. If it is that of a watcher, the watcher gets
// copies of the messages.
func (bs *bells) add(queue string, b bell.Bell, w *Watcher) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.byQueue[queue] == nil {
		bs.byQueue[queue] = make(map[bell.Bell]*Watcher)
	}
	bs.byQueue[queue][b] = w
}

func (bs *bells) remove(queue string, b bell.Bell) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	delete(bs.byQueue[queue], b)
	if len(bs.byQueue[queue]) == 0 {
		delete(bs.byQueue, queue)
	}
}

// ring rings for a queue.
func (bs *bells) ring(queue string) { bs.announce(queue, 0, nil) }

// announce rings for a queue, and shows its watchers the messages that were
// added to it, of which the first has the given sequence number.
func (bs *bells) announce(queue string, first uint64, added []row) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for b, w := range bs.byQueue[queue] {
		if w != nil {
			w.offer(first, added)
		}
		b.Ring()
	}
}

// ringAll rings for all queues.
func (bs *bells) ringAll() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, queue := range bs.byQueue {
		for b := range queue {
			b.Ring()
		}
	}
}
