package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
	"peerlink/internal/terminal"
	"peerlink/node"
	"peerlink/node/offline"
	"peerlink/node/signrecord"
)

func (a *app) fulfilCommand() *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "fulfil REQUEST ANSWER",
		Short: "On the offline machine: sign everything in a request, after a summary",
		Long: `Checks a request, shows everything that it asks to be signed, and signs it with
the root key once you agree. The answer goes back to the online machine. Only the
root key is needed here (--key); if there is a copy of the node's directory too
(-C), the request is compared with it, and you see what differs from what was last
signed here.`,
		Example: "  peerlink fulfil --key root-ca.key /media/stick/request.json /media/stick/answer.json",
		Args:    someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readText(cmd.Context(), args[0], offline.MaxSize)
			if err != nil {
				return err
			}
			r, err := offline.ReadRequest(data, time.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := checkCreatable(args[1]); err != nil {
				return err
			}
			known, err := a.compareKnown(cmd, r)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				if err := a.json(known.items(r)); err != nil {
					return err
				}
			}
			a.showUnsigned(r, known)
			if !yes {
				answer, err := a.confirmUnseen(cmd.Context(), "\nSign all of this? Type yes, which is not shown (or start again with --yes): ")
				if err != nil {
					return err
				}
				if answer != "yes" {
					return errors.New("not confirmed: nothing was signed")
				}
			}
			key, err := a.rootKey(cmd.Context())
			if err != nil {
				return err
			}
			answer, err := offline.Fulfil(r, key, time.Now())
			if err != nil {
				return err
			}
			if d := known.dir; d != nil {
				// Recorded before the answer exists, so that everything that leaves this machine is
				// on record here.
				if err := r.RecordSigned(cmd.Context(), d, time.Now()); err != nil {
					return fmt.Errorf("nothing was written, because what was signed could not be recorded in the copy of the node's directory: %w", err)
				}
			}
			if err := durable.Create(args[1], answer.Encode(), 0o644); err != nil {
				return err
			}
			a.printMessage("Signed. Take %s back to the online machine: \"peerlink request file\".", args[1])
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "sign without asking")
	c.Flags().BoolVar(&asJSON, "json", false, "print the summary as JSON too")
	return a.keyFlags(c)
}

// showUnsigned prints everything that is going to be signed, and what it was compared with.
func (a *app) showUnsigned(r *offline.Request, k comparison) {
	a.printMessage("Request %.8s of %s, made %s:", r.ID, r.Node, r.Created.Local().Format("2006-01-02 15:04"))
	for i, item := range r.Summary() {
		a.printMessage("  %d. %s", i+1, terminal.Line(item.String()))
		for _, row := range item.Details(time.Now()) {
			a.printMessage("       %-22s  %s", terminal.Line(row[0]), orNone(terminal.Line(row[1])))
		}
	}
	if k.dir == nil {
		a.printMessage("\nThere is no copy of the node's directory here with which this could be compared (-C DIR).")
		return
	}
	if k.withoutRecord || k.since != "" {
		a.printMessage("")
	}
	if k.withoutRecord {
		a.printMessage("There is no record here of certificates that were signed before (%s): the new ones are\ncompared only with the copy of the node's directory. If you have signed here before, find out where the record is.",
			node.RequestsFolder+"/"+signrecord.Name)
	}
	for _, peer := range k.replaced {
		a.showReplaced(peer)
	}
	a.showChanges(k.since, k.changes)
}

// showReplaced prints what a replacement changes, compared with what is known here of the peer.
func (a *app) showReplaced(c offline.ReplacementComparison) {
	if len(c.Compared) == 0 {
		a.printMessage("\nNothing is known here of %s, which is to be replaced, so that its earlier root key could not be compared.", c.Peer)
	}
	for _, known := range c.Compared {
		a.printMessage("\nThe node in the place of %s differs from %s:", c.Peer, known.Since)
		for _, change := range known.Changes {
			a.printMessage("  - %s", terminal.Line(change.String()))
		}
		if len(known.Changes) == 0 {
			a.printMessage("  - in nothing: it has taken that place before")
		}
	}
}

// confirmUnseen asks a question on the terminal without echo, because an operator who expects the
// passphrase prompt may type the passphrase.
func (a *app) confirmUnseen(ctx context.Context, question string) (string, error) {
	if !isTerminal(a.stdin) {
		return "", usagef("missing: %s", strings.TrimSpace(question))
	}
	line, err := a.askSecret(ctx, question)
	defer clear(line)
	return string(bytes.TrimSpace(line)), err
}

// comparison is what a request was compared with on this machine.
type comparison struct {
	dir           *node.Dir        // the copy of the node's directory; nil if there is none
	withoutRecord bool             // certificates are requested, and dir has no record of earlier ones
	since         string           // describes the state with which the info-bundle was compared; "" if there is none
	changes       []offline.Change // of the info-bundle, compared with that state
	replaced      []offline.ReplacementComparison
}

// items returns the items of the request, with what they were compared with. A change from several known
// states is listed once.
func (k comparison) items(r *offline.Request) []offline.Item {
	items, replaced := r.Summary(), k.replaced
	for i := range items {
		item := &items[i]
		switch {
		case item.Kind == offline.KindInfoBundle && k.since != "":
			item.ComparedWith, item.Changes = []string{k.since}, k.changes
		case item.Kind == offline.KindReplacement && len(replaced) > 0:
			for _, known := range replaced[0].Compared {
				item.ComparedWith = append(item.ComparedWith, known.Since)
				for _, change := range known.Changes {
					if !slices.Contains(item.Changes, change) {
						item.Changes = append(item.Changes, change)
					}
				}
			}
			replaced = replaced[1:]
		}
	}
	return items
}

// compareKnown compares a request with this machine's copy of the node's directory. It returns an
// error if the copy is damaged, or is missing although the operator has named it.
func (a *app) compareKnown(cmd *cobra.Command, r *offline.Request) (k comparison, err error) {
	k.dir, err = a.openIfAny(cmd)
	if k.dir == nil && err == nil {
		return comparison{}, nil
	}
	if errors.Is(err, node.ErrNotNode) {
		return comparison{}, fmt.Errorf("nothing is signed, because the request can not be compared with the copy of the node's directory: %w", err)
	}
	if err == nil {
		err = r.CheckConflicts(cmd.Context(), k.dir)
	}
	if err == nil {
		k.withoutRecord, err = r.ComparesWithoutRecord(k.dir)
	}
	if err == nil {
		k.since, k.changes, err = r.Changes(k.dir, time.Now())
	}
	if err == nil {
		k.replaced, err = r.CompareReplacements(k.dir)
	}
	return k, err
}
