package embedded

import (
	"sync"

	"peerlink/internal/wait"
)

// notifier holds the signals of the goroutines that wait for messages, by queue.
type notifier struct {
	mu      sync.Mutex
	byQueue map[string]map[wait.Signal]*Watcher // queue name → signal → the Watcher that gets copies, or nil
}

func newNotifier() *notifier {
	return &notifier{byQueue: make(map[string]map[wait.Signal]*Watcher)}
}

// add registers a signal for a queue. If w is not nil, w also gets copies of the
// messages that are stored in the queue.
func (n *notifier) add(queue string, signal wait.Signal, w *Watcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byQueue[queue] == nil {
		n.byQueue[queue] = make(map[wait.Signal]*Watcher)
	}
	n.byQueue[queue][signal] = w
}

func (n *notifier) remove(queue string, signal wait.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byQueue[queue], signal)
	if len(n.byQueue[queue]) == 0 {
		delete(n.byQueue, queue)
	}
}

// notify notifies the signals of a queue.
func (n *notifier) notify(queue string) { n.notifyAdded(queue, 0, nil) }

// notifyAdded notifies the signals of a queue, and gives its watchers copies of the added
// messages; first is the sequence number of added[0].
func (n *notifier) notifyAdded(queue string, first uint64, added []row) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for signal, w := range n.byQueue[queue] {
		if w != nil {
			w.addCopies(first, added)
		}
		signal.Notify()
	}
}

// notifyAll notifies the signals of all queues.
func (n *notifier) notifyAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, signals := range n.byQueue {
		for signal := range signals {
			signal.Notify()
		}
	}
}
