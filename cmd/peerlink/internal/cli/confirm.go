package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/node"
)

// maxWrongAnswers is the number of wrong answers after which a command that has asked for a
// confirmation ends.
const maxWrongAnswers = 3

// yesFlag adds the flag --yes of commands that ask for a confirmation.
func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

// confirm asks on the terminal whether to do something that can not be undone. It returns an error
// unless the answer is yes; nothing, at the end of the error, describes what was not done.
func (a *app) confirm(ctx context.Context, question, nothing string) error {
	confirmed := false
	_, err := a.askAtMost(ctx, maxWrongAnswers, question+" Type yes or no", func(answer string) error {
		switch strings.ToLower(answer) {
		case "yes":
			confirmed = true
			return nil
		case "no":
			return nil
		}
		return errors.New("not confirmed: expected yes or no")
	})
	if err == nil && !confirmed {
		err = errors.New("not confirmed")
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, nothing)
	}
	return nil
}

// confirmPeer asks on the terminal whether to do something to a peer that can not be undone. typed is what
// the operator has typed for the peer with the given ID; consequence says what happens; question has a verb
// for the ID. Nothing is asked if it is not possible: then the command changes nothing, and returns the reason.
//
// Without a terminal confirmPeer asks nothing, because scripts of earlier versions give no --yes, and refuses
// the beginning of an ID, which may not be that of the peer that was meant when the script was written.
func (a *app) confirmPeer(ctx context.Context, d *node.Dir, id, typed string, possible func(*node.Peer) bool, consequence, question string) error {
	if !isTerminal(a.stdin) {
		if node.IsHex(typed) && typed != id {
			return usagef("%q is the beginning of the ID %s: without a terminal, expected the whole ID, or --yes", typed, id)
		}
		return nil
	}
	p, err := d.Peer(id)
	if err != nil || !possible(p) {
		return nil
	}
	a.printMessage("Peer %s, %s: %s", node.KnownPeer{ID: id, Name: p.Name}, p.Identity.Type, consequence)
	return a.confirm(ctx, fmt.Sprintf(question, id), "the peer is as it was")
}
