package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/internal/terminal"
)

// shownMessages is the default maximum number of messages that "queue show" lists.
const shownMessages = 100

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
	more := false
	for m, err := range k.deadLetters(cmd.Context(), queues) {
		if err != nil {
			return err
		}
		if more = len(lines) == count; more {
			break
		}
		lines = append(lines, m.line())
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
	a.showAside(lines)
	return nil
}

// showAside prints messages that are set aside. The reason matters most: if a table with the whole
// reasons is wider than the terminal, they are printed below the messages.
func (a *app) showAside(lines []messageLine) {
	messages := &grid{columns: []column{
		{title: "QUEUE"}, {title: "ID", number: true}, {title: "SET ASIDE"}, {title: "TYPE"}, {title: "BYTES", number: true}, {title: "REASON"},
	}}
	width := a.width(a.stdout)
	for _, l := range lines {
		reason := orNone(l.Reason)
		if width == 0 {
			reason = shorten(reason)
		}
		messages.add(l.Queue, l.ID, formatTime(l.At), orNone(l.Type), fmt.Sprint(l.Bytes), reason)
	}
	if width == 0 || total(messages.widths()) <= width {
		a.showGrid(messages)
		return
	}
	queue := ""
	for _, l := range lines {
		if l.Queue != queue {
			queue = l.Queue
			a.print("queue %s", terminal.Line(queue))
		}
		a.print("\n%s  %s  %s  %d bytes", terminal.Line(l.ID), formatTime(l.At), terminal.Line(orNone(l.Type)), l.Bytes)
		for _, line := range wrap(terminal.Line(orNone(l.Reason)), width-len(asideIndent)) {
			a.print("%s%s", asideIndent, line)
		}
	}
}

// asideIndent is the indentation of the reason below a message.
const asideIndent = "    "

// wrap splits a text between words into lines of at most the given width. A longer word has its own
// line.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case displayWidth(line)+1+displayWidth(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
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
