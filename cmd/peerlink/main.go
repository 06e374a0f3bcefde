// Command peerlink keeps permanent, authenticated, encrypted links between
// Swaptacular nodes. See the README.
package main

import (
	"os"

	"peerlink/cmd/peerlink/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
