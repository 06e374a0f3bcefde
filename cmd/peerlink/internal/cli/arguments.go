package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// noArgs returns an error if a command that takes no arguments was given one.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2 // letters
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			err = fmt.Errorf("%w: is it %s?", err, strings.Join(like, " or "))
		}
		return err
	}
	return fmt.Errorf("%q takes no arguments, and got %q", cmd.CommandPath(), args[0])
}

// someArgs checks the arguments of commands that take at least min and at most max arguments. Its
// errors do not name the expected arguments, because the usage line is printed after them.
func someArgs(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return fmt.Errorf("arguments are missing: %d given", len(args))
		case len(args) > max:
			return fmt.Errorf("too many arguments, from %q on", args[max])
		}
		return nil
	}
}
