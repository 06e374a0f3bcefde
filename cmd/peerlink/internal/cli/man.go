package cli

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
)

// manCommand writes the man pages, from the same text as --help.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages for all commands into a folder",
		Example: `  peerlink man /usr/local/share/man/man1
  man peerlink-peer-sign`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writePages(cmd.Root(), args[0], pageDate())
		},
	}
}

// writePages writes the pages of a command and all its subcommands. It does not follow symbolic links in
// the place of pages.
func writePages(c *cobra.Command, dir, date string) error {
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePages(sub, dir, date); err != nil {
			return err
		}
	}
	return durable.ReplaceName(filepath.Join(dir, pageName(c)+".1"), []byte(manPage(c, date)), 0o644)
}

// pageName returns the name of a command's page.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// pageDate returns the date of the pages: that of the commit that the program was built from, so that the
// pages of one version are the same, or today's date if the commit is not known.
func pageDate() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return at.UTC().Format(time.DateOnly)
			}
		}
	}
	return time.Now().UTC().Format(time.DateOnly)
}
