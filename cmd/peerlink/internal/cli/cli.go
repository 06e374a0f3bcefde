// Package cli is peerlink's command line: the flags, prompts and output of the commands,
// which other packages implement. There is one file for each group of commands.
//
// Exit codes: 0 for success, 1 for failure, and 2 for wrong usage (64 if the command is a
// service). The result of a command goes to standard output, all other messages to standard error.
package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peerlink/internal/excerpt"
	"peerlink/internal/logwriter"
	"peerlink/internal/terminal"
	"peerlink/node"
)

// The process's exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	// exitServiceUsage means wrong usage of a service (EX_USAGE of sysexits.h); a supervisor
	// need not restart it. It is not 2, because that is also the exit code of a Go program
	// that panics.
	exitServiceUsage = 64
)

// app is the state of one run of the program. Output to stdout and stderr is made safe for
// terminals by a [terminal.Writer]. Output that must not be changed is written to the result
// of raw.
type app struct {
	stdin  *os.File
	stdout io.Writer
	stderr io.Writer

	input *input        // standard input; nil until it is read
	lines *bufio.Reader // buffered input, for prompts

	dir            string
	keyFile        string
	passphraseFile string
	// newPassphraseFlag means that passphraseFile was given with --new-passphrase-file.
	newPassphraseFlag bool

	kustomize bool
	colour    string // the value of --color

	running    bool                // the arguments were valid and the command has started
	logs       []*logwriter.Writer // the service's asynchronous outputs
	failureLog *slog.Logger        // if not nil, failures are logged here and not printed to stderr
	exit       func(code int)      // ends the process; nil: [os.Exit]
}

// Main runs the command line and returns the process's exit code.
func Main(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	defer a.closeLogs()
	return a.run(ctx, append(commandName(os.Args[0]), args...))
}

func (a *app) run(ctx context.Context, args []string) (code int) {
	stdout, stderr := terminal.NewWriter(a.stdout), terminal.NewWriter(a.stderr)
	defer stderr.Flush()
	a.stdout, a.stderr = stdout, stderr
	root := a.root()
	defer a.reportPanic(&code)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if outErr := stdout.Flush(); err == nil && outErr != nil {
		a.running = true
		err = fmt.Errorf("the command is done, but its output could not be written: %w", outErr)
	}
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage) || !a.running:
		a.usageFailure(cmd, err)
		if isService(cmd.Name()) {
			return exitServiceUsage
		}
		return exitUsage
	case errors.Is(err, errSilent):
		return exitFailed
	default:
		a.failure("Error:", err)
		return exitFailed
	}
}

// isService reports whether a command runs until it is stopped, under a supervisor that
// restarts it.
func isService(command string) bool {
	return slices.Contains([]string{serveName, swptServer, swptClient, swptDrainer}, command)
}

// reportPanic reports a panic of the command as a failure. Otherwise Go would end the process
// with exit code 2, which means wrong usage. (It still does for panics in other goroutines.)
func (a *app) reportPanic(code *int) {
	if v := recover(); v != nil {
		a.label("Error:")
		a.printMessage("a fault in peerlink itself, please report it: %v\n\n%s", v, debug.Stack())
		*code = exitFailed
	}
}

// errSilent ends a command with exit code 1 and without a message, because the command has
// printed everything itself.
var errSilent = errors.New("failed")

// usageError is an error in the arguments or in environment variables. It has the exit code of
// wrong usage even if it is found only when the command runs.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

func (a *app) root() *cobra.Command {
	var asJSON bool
	root := &cobra.Command{
		Use:   "peerlink",
		Short: "Permanent, authenticated, encrypted links between Swaptacular nodes",
		Long: `Peerlink runs a Swaptacular node's own certificate authority, and keeps the
links to the node's peers: every message is stored by the other side, durably,
before it is removed here.

A new node takes these steps:

  peerlink init creditors-agent --server stomp.example.com:1234
  peerlink peer add THEIRS       # an info-bundle, a certificate, or a URL
  peerlink serve

In a node's directory, "peerlink" alone says where the node stands, how its
running service is, and what to do next. To see it all at work on this machine:
peerlink demo`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return a.status(cmd, asJSON) },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			// Cobra does this later, when errors are not treated as wrong usage.
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return err
			}
			if err := readEnvironment(cmd.Flags()); err != nil {
				return err
			}
			if err := a.checkColour(); err != nil {
				return err
			}
			a.running = true
			return nil
		},
	}
	root.SetVersionTemplate("peerlink {{.Version}}\n")
	jsonFlag(root, &asJSON)
	a.colourFlag(root)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVarP(&a.dir, "dir", "C", ".", "`DIR`, the node's directory")
	fromEnv(root.PersistentFlags(), "dir", "PEERLINK_DIR")
	root.AddCommand(
		a.initCommand(),
		a.bundleCommand(),
		a.serverCertCommand(),
		a.peerCommand(),
		a.keyCommand(),
		a.requestCommand(),
		a.fulfilCommand(),
		a.checkCommand(),
		a.verifyCommand(),
		a.serveCommand(),
		a.sendCommand(),
		a.tailCommand(),
		a.queueCommand(),
		a.stateCommand(),
		a.linksCommand(),
		a.dashboardCommand(),
		a.pingCommand(),
		a.doctorCommand(),
		a.logLevelCommand(),
		a.messageCommand(),
		a.demoCommand(),
		a.swptServerCommand(),
		a.swptClientCommand(),
		a.swptDrainerCommand(),
		a.configureQueueCommand(),
		a.manCommand(),
		a.versionCommand(),
	)
	a.addCompletions(root)
	return root
}

