package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
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
			root.DisableAutoGenTag = true // the same text gives the same pages
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "peerlink " + version, Manual: "peerlink"}, args[0])
		},
	}
}
