package embedded

import (
	"sync"

	"peerlink/internal/wait"
)

// notifier holds the signals of the goroutines that wait for messages, by queue.
type notifier struct {
	mu      sync.Mutex
	byQueue map[string]map[wait.Signal]*Watcher // the Watcher of the signal, or nil
}

func newNotifier() *notifier {
	return &notifier{byQueue: make(map[string]map[wait.Signal]*Watcher)}
}

// add registers a signal for the queue. If it belongs to a watcher, the watcher gets
// copies of the messages.
func (bs *notifier) add(queue string, b wait.Signal, w *Watcher) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.byQueue[queue] == nil {
		bs.byQueue[queue] = make(map[wait.Signal]*Watcher)
	}
	bs.byQueue[queue][b] = w
}

func (bs *notifier) remove(queue string, b wait.Signal) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	delete(bs.byQueue[queue], b)
	if len(bs.byQueue[queue]) == 0 {
		delete(bs.byQueue, queue)
	}
}

// notify notifies the signals of a queue.
func (bs *notifier) notify(queue string) { bs.notifyAdded(queue, 0, nil) }

// notifyAdded notifies the signals of a queue, and gives its watchers copies of the added
// messages; first is the sequence number of added[0].
func (bs *notifier) notifyAdded(queue string, first uint64, added []row) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for b, w := range bs.byQueue[queue] {
		if w != nil {
			w.offer(first, added)
		}
		b.Notify()
	}
}

// notifyAll notifies the signals of all queues.
func (bs *notifier) notifyAll() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for _, queue := range bs.byQueue {
		for b := range queue {
			b.Notify()
		}
	}
}
