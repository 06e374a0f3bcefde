package guard

import (
	"io/fs"
	"syscall"
)

func changeTime(fi fs.FileInfo) syscall.Timespec { return fi.Sys().(*syscall.Stat_t).Ctim }
