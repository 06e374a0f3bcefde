package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/terminal"
	"peerlink/link"
	"peerlink/node"
)

// exportStep is the maximum number of messages that are published to RabbitMQ, and then removed from the
// embedded broker, at once. An interruption can duplicate as many.
const exportStep = 256

// exportResult is the output of "state export".
type exportResult struct {
	Messages int         `json:"messages"`  // messages moved
	SetAside int         `json:"set_aside"` // dead letters moved
	Left     []leftQueue `json:"left"`
}

// leftQueue is a queue with messages that stay in the embedded broker.
type leftQueue struct {
	Queue    string `json:"queue"`
	Messages int64  `json:"messages"`
	SetAside int64  `json:"set_aside"`
	Reason   string `json:"reason"`
}

func (a *app) stateExportCommand() *cobra.Command {
	var f queueFlags
	var queueType string
	var asJSON bool
	c := &cobra.Command{
		Use:   "export",
		Short: "Move the messages of the embedded broker to RabbitMQ",
		Long: `Moves what the embedded broker keeps to RabbitMQ: what waits for each peer to the
peer's first queue, in order, what is set aside to its dead-letter queue, and what
was received to the exchange of the node's inbox, where an application must have
bound a queue. What is missing in RabbitMQ for the peers is made, as "serve" makes
it. No service may be running with the embedded broker.

Each message is removed here after RabbitMQ has confirmed it. If the command is
interrupted, at any time, run it again: no message is lost, and at most the last
256 are in RabbitMQ twice.

What has no place in RabbitMQ stays, and the exit code is 1: messages for which there
is no peer, and those for a peer that was deactivated or removed.`,
		Example: "  peerlink -C my-node state export --broker amqp://user:password@localhost",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.broker == embeddedBroker {
				return usagef("--broker is the embedded broker, from which the messages are moved: expected the URL of RabbitMQ, with --broker or in the environment")
			}
			x, err := a.openExport(cmd.Context(), f, queueType)
			if err != nil {
				return err
			}
			defer x.close()
			err = x.run(cmd.Context())
			return errors.Join(err, a.showExported(x.result, asJSON))
		},
	}
	a.queueFlags(c, &f)
	queueTypeFlag(c, &queueType)
	jsonFlag(c, &asJSON)
	return c
}

// export moves messages from the embedded broker to RabbitMQ.
type export struct {
	app     *app
	dir     *node.Dir
	pattern link.QueuePattern
	from    *embedded.Store
	to      *rabbitmq.Broker
	unlock  func() // unlocks the state folder; nil before it is locked
	result  exportResult

	progress    *progress
	done, total int // messages and dead letters published so far, and all that are to be moved
}

