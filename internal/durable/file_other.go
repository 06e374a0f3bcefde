//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// NoFollow is 0 on this system.
const NoFollow = 0

// Links returns the number of names (hard links) of the file, or 1 if it is unknown.
func Links(fs.FileInfo) int { return 1 }

func keepOwner(*os.File, fs.FileInfo) {}

func ownedByOther(file, folder fs.FileInfo) bool { return false }