// group returns a command that only contains other commands.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, args []string) error {
		return usagef("%s needs a command: one of %s", cmd.CommandPath(), subcommands(cmd))
	}}
	c.AddCommand(sub...)
	return c
}

func subcommands(c *cobra.Command) string {
	var names []string
	for _, s := range c.Commands() {
		names = append(names, s.Name())
	}
	return strings.Join(names, ", ")
}

// open opens the node's directory given by the flags.
func (a *app) open() (*node.Dir, error) { return node.Open(a.dir) }

// openIfAny is like open, but returns nil and no error if the current directory contains neither a node nor a part of one, and
// the operator has not named another directory.
func (a *app) openIfAny(cmd *cobra.Command) (*node.Dir, error) {
	d, err := a.open()
	named := cmd.Flags().Changed("dir") || a.dir != "."
	if errors.Is(err, node.ErrNotNode) && !named && !node.HasRecords(a.dir) {
		return nil, nil
	}
	return d, err
}

// printMessage prints a message to standard error.
func (a *app) printMessage(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// print writes a line of the command's result.
func (a *app) print(format string, args ...any) {
	fmt.Fprintf(a.stdout, format+"\n", args...)
}

// maxErrorText is the maximum number of bytes of an error that are displayed or logged. An error
// with a path of 4,096 bytes fits.
const maxErrorText = 8_000

// usageFailure reports wrong usage, and prints the usage line, unless failures are logged.
func (a *app) usageFailure(cmd *cobra.Command, err error) {
	a.failure("Usage error:", err)
	if a.failureLog != nil {
		return
	}
	if !cmd.HasSubCommands() {
		fmt.Fprintf(a.stderr, "Usage: %s\n", cmd.UseLine())
	}
	fmt.Fprintf(a.stderr, "See \"%s --help\".\n", cmd.CommandPath())
}

// failure logs the error of a command to failureLog, or prints it if failureLog is nil. All printed
// lines except the first are indented, so that text in an error cannot be mistaken for another
// message of this program.
func (a *app) failure(label string, err error) {
	if a.failureLog != nil {
		a.failureLog.Error("the command has failed", "err", err)
		return
	}
	a.label(label)
	a.printMessage("%s", strings.ReplaceAll(excerpt.Limit(err.Error(), maxErrorText), "\n", "\n  "))
}

// raw returns the writer to which a.stdout or a.stderr writes, which does not escape control
// characters.
func raw(w io.Writer) io.Writer {
	if t, ok := w.(*terminal.Writer); ok {
		return t.Raw()
	}
	return w
}

// terminalOf returns the file of a terminal, which w is or writes to, or nil.
func terminalOf(w any) *os.File {
	for {
		switch to := w.(type) {
		case *terminal.Writer:
			w = to.Raw()
		case serviceOutput:
			w = to.file
		case *os.File:
			if term.IsTerminal(int(to.Fd())) {
				return to
			}
			return nil
		default:
			return nil
		}
	}
}

func isTerminal(w any) bool { return terminalOf(w) != nil }

// defaultWidth is used if the width of a terminal can not be determined.
const defaultWidth = 80

// width returns the width of the terminal to which w writes, or 0 if that is not a terminal.
func (a *app) width(w io.Writer) int {
	f := terminalOf(w)
	if f == nil {
		return 0
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	return defaultWidth
}

// warn prints a warning.
func (a *app) warn(format string, args ...any) {
	a.label("Warning:")
	a.printMessage("%s", excerpt.Limit(fmt.Sprintf(format, args...), maxErrorText))
}

// label writes the label of a message, in red if possible.
func (a *app) label(s string) {
	fmt.Fprintf(raw(a.stderr), "%s ", a.colours(a.stderr).show(styleBad, s))
}