// openExport opens both brokers, and locks the state folder.
func (a *app) openExport(ctx context.Context, f queueFlags, queueType string) (_ *export, err error) {
	x := &export{app: a, result: exportResult{Left: []leftQueue{}}}
	defer func() {
		if err != nil {
			x.close()
		}
	}()
	if x.pattern, err = link.ParseQueuePattern(f.queuePattern); err != nil {
		return nil, usagef("--queue-pattern: %v", err)
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	if x.to, err = openRabbitMQ(f.broker, rabbitmq.Options{Logger: log, QueueType: rabbitmq.QueueType(queueType), DeadLetterSuffix: f.deadLetterSuffix}); err != nil {
		return nil, err
	}
	if x.dir, err = a.open(); err != nil {
		return nil, err
	}
	path, err := existingStore(ctx, x.dir, f.state)
	if err != nil {
		return nil, err
	}
	if x.unlock, err = lockState(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%w: stop it first", err)
	}
	x.from, err = openStore(x.dir, path, embedded.Options{Logger: log})
	return x, err
}

func (x *export) close() {
	if x.to != nil {
		x.to.Close()
	}
	if x.from != nil {
		x.from.Close()
	}
	if x.unlock != nil {
		x.unlock()
	}
}

// run moves the messages of all queues, and then those of the inbox. It records queues that it does not move in
// x.result.Left.
func (x *export) run(ctx context.Context) error {
	peers, err := x.peers()
	if err != nil {
		return err
	}
	queues, err := x.selectQueues(ctx, peers)
	if err != nil {
		return err
	}
	if len(queues) > 0 {
		if err := recordQueuePattern(ctx, x.dir, x.pattern); err != nil {
			return fmt.Errorf("record the queue pattern in the node's directory, so that the service finds the queues: %w", err)
		}
	}
	x.progress = x.app.startProgress("Moving the messages")
	defer x.progress.stop()
	hasInbox := false
	for _, q := range queues {
		id, ofPeer := peers[q.Name]
		if !ofPeer {
			hasInbox = true
			continue
		}
		if err := x.movePeer(ctx, q, id); err != nil {
			return err
		}
	}
	if !hasInbox {
		return nil
	}
	return x.moveInbox(ctx, x.inbox())
}

// selectQueues returns the queues to move, those of peers and the inbox, and adds their messages to x.total. It
// records the other ones that have messages in x.result.Left.
func (x *export) selectQueues(ctx context.Context, peers map[string]string) (queues []embedded.QueueStats, err error) {
	stats, err := x.from.Stats(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range stats.Queues {
		if q.Depth+q.SetAside == 0 {
			continue
		}
		if reason := x.reasonToLeave(q, peers); reason != "" {
			x.result.Left = append(x.result.Left, leftQueue{q.Name, q.Depth, q.SetAside, reason})
			continue
		}
		queues = append(queues, q)
		x.total += int(q.Depth + q.SetAside)
	}
	return queues, nil
}

// reasonToLeave returns why the messages of a queue can not be moved, or "" if they can: the queue is then that of
// a peer, or the inbox.
func (x *export) reasonToLeave(q embedded.QueueStats, peers map[string]string) string {
	id, ofPeer := peers[q.Name]
	switch {
	case ofPeer:
		return x.reasonToStay(id)
	case q.Name == x.inbox() && q.SetAside == 0:
		return ""
	case unroutableExchange(x.dir, q.Name) != "":
		return "there was no peer for these messages; \"peerlink queue retry\" routes them again, \"queue drop\" removes them"
	}
	return "it belongs to no peer in the node's directory"
}

// inbox returns the name of the queue with the messages that were received from peers.
func (x *export) inbox() string { return x.dir.Identity().Type.Inbox() }

// peers returns the IDs of the peers, by the names of their queues in the embedded broker.
func (x *export) peers() (map[string]string, error) {
	known, err := x.dir.KnownPeers()
	if err != nil {
		return nil, err
	}
	peers := make(map[string]string)
	for _, p := range known {
		peers[link.DefaultQueuePattern.Name(p.ID, 0)] = p.ID
	}
	return peers, nil
}

// reasonToStay returns why the messages for a peer can not be moved, or "" if they can.
func (x *export) reasonToStay(id string) string {
	p, err := x.dir.Peer(id)
	switch {
	case err != nil:
		return err.Error()
	case p.Deactivated != "":
		return "the peer has been deactivated: \"peerlink serve\" with the embedded broker answers the waiting messages in the peer's name, and \"queue drop\" removes those set aside"
	case p.SubCA == nil:
		return "the peer is not registered yet"
	}
	return ""
}

// movePeer moves the messages for a peer.
func (x *export) movePeer(ctx context.Context, q embedded.QueueStats, id string) error {
	p, err := x.dir.Peer(id)
	if err != nil {
		return err
	}
	view, err := link.View(x.dir, p)
	if err != nil {
		return err
	}
	binding, err := link.BindingOf(x.dir, p, view, x.pattern)
	if err != nil {
		return err
	}
	if err := x.to.Bind(ctx, binding); err != nil {
		return err
	}
	queue := binding.Queues[0]
	if info, err := x.to.Info(ctx, queue); err != nil {
		return err
	} else if info.Warning != "" {
		x.app.warn("%s", terminal.Line(info.Warning))
	}
	to := x.to.Import(queue)
	defer to.Close()
	n, err := x.from.Move(ctx, q.Name, exportStep, func(ctx context.Context, messages []embedded.Message) error {
		var all []rabbitmq.Imported
		for _, m := range messages {
			i := rabbitmq.Imported{Outgoing: broker.Outgoing{Type: m.Type, ContentType: m.ContentType, Body: m.Body}}
			if m.RoutingKey != "" || binding.Fanout {
				i.Exchange, i.RoutingKey = binding.Exchange, m.RoutingKey
			}
			all = append(all, i)
		}
		return x.countMoved(len(all), to.Put(ctx, all))
	})
	x.result.Messages += n
	if err != nil {
		return err
	}
	n, err = x.from.MoveDeadLetters(ctx, q.Name, exportStep, func(ctx context.Context, messages []broker.DeadLetter) error {
		return x.countMoved(len(messages), to.PutDeadLetters(ctx, messages))
	})
	x.result.SetAside += n
	return err
}

// moveInbox moves the messages that were received from peers.
func (x *export) moveInbox(ctx context.Context, inbox string) error {
	n, err := x.from.Move(ctx, inbox, exportStep, func(ctx context.Context, messages []embedded.Message) error {
		return x.countMoved(len(messages), publishReceived(ctx, x.to, inbox, messages))
	})
	x.result.Messages += n
	if errors.Is(err, broker.ErrUnroutable) {
		err = fmt.Errorf("%w: %s; then run this command again", err, broker.UnroutableRemedy)
	}
	return err
}

// countMoved adds n to the progress that is shown if err, the result of publishing n messages to RabbitMQ, is nil.
// It returns err.
func (x *export) countMoved(n int, err error) error {
	if err == nil {
		x.done += n
		x.progress.set(x.done, x.total)
	}
	return err
}

// publishReceived publishes messages to the inbox of the broker to, and returns when they are durable.
func publishReceived(ctx context.Context, to broker.Broker, inbox string, messages []embedded.Message) error {
	ended := make(chan error, 2) // has room for the last confirmation and for the end of the stream
	p, err := to.Publish(ctx, func(n uint64, err error) {
		if err != nil || n == uint64(len(messages)) {
			ended <- err
		}
	})
	if err != nil {
		return err
	}
	defer p.Close()
	for _, m := range messages {
		incoming := m.Incoming(inbox)
		if err := p.Publish(ctx, &incoming); err != nil {
			return err
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// showExported prints what was moved. It returns an error if messages stay in the embedded broker.
func (a *app) showExported(r exportResult, asJSON bool) error {
	line := fmt.Sprintf("%s in RabbitMQ now, and %d set aside there.", messageCount(r.Messages, "is", "are"), r.SetAside)
	if err := a.result(asJSON, r, line); err != nil {
		return err
	}
	var left []error
	for _, q := range r.Left {
		left = append(left, fmt.Errorf("%d waiting and %d set aside stay in queue %s of the embedded broker: %s", q.Messages, q.SetAside, q.Queue, q.Reason))
	}
	return errors.Join(left...)
}
