package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq"
	"peerlink/link"
	"peerlink/node"
)

// queueFlags are the flags for the location of a node's queues, the same as for the service.
type queueFlags struct{ broker, queuePattern, deadLetterSuffix, management, state string }

// queueFlags adds the flags for the location of the queues.
func (a *app) queueFlags(c *cobra.Command, f *queueFlags) {
	brokerFlag(c, &f.broker)
	queuePatternFlag(c, &f.queuePattern)
	deadLetterSuffixFlag(c, &f.deadLetterSuffix)
	a.stateFlag(c, &f.state)
}

// queueAdmin gives the "queue" commands access to dead letters and to the peers in whose queues
// they were.
type queueAdmin struct {
	broker.DeadLetters
	dir     *node.Dir
	pattern link.QueuePattern
	// allQueues means that the broker uses all queues of a peer, not only the first.
	allQueues bool
	Close     func() error

	// nonEmpty returns the names of all queues and inboxes with messages. It is nil if the
	// broker does not list its queues.
	nonEmpty func(context.Context) ([]string, error)
	// policyWarning returns how a queue may lose messages because of policies. It is nil if
	// policies can not be read.
	policyWarning func(ctx context.Context, queue string) (string, error)
}

// openQueueAdmin opens the broker. A service may be using it at the same time.
func (a *app) openQueueAdmin(cmd *cobra.Command, f queueFlags) (*queueAdmin, error) {
	if err := a.readNodedataURL(cmd); err != nil {
		return nil, err
	}
	d, err := a.open()
	if err != nil {
		return nil, err
	}
	// Only errors are logged; everything else is in the service's log.
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if f.broker == embeddedBroker {
		if f.queuePattern != string(link.DefaultQueuePattern) || f.deadLetterSuffix != defaultDeadLetterSuffix || f.management != "" {
			return nil, usagef("--queue-pattern, --dead-letter-suffix and --management are for RabbitMQ, and the broker is the embedded one")
		}
		path, err := existingStore(cmd.Context(), d, f.state)
		if err != nil {
			return nil, err
		}
		closing, closed := a.limitStop(cmd.Context(), maxStop, errClosesLate)
		s, err := openStore(d, path, embedded.Options{Logger: log})
		if err != nil {
			closed()
			return nil, err
		}
		close := func() error {
			defer closed()
			closing()
			return s.Close()
		}
		return &queueAdmin{DeadLetters: s, dir: d, pattern: link.DefaultQueuePattern, Close: close, nonEmpty: s.NonEmptyQueues}, nil
	}
	pattern, err := link.ParseQueuePattern(f.queuePattern)
	if err != nil {
		return nil, usagef("--queue-pattern: %v", err)
	}
	b, err := openRabbitMQ(f.broker, rabbitmq.Options{Logger: log, QueueType: rabbitmq.Classic, DeadLetterSuffix: f.deadLetterSuffix, Management: f.management})
	if err != nil {
		return nil, err
	}
	k := &queueAdmin{DeadLetters: b, dir: d, pattern: pattern, allQueues: true, Close: b.Close}
	if f.management != "" {
		k.policyWarning = b.PolicyWarning
	}
	return k, nil
}

// existingStore returns the path of the embedded broker's file. It fails if the file does not
// exist or is empty: only the service creates it, so that a mistyped --state is noticed. Without a state
// folder it is that of the running service, or the default.
func existingStore(ctx context.Context, d *node.Dir, state string) (string, error) {
	state, err := serviceState(ctx, d, state)
	if err != nil {
		return "", err
	}
	state, err = stateFolder(d, state)
	if err != nil {
		return "", err
	}
	path := storePath(state)
	switch fi, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist), err == nil && fi.Size() == 0:
		return "", fmt.Errorf("no messages were ever kept in %s: name the service's folder with --state (or, if the node uses RabbitMQ, its URL with --broker); if there was no service yet, start \"peerlink serve\" first", state)
	case err != nil:
		return "", err
	}
	return path, nil
}

