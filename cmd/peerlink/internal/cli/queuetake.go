package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
)

// maxTaken is the maximum number of messages of one "queue retry" or "queue drop".
const maxTaken = 100_000

func (a *app) queueRetryCommand() *cobra.Command {
	var f queueFlags
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "retry PEER|QUEUE ID… | --all",
		Short: "Send messages again that were set aside",
		Long: `Puts messages that were set aside back at the end of their queue. A running
service sends them at once; without one they wait for it. What still can not be
sent is set aside again.`,
		Example: "  peerlink queue retry 1234abcd 17 18\n  peerlink queue retry 1234abcd --all",
		Args:    someArgs(1, math.MaxInt),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSelected(cmd, f, args, all, asJSON, func(k *queueAdmin, c selection) error {
				if p := c.queues[0].peer; p != nil && p.Deactivated != "" {
					return fmt.Errorf("peer %s has been deactivated (%s): nothing can be sent to it any more", p.Identity.ID, p.Deactivated)
				}
				stop := a.working("Putting " + messageCount(c.count, "", "") + " back")
				n, err := c.each(cmd.Context(), k.Retry)
				stop()
				if n > 0 || err == nil {
					a.printMessage("%s back in the queue.", messageCount(n, "is", "are"))
				}
				return errors.Join(err, a.taken(n, asJSON))
			})
		},
	}
	a.queueFlags(c, &f)
	c.Flags().BoolVar(&all, "all", false, "all messages that are set aside")
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) queueDropCommand() *cobra.Command {
	var f queueFlags
	var all, yes, asJSON bool
	var save string
	c := &cobra.Command{
		Use:   "drop PEER|QUEUE ID… | --all",
		Short: "Remove messages for ever that were set aside",
		Long: `Removes messages that were set aside, after confirmation. They can not be
restored; --save keeps them in a file.`,
		Example: "  peerlink queue drop 1234abcd 17\n  peerlink queue drop 1234abcd --all --save dropped.jsonl",
		Args:    someArgs(1, math.MaxInt),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !isTerminal(a.stdin) {
				return usagef("there is no terminal to ask whether you are sure: give --yes")
			}
			return a.withSelected(cmd, f, args, all, asJSON, func(k *queueAdmin, c selection) error {
				if !yes {
					question := fmt.Sprintf("Drop %s from %s for ever?", messageCount(c.count, "", ""), c.describe())
					if err := a.confirm(cmd.Context(), question, "nothing was dropped"); err != nil {
						return err
					}
				}
				if save != "" {
					if err := c.save(cmd.Context(), k, save); err != nil {
						return fmt.Errorf("%w; nothing was dropped", err)
					}
				}
				stop := a.working("Dropping " + messageCount(c.count, "", ""))
				n, err := c.each(cmd.Context(), k.Drop)
				stop()
				if n > 0 || err == nil {
					a.printMessage("%s dropped.", messageCount(n, "was", "were"))
				}
				return errors.Join(err, a.taken(n, asJSON))
			})
		},
	}
	a.queueFlags(c, &f)
	c.Flags().BoolVar(&all, "all", false, "all messages that are set aside")
	jsonFlag(c, &asJSON)
	yesFlag(c, &yes)
	c.Flags().StringVar(&save, "save", "", "first write the messages to this new `FILE`, each with its body as one line of JSON")
	return c
}

// taken prints, if asJSON is set, how many messages a command has sent again or dropped.
func (a *app) taken(n int, asJSON bool) error {
	if !asJSON {
		return nil
	}
	return a.json(map[string]int{"messages": n})
}

// messageCount returns "1 message" followed by the verb singular, or "n messages" followed by the
// verb plural.
func messageCount(n int, singular, plural string) string {
	if n == 1 {
		return strings.TrimSpace("1 message " + singular)
	}
	return strings.TrimSpace(fmt.Sprintf("%d messages %s", n, plural))
}

// withSelected calls do with the dead letters selected by the arguments. If there are none, it
// only prints that.
func (a *app) withSelected(cmd *cobra.Command, f queueFlags, args []string, all, asJSON bool, do func(*queueAdmin, selection) error) error {
	if all == (len(args) > 1) {
		return usagef("expected the IDs of messages, or --all")
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
	stop := a.working("Looking for the messages")
	c, err := k.selectDeadLetters(cmd.Context(), queues, args[1:])
	stop()
	if err != nil {
		return err
	}
	if c.count == 0 {
		a.printMessage("No message is set aside.")
		return a.taken(0, asJSON)
	}
	if c.more {
		a.printMessage("There are more than %d messages: these are the first, run the command again for the others.", maxTaken)
	}
	return cmp.Or(do(k, c), k.Close())
}

// selection is the selected dead letters, as they were at the time of the selection: "all" does not include
// later ones.
type selection struct {
	queues []peerQueue
	ids    map[string][]string // of the messages, by queue
	count  int
	more   bool // there are more than maxTaken
}

// describe returns the names of the queues with selected messages.
func (c selection) describe() string {
	return strings.Join(slices.Sorted(maps.Keys(c.ids)), ", ")
}

// selectDeadLetters selects the dead letters with the given IDs, or all dead letters if ids is empty. It returns an error if
// one of the IDs is not found, so that nothing is done in that case.
func (k *queueAdmin) selectDeadLetters(ctx context.Context, queues []peerQueue, ids []string) (selection, error) {
	c := selection{queues: queues, ids: make(map[string][]string)}
	missing := make(map[string]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	for m, err := range k.deadLetters(ctx, queues) {
		if err != nil {
			return c, err
		}
		if _, named := missing[m.ID]; !named && len(ids) > 0 {
			continue
		}
		if c.more = c.count == maxTaken; c.more {
			break
		}
		missing[m.ID] = false
		c.ids[m.queue] = append(c.ids[m.queue], m.ID)
		c.count++
	}
	return c, notSetAsideError(slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !missing[id] }))
}

// notSetAsideError returns the error for IDs that no message set aside has, or nil if there are no
// such IDs.
func notSetAsideError(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("no message with the ID %s is set aside, nothing was done (\"peerlink queue show\" has the IDs)", strings.Join(ids, ", "))
}

// each calls do for each queue with the IDs of its selected messages, and returns the sum of the results.
func (c selection) each(ctx context.Context, do func(ctx context.Context, queue string, ids []string) (int, error)) (int, error) {
	total := 0
	for _, q := range c.queues {
		n, err := do(ctx, q.name, c.ids[q.name])
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// save writes the selected messages to a new file. Afterwards the selection contains only the written messages: others may have
// been removed by another process meanwhile.
func (c *selection) save(ctx context.Context, k *queueAdmin, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	wanted := make(map[string]map[string]bool)
	for queue, ids := range c.ids {
		wanted[queue] = make(map[string]bool)
		for _, id := range ids {
			wanted[queue][id] = true
		}
	}
	saved := make(map[string][]string)
	out := bufio.NewWriter(f)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for m, err := range k.deadLetters(ctx, c.queues) {
		if err != nil {
			return err
		}
		if !wanted[m.queue][m.ID] {
			continue
		}
		if err := lines.Encode(m.whole()); err != nil {
			return err
		}
		saved[m.queue] = append(saved[m.queue], m.ID)
	}
	c.ids = saved
	if err := cmp.Or(out.Flush(), f.Sync()); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
