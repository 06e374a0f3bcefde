//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// Links returns how many names (hard links) the file has, or 1 where that can not
// be known.
func Links(fs.FileInfo) int { return 1 }

func keepOwner(*os.File, string) {}