// peerQueue is a queue and the peer to which its messages are sent.
type peerQueue struct {
	name   string
	peerID string     // "" if it is not known
	alias  string     // the name that the node's owner has given to the peer; "" if there is none
	peer   *node.Peer // nil if the peer is not in the node's directory, or can not be read
	err    error      // the error of reading the peer's directory
	// exchange is the exchange of messages that could not be routed to a peer, if the queue has
	// these, otherwise "".
	exchange string
	gone     bool // the queue has messages, and belongs to no peer in the node's directory
}

// queues returns the queues of all peers, and then those with messages for which there is no peer,
// if the broker lists its queues. For a peer that can not be read, it returns the first queue only.
func (k *queueAdmin) queues(ctx context.Context) ([]peerQueue, error) {
	known, err := k.dir.KnownPeers()
	if err != nil {
		return nil, err
	}
	var queues []peerQueue
	for _, one := range known {
		id := one.ID
		p, err := k.dir.Peer(id)
		count := 1
		if err == nil && k.allQueues {
			count = p.Queues
		}
		for _, name := range k.pattern.Names(id, count) {
			queues = append(queues, peerQueue{name: name, peerID: id, alias: one.Name, peer: p, err: err})
		}
	}
	if k.nonEmpty == nil {
		return queues, nil
	}
	names, err := k.nonEmpty(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		known := func(q peerQueue) bool { return q.name == name }
		switch exchange := k.exchangeOf(name); {
		case exchange != "":
			queues = append(queues, peerQueue{name: name, exchange: exchange})
		case name != k.dir.Identity().Type.Inbox() && !slices.ContainsFunc(queues, known):
			queues = append(queues, peerQueue{name: name, peerID: k.peerOf(name), gone: true})
		}
	}
	return queues, nil
}

// exchangeOf returns the exchange whose messages that could not be routed are in the queue with
// this name, or "" if the queue is another one.
func (k *queueAdmin) exchangeOf(queue string) string { return unroutableExchange(k.dir, queue) }

// unroutableExchange returns the exchange whose messages that could not be routed are in the node's queue
// with this name in the embedded broker, or "" if the queue is another one.
func unroutableExchange(d *node.Dir, queue string) string {
	for _, exchange := range d.Identity().Type.Outboxes() {
		if queue == embedded.UnroutableQueue(exchange) {
			return exchange
		}
	}
	return ""
}

// peerOf returns the ID of the peer whose first queue has this name, "" if the name does not match
// the pattern.
func (k *queueAdmin) peerOf(queue string) string {
	before, after, _ := strings.Cut(k.pattern.Name("\x00", 0), "\x00")
	id, ok := strings.CutPrefix(queue, before)
	if id, ok2 := strings.CutSuffix(id, after); ok && ok2 {
		return id
	}
	return ""
}

// find returns the queue with the given name, or the queues of the peer that an operator means by
// text; see [node.FindPeer]. It does not check that a queue exists.
func (k *queueAdmin) find(ctx context.Context, text string) ([]peerQueue, error) {
	all, err := k.queues(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(q peerQueue) bool { return q.name == text }); i >= 0 {
		return all[i : i+1], nil
	}
	id, err := node.FindPeer(peersOf(all), text)
	if errors.Is(err, node.ErrUnknownPeer) {
		// The queue may be that of a removed peer, or of a peer that had more queues, in a
		// broker that does not list its queues.
		return []peerQueue{{name: text}}, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(q peerQueue) bool { return q.peerID != id }), nil
}

// peersOf returns the peers to which queues belong, each once.
func peersOf(queues []peerQueue) (peers []node.KnownPeer) {
	for _, q := range queues {
		p := node.KnownPeer{ID: q.peerID, Name: q.alias}
		if q.peerID != "" && !slices.Contains(peers, p) {
			peers = append(peers, p)
		}
	}
	return peers
}
