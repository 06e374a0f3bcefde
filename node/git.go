package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/durable"
)

// gitIgnore is what Init writes into the .gitignore file of a node's directory: the private folder
// must not be committed with the rest of the directory.
const gitIgnore = "# The root key\nprivate/\n"

// GitIgnoresPrivate reports whether the .gitignore file in a node's directory has a line for the
// private folder.
func GitIgnoresPrivate(dir string) bool {
	data, err := readText(filepath.Join(dir, ".gitignore"))
	return err == nil && ignoresPrivate(data)
}

func ignoresPrivate(gitignore []byte) bool {
	for line := range strings.Lines(string(gitignore)) {
		if slices.Contains([]string{"private", "private/", "/private", "/private/"}, strings.TrimSpace(line)) {
			return true
		}
	}
	return false
}

// InGitWorkTree reports whether the directory, or one above it, is the top of a work tree of git.
func InGitWorkTree(dir string) bool {
	dir, err := filepath.Abs(dir)
	for err == nil {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
		dir = filepath.Dir(dir)
	}
	return false
}

// writeGitIgnore adds a line for the private folder to the .gitignore file of a new node, which
// the operator may have made before, for example as a part of an empty repository.
func (d *Dir) writeGitIgnore() error {
	data, err := readText(d.file(".gitignore"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.Create(d.file(".gitignore"), []byte(gitIgnore), 0o644)
	case err != nil || ignoresPrivate(data):
		return err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return durable.Replace(d.file(".gitignore"), append(data, gitIgnore...), 0o644)
}
