package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// environment is the key of a flag's annotation that lists the environment variables that can set
// the flag.
const environment = "environment"

// fromEnv makes a flag settable by environment variables. If the flag is not given, the first
// variable that is set and not empty determines the value. The help shows the names of the
// variables, but not their values, which may be passwords.
func fromEnv(flags *pflag.FlagSet, name string, variables ...string) {
	f := flags.Lookup(name)
	f.Usage += " (env " + strings.Join(variables, ", ") + ")"
	if f.Annotations == nil {
		f.Annotations = make(map[string][]string)
	}
	f.Annotations[environment] = variables
}

// readEnvironment sets flags that are not on the command line from their environment variables.
func readEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		variable := firstSet(f.Annotations[environment]...)
		if variable == "" || f.Changed || err != nil {
			return
		}
		value := os.Getenv(variable)
		if setErr := f.Value.Set(value); setErr != nil {
			err = usagef("%s is %q: %v", variable, value, expected(f, setErr))
		}
	})
	return err
}

// isGiven reports whether a flag is on the command line, or set by an environment variable.
func isGiven(flags *pflag.FlagSet, name string) bool {
	f := flags.Lookup(name)
	return f.Changed || firstSet(f.Annotations[environment]...) != ""
}

// firstSet returns the first of the environment variables that is set, and not
// empty.
func firstSet(variables ...string) string {
	for _, v := range variables {
		if os.Getenv(v) != "" {
			return v
		}
	}
	return ""
}

// flagError returns the error message for wrong flags of a command line.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		return fmt.Errorf("--%s is %q: %w", f.Name, invalid.GetValue(), expected(f, invalid.Unwrap()))
	}
	return err
}

// expected returns an error that describes the values that a flag accepts. It replaces err if that
// is an error of Go's parsers.
func expected(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "bool":
		return errors.New("expected true or false")
	case "int":
		return errors.New("expected a whole number")
	case "duration":
		return errors.New("expected a time like 90s, 10m or 2h")
	}
	return err
}
