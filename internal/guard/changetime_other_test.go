//go:build !linux

package guard

import "io/fs"

func changeTime(fs.FileInfo) int { return 0 }
