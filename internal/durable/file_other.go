//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// NoFollow is 0 on this system.
const NoFollow = 0

// HardLinks returns the number of hard links (names) of the file, or 1 if it is unknown.
func HardLinks(fs.FileInfo) int { return 1 }

func copyOwner(*os.File, fs.FileInfo) {}

func isOwn(fs.FileInfo) bool { return true }

func untrustedOwner(file, folder fs.FileInfo) bool { return false }
