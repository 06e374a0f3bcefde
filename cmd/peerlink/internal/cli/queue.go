package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/broker"
	"peerlink/internal/terminal"
	"peerlink/link"
	"peerlink/node"
)

func (a *app) queueCommand() *cobra.Command {
	c := group("queue", "See which messages could not be sent and why, send them again, or drop them",
		a.queueListCommand(), a.queueShowCommand(), a.queueRetryCommand(), a.queueDropCommand())
	c.Long = `A message that can not be sent does not delay other messages: it is set aside, with
the reason, until an operator decides what to do with it. These commands are for
that decision. They work on the same broker as "peerlink serve" (give them the same
--broker, --queue-pattern and --state), whether or not a service is running.

  peerlink queue list                 # are messages set aside?
  peerlink queue show 1234abcd        # which messages, since when, and why
  peerlink queue retry 1234abcd --all # when the reason has been removed

See docs/queues.md.`
	return c
}

func (a *app) queueListCommand() *cobra.Command {
	var f queueFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Count the messages that wait for each peer, and those set aside",
		Long: `Lists the queues of all peers: how many messages wait to be sent, how many are
set aside, since when the oldest of the latter is, and since when the oldest that
waits has waited (on a terminal, how long ago that is). RabbitMQ does not count
what a service has taken to send it, and does not record since when. Messages that
a service on this machine can not even set aside are listed beside the table.
Limits of a queue in RabbitMQ that drop messages are listed there, too; those that
a policy sets only with --management.

With the embedded broker, it also lists queues with messages that belong to no
peer in the node's directory (after an older directory was put back, for example):
nothing is sent from them until the peer is there again. What applications have
sent for which there was no peer is in queues like creditors_out.unroutable.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := a.openQueueAdmin(cmd, f)
			if err != nil {
				return err
			}
			defer k.Close()
			return a.listQueues(cmd, k, asJSON)
		},
	}
	a.queueFlags(c, &f)
	managementFlag(c, &f.management)
	jsonFlag(c, &asJSON)
	return c
}

// queueLine is a queue in the output of "queue list".
type queueLine struct {
	Peer     string    `json:"peer"`
	Name     string    `json:"name,omitempty"` // of the peer, given by the node's owner
	Type     string    `json:"type,omitempty"`
	State    string    `json:"state,omitempty"`
	Queue    string    `json:"queue"`
	Exists   bool      `json:"exists"`
	Waiting  int       `json:"waiting"`
	SetAside int       `json:"set_aside"`
	Oldest   time.Time `json:"oldest_set_aside,omitzero"`
	// OldestWaiting is the arrival of the oldest message that waits. RabbitMQ does not record it.
	OldestWaiting time.Time `json:"oldest_waiting,omitzero"`
	Unroutable    bool      `json:"unroutable,omitempty"` // of messages for which there was no peer
	Gone          bool      `json:"gone,omitempty"`       // no peer in the node's directory has the queue
	Error         string    `json:"error,omitempty"`      // the error of reading the peer's directory
	Warning       string    `json:"warning,omitempty"`    // which messages may be lost, and why
	// Held are the messages that the running service can neither send nor set aside. RabbitMQ does not
	// count them among those that wait.
	Held *link.Held `json:"held,omitempty"`
}

func (a *app) listQueues(cmd *cobra.Command, k *queueAdmin, asJSON bool) error {
	queues, err := k.queues(cmd.Context())
	if err != nil {
		return err
	}
	held := heldMessages(cmd.Context(), k.dir)
	lines := []queueLine{}
	var policyErr error // why policies are unknown
	for _, q := range queues {
		line := queueLine{Peer: q.peerID, Name: q.alias, Queue: q.name}
		switch {
		case q.gone:
			line.Gone = true
		case q.exchange != "":
			line.Unroutable = true
		case q.err != nil:
			line.Error = q.err.Error()
		default:
			line.Type, line.State = q.peer.Identity.Type.String(), q.peer.State()
		}
		contents, err := k.Info(cmd.Context(), q.name)
		if err != nil && !errors.Is(err, broker.ErrNoQueue) {
			return err
		}
		line.Exists = err == nil
		line.Waiting, line.SetAside, line.Oldest = contents.Waiting, contents.DeadLetters, contents.Oldest.UTC()
		line.OldestWaiting = contents.OldestWaiting.UTC()
		line.Warning = contents.Warning
		if line.Exists && k.policyWarning != nil && policyErr == nil {
			var text string
			text, policyErr = k.policyWarning(cmd.Context(), q.name)
			line.Warning = joinWarnings(line.Warning, text)
		}
		line.Held = held[q.name]
		lines = append(lines, line)
	}
	if asJSON {
		err = a.json(lines)
	} else {
		a.showQueues(lines)
	}
	if policyErr != nil {
		err = cmp.Or(err, fmt.Errorf("policies of queues, by which messages may be lost, are unknown: %w", policyErr))
	}
	return err
}

// heldMessages returns, by queue, the messages that the services which run for the node's directory can
// neither send nor set aside. A service that does not answer is ignored: the list is also for when none
// runs.
func heldMessages(ctx context.Context, d *node.Dir) map[string]*link.Held {
	held := make(map[string]*link.Held)
	for _, r := range runningServices(ctx, d) {
		l, err := linksAt(ctx, r.Admin)
		if err != nil {
			continue
		}
		for _, p := range l.Peers {
			for _, h := range p.Held {
				held[h.Queue] = &h
			}
		}
	}
	return held
}

// showQueues prints a table of queues. On a terminal the times are ages, which are shorter.
func (a *app) showQueues(lines []queueLine) {
	now, onTerminal := time.Now(), isTerminal(a.stdout)
	when := func(t time.Time) string {
		if t.IsZero() || !onTerminal {
			return formatTime(t)
		}
		return admin.Age(now.Sub(t))
	}
	queues := &grid{columns: []column{
		{title: "PEER"}, nameColumn, {title: "TYPE", drop: 4}, {title: "STATE", drop: 2}, {title: "QUEUE", drop: 3},
		{title: "WAITING", number: true}, {title: "SET ASIDE", number: true}, {title: "OLDEST ASIDE"}, {title: "OLDEST WAITING", drop: 1},
		{optional: true, cut: 40},
	}}
	for _, l := range lines {
		waiting, aside := "-", "-" // if "peerlink serve" has not created the queue yet
		if l.Exists {
			waiting, aside = fmt.Sprint(l.Waiting), fmt.Sprint(l.SetAside)
		}
		note := l.Error
		switch {
		case l.Unroutable:
			note = "messages for which there was no peer; \"queue retry\" routes them again"
		case l.Gone:
			note = "belongs to no peer in the node's directory: nothing is sent from it"
		case l.Held != nil:
			note = fmt.Sprintf("and %d that can not be set aside", l.Held.Messages)
		}
		queues.add(orNone(l.Peer), l.Name, orNone(l.Type), orNone(l.State), l.Queue, waiting, aside, when(l.Oldest), when(l.OldestWaiting), note)
		if l.Held != nil {
			a.printMessage("Messages are held: %s.", terminal.Line(l.Held.String()))
		}
		if l.Warning != "" {
			a.printMessage("Messages may be lost: %s.", l.Warning)
		}
	}
	a.showGrid(queues)
}

// joinWarnings joins two warnings, each of which may be empty.
func joinWarnings(one, other string) string {
	if one == "" || other == "" {
		return one + other
	}
	return one + "; " + other
}

// formatTime formats a time for display.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
