package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

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
			root := cmd.Root()
			root.DisableAutoGenTag = true // omits the date, so that the pages are reproducible
			return writePages(root, args[0])
		},
	}
}

// writePages writes the pages of a command and all its subcommands. It does not use doc.GenManTree,
// which follows symbolic links when it writes.
func writePages(c *cobra.Command, dir string) error {
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writePages(sub, dir); err != nil {
			return err
		}
	}
	var page bytes.Buffer
	if err := doc.GenMan(c, &doc.GenManHeader{Section: "1", Source: "peerlink " + version, Manual: "peerlink"}, &page); err != nil {
		return err
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	return durable.ReplaceName(filepath.Join(dir, name), page.Bytes(), 0o644)
}
