package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/durable"
)

// gitIgnore is the content of the .gitignore file that Init makes: the private folder must not
// be committed with the rest of the directory.
const gitIgnore = "# The root key\nprivate/\n"

// maxGitFile is the maximum size, in bytes, of a file of git that is read.
const maxGitFile = 64 << 20

// GitState is what git does with the private folder of a node's directory.
type GitState struct {
	Tracked bool // a file in the folder is in the index
	Ignored bool // a .gitignore file, or .git/info/exclude, has a pattern for the folder or the root key
}

// ReadGitState returns the state of the private folder of the node in the given directory. ok is
// false if the directory is in no work tree of git. Files of git that can not be read count as
// missing, and negated patterns are not considered.
func ReadGitState(dir string) (state GitState, ok bool) {
	top, err := filepath.Abs(dir)
	if err != nil {
		return state, false
	}
	below := []string{"private", "root-ca.key"} // the elements of the key's path, relative to top
	for {
		state.Ignored = state.Ignored || gitIgnores(filepath.Join(top, ".gitignore"), below)
		if _, err := os.Lstat(filepath.Join(top, ".git")); err == nil {
			break
		}
		if parent := filepath.Dir(top); parent == top {
			return GitState{Ignored: state.Ignored}, false
		}
		below = slices.Insert(below, 0, filepath.Base(top))
		top = filepath.Dir(top)
	}
	gitDir := filepath.Join(top, ".git")
	// In a linked work tree and in a submodule, .git is a file with the path of that folder.
	if data, err := durable.Read(gitDir, maxFile); err == nil {
		gitDir, _ = strings.CutPrefix(strings.TrimSpace(string(data)), "gitdir: ")
		if !filepath.IsAbs(gitDir) {
			gitDir = filepath.Join(top, gitDir)
		}
	}
	state.Ignored = state.Ignored || gitIgnores(filepath.Join(gitDir, "info", "exclude"), below)
	index, _ := durable.Read(filepath.Join(gitDir, "index"), maxGitFile)
	state.Tracked = indexHas(index, path.Join(below[:len(below)-1]...)+"/")
	return state, true
}

// indexHas reports whether a file in the folder is listed in an index of git (versions 2 and 3,
// which git writes unless it is configured otherwise). The name of a file, which ends with a
// zero byte, follows a field of 16 bits with its length in the lower 12.
func indexHas(index []byte, folder string) bool {
	for at := 0; ; at++ {
		i := bytes.Index(index[at:], []byte(folder))
		if i < 0 {
			return false
		}
		at += i
		length := bytes.IndexByte(index[at:], 0)
		for _, flags := range []int{at - 2, at - 4} { // in version 3, 16 more bits may follow
			if flags >= 0 && length > 0 && int(binary.BigEndian.Uint16(index[flags:]))&0xfff == min(length, 0xfff) {
				return true
			}
		}
	}
}

// gitIgnores reports whether a file with patterns, such as .gitignore, has a pattern that matches
// a path or a folder in it. name has the elements of the path, relative to the folder to which the
// patterns apply.
func gitIgnores(file string, name []string) bool {
	data, err := readText(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		// A pattern with a slash, except at the end or in "**/" at the beginning, is a path.
		pattern, anywhere := strings.CutPrefix(strings.TrimSuffix(line, "/"), "**/")
		anchored := strings.Contains(pattern, "/") && !anywhere
		pattern = strings.TrimSuffix(strings.TrimSuffix(pattern, "/**"), "/*")
		for i := range name {
			candidate := name[i]
			if anchored {
				candidate = path.Join(name[:i+1]...)
			}
			if matched, err := path.Match(strings.TrimPrefix(pattern, "/"), candidate); matched && err == nil {
				return true
			}
		}
	}
	return false
}

// writeGitIgnore makes the .gitignore file of a new node, unless the file exists already, or the
// private folder is ignored by a pattern in a folder above.
func (d *Dir) writeGitIgnore() error {
	if state, _ := ReadGitState(d.path); state.Ignored {
		return nil
	}
	err := durable.Create(d.file(".gitignore"), []byte(gitIgnore), 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
