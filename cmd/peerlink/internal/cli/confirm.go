package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
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
