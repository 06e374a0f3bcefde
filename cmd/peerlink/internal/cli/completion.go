package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/broker/rabbitmq"
	"peerlink/internal/terminal"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// A completer returns the values that the shell offers for an argument or the value of a flag. args are
// the arguments before it. A description may follow a value after a tab.
type completer func(a *app, cmd *cobra.Command, args []string) []string

// Bounds of a completion, for which a person waits.
const (
	completionTime = time.Second
	maxCompletions = 200
)

// argumentCompleters has a completer for each argument of commands that take other arguments than files.
// Further arguments have the last one.
var argumentCompleters = map[string][]completer{
	"key split":       {nothing},
	"init":            {oneOf(typeNames()...), nothing},
	"doctor":          {peers, nothing},
	"links":           {peers, nothing},
	"log-level":       {oneOf(logLevels...), nothing},
	"ping":            {peers, nothing},
	"peer show":       {peers, nothing},
	"peer name":       {peers, nothing},
	"peer queues":     {peers, nothing},
	"peer follow":     {peers, oneOf("on", "off"), nothing},
	"peer suspend":    {peers, nothing},
	"peer resume":     {peers, nothing},
	"peer remove":     {peers, nothing},
	"peer replace":    {peers, nil},
	"peer deactivate": {peers, nothing},
	"queue show":      {peersAndQueues, asideIDs, nothing},
	"queue retry":     {peersAndQueues, asideIDs},
	"queue drop":      {peersAndQueues, asideIDs},
	"request forget":  {requests, nothing},
	"send":            {peers, nil},
}

// argumentExtensions has the extensions of the files that commands take as arguments. All other commands
// take files with any name, or no arguments.
var argumentExtensions = map[string][]string{
	"bundle create":       {"zip"},
	"bundle inspect":      {"zip"},
	"peer add":            {"zip", "crt", "pem", "cer"},
	"peer sign":           {"zip"},
	"peer register":       {"crt", "pem", "cer"},
	"server-cert sign":    {"csr", "crt", "pem"},
	"server-cert inspect": {"crt", "pem"},
	"server-cert renew":   {"key", "crt", "pem"},
	"server-cert revoke":  {"crt", "pem"},
	"verify":              {"crt", "pem", "cer"},
}

var (
	logLevels  = []string{"error", "warning", "info", "debug"}
	keyTypes   = []string{"p256", "p384", "rsa3072", "rsa4096"}
	logFormats = []string{"text", "json"}
)

// flagCompleters has the completers for the values of flags, which mean the same in all commands.
var flagCompleters = map[string]completer{
	"color":              oneOf(colourModes...),
	"log-level":          oneOf(logLevels...),
	"log-format":         oneOf(logFormats...),
	"broker":             oneOf(embeddedBroker, "amqp://", "amqps://"),
	"queue-type":         oneOf(string(rabbitmq.Classic), string(rabbitmq.Quorum)),
	"key-type":           oneOf(keyTypes...),
	"direction":          oneOf("in", "out"),
	"type":               oneOf(smp.Types()...),
	"content-type":       oneOf(smp.ContentType),
	"subnet":             oneOf("keep", "new"),
	"purpose":            oneOf("any", "client", "server"),
	"local-listen":       oneOf("127.0.0.1:61613", "none"),
	"publish":            oneOf("none"),
	"admin":              oneOf("127.0.0.1:1235", "unix:", noAdmin),
	"dead-letter-suffix": oneOf(defaultDeadLetterSuffix),
}

// folderFlags are the flags whose values are folders.
var folderFlags = []string{"dir", "state", "keep"}

// typeNames returns the names of the types of nodes.
func typeNames() []string {
	return []string{
		nodetype.AccountingAuthority.String(), nodetype.CreditorsAgent.String(), nodetype.DebtorsAgent.String(),
	}
}

// addCompletions sets what shells offer for the arguments and flags of all commands.
func (a *app) addCompletions(c *cobra.Command) {
	for _, sub := range c.Commands() {
		a.addCompletions(sub)
	}
	_, name, _ := strings.Cut(c.CommandPath(), " ")
	if list := argumentCompleters[name]; list != nil {
		c.ValidArgs, c.ValidArgsFunction = nil, a.completeArguments(list)
	} else if extensions := argumentExtensions[name]; extensions != nil {
		c.ValidArgsFunction = cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
	} else if !strings.Contains(c.Use, " ") && !c.HasSubCommands() {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	a.addFlagCompletions(c)
}

func (a *app) addFlagCompletions(c *cobra.Command) {
	for flag, complete := range flagCompleters {
		if f := c.Flag(flag); f != nil && f.Value.Type() != "bool" {
			// It fails only if it was registered before, for a flag of all commands.
			_ = c.RegisterFlagCompletionFunc(flag, a.completeFlag(complete))
		}
	}
	if c.Name() == "check" && c.Flag("peer") != nil {
		cobra.CheckErr(c.RegisterFlagCompletionFunc("peer", a.completeFlag(peers)))
	}
	for _, flag := range folderFlags {
		if c.Flags().Lookup(flag) != nil {
			cobra.CheckErr(c.MarkFlagDirname(flag))
		}
	}
}

func (a *app) completeFlag(complete completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return a.complete(complete, cmd, nil, toComplete)
	}
}

func (a *app) completeArguments(list []completer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		complete := list[min(len(args), len(list)-1)]
		if complete == nil {
			return nil, cobra.ShellCompDirectiveDefault // a file
		}
		return a.complete(complete, cmd, args, toComplete)
	}
}

// complete returns the values that begin with toComplete. If they are not known in time, or can not be
// found out, there are none: a shell has no place for errors.
func (a *app) complete(complete completer, cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	directive := cobra.ShellCompDirectiveNoFileComp
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	cmd.SetContext(ctx)
	values, err := interruptible(ctx, func() ([]string, error) {
		if err := readEnvironment(cmd.Flags()); err != nil {
			return nil, err
		}
		return complete(a, cmd, args), nil
	})
	var fitting []string
	for _, v := range values {
		value, _, _ := strings.Cut(v, "\t")
		if err != nil || !hasPrefixFold(value, toComplete) || terminal.Line(value) != value || len(fitting) == maxCompletions {
			continue
		}
		fitting = append(fitting, v)
		if strings.HasSuffix(value, ":") || strings.HasSuffix(value, "/") {
			directive |= cobra.ShellCompDirectiveNoSpace // the beginning of a URL or an address
		}
	}
	return fitting, directive
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// oneOf returns a completer for fixed values.
func oneOf(values ...string) completer {
	return func(*app, *cobra.Command, []string) []string { return values }
}

// nothing is the completer for arguments with no values to be offered.
func nothing(*app, *cobra.Command, []string) []string { return nil }
