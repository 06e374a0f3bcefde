package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/broker"
)

// shownMessages is the default maximum number of messages that "queue show" lists.
const shownMessages = 100

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
set aside, and since when the oldest of those is. RabbitMQ does not count what a
service has taken to send it, and does not record since when.

With the embedded broker, it also lists queues with messages that belong to no
peer in the node's directory (after an older directory was put back, for example):
nothing is sent from them until the peer is there again.`,
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
	Gone     bool      `json:"gone,omitempty"`    // no peer in the node's directory has the queue
	Error    string    `json:"error,omitempty"`   // the error of reading the peer's directory
	Warning  string    `json:"warning,omitempty"` // which messages may be lost, and why
}

func (a *app) listQueues(cmd *cobra.Command, k *queueAdmin, asJSON bool) error {
	queues, err := k.queues(cmd.Context())
	if err != nil {
		return err
	}
	lines := []queueLine{}
	for _, q := range queues {
		line := queueLine{Peer: q.peerID, Name: q.alias, Queue: q.name}
		switch {
		case q.gone:
			line.Gone = true
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
		line.Warning = contents.Warning
		lines = append(lines, line)
	}
	if asJSON {
		return a.json(lines)
	}
	names := []string{}
	rows := [][]string{{"PEER", "TYPE", "STATE", "QUEUE", "WAITING", "SET ASIDE", "OLDEST", ""}}
	for _, l := range lines {
		waiting, aside := "-", "-" // if "peerlink serve" has not created the queue yet
		if l.Exists {
			waiting, aside = fmt.Sprint(l.Waiting), fmt.Sprint(l.SetAside)
		}
		note := l.Error
		if l.Gone {
			note = "belongs to no peer in the node's directory: nothing is sent from it"
		}
		rows = append(rows, []string{orNone(l.Peer), orNone(l.Type), orNone(l.State), l.Queue, waiting, aside, formatTime(l.Oldest), note})
		names = append(names, l.Name)
		if l.Warning != "" {
			a.printMessage("Messages may be lost: %s.", l.Warning)
		}
	}
	a.columns(nameColumn(rows, names))
	return nil
}

// formatTime formats a time for display.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func (a *app) queueShowCommand() *cobra.Command {
	var f queueFlags
	var asJSON bool
	var count int
	c := &cobra.Command{
		Use:   "show PEER|QUEUE [ID]",
		Short: "Show the messages set aside: what, since when, and why",
		Long: `Lists the messages of a peer, or of one queue, that are set aside; with an ID,
shows the whole message. It changes nothing. (RabbitMQ can only show messages by
delivering them: for a moment other consumers do not get them. In RabbitMQ,
messages that are equal in everything have the same ID.)

Control characters are shown escaped; --json has the exact text.`,
		Example: "  peerlink queue show 1234abcd\n  peerlink queue show 1234abcd 17",
		Args:    someArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 {
				return usagef("--count %d: expected 1 or more", count)
			}
			k, err := a.openQueueAdmin(cmd, f)
			if err != nil {
				return err
			}
			defer k.Close()
			queues, err := k.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				return a.showMessage(cmd, k, queues, args[1], asJSON)
			}
			return a.showMessages(cmd, k, queues, count, asJSON)
		},
	}
	a.queueFlags(c, &f)
	c.Flags().IntVarP(&count, "count", "n", shownMessages, "show at most this number of messages")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, without the bodies if no ID is given")
	return c
}

func (a *app) showMessages(cmd *cobra.Command, k *queueAdmin, queues []peerQueue, count int, asJSON bool) error {
	lines := []messageLine{}
	rows := [][]string{{"QUEUE", "ID", "SET ASIDE", "TYPE", "BYTES", "REASON"}}
	more := false
	for m, err := range k.deadLetters(cmd.Context(), queues) {
		if err != nil {
			return err
		}
		if more = len(lines) == count; more {
			break
		}
		lines = append(lines, m.line())
		rows = append(rows, []string{m.queue, m.ID, formatTime(m.At), orNone(m.Type), fmt.Sprint(len(m.Body)), shorten(orNone(m.Reason))})
	}
	if more {
		a.printMessage("Only the first %s shown, --count shows more.", messageCount(count, "is", "are"))
	}
	if asJSON {
		return a.json(lines)
	}
	if len(lines) == 0 {
		a.printMessage("No message is set aside.")
		return nil
	}
	a.columns(rows)
	return nil
}

// showMessage shows the message with the given ID. There are several if identical messages, or messages in
// different queues, have the same ID.
func (a *app) showMessage(cmd *cobra.Command, k *queueAdmin, queues []peerQueue, id string, asJSON bool) error {
	found := false
	for m, err := range k.deadLetters(cmd.Context(), queues) {
		switch {
		case err != nil:
			return err
		case m.ID != id:
			continue
		case asJSON:
			if err := a.json(m.whole()); err != nil {
				return err
			}
		default:
			if found {
				a.print("")
			}
			a.table([][2]string{
				{"queue", m.queue},
				{"ID", m.ID},
				{"set aside", formatTime(m.At)},
				{"reason", orNone(m.Reason)},
				{"type", orNone(m.Type)},
				{"content type", orNone(m.ContentType)},
				{"bytes", fmt.Sprint(len(m.Body))},
			})
			a.print("\n%s", m.Body)
		}
		found = true
	}
	if !found {
		return notSetAsideError([]string{id})
	}
	return nil
}
