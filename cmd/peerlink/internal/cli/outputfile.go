package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"peerlink/internal/durable"
)

// checkCreatable checks that output files do not exist, and that files can be created in their folders. Commands call it
// before they prompt for a passphrase or change anything.
func checkCreatable(paths ...string) error {
	for _, p := range paths {
		if err := durable.CheckCreatable(p); err != nil {
			return err
		}
	}
	return checkDistinct(paths...)
}

// checkDistinct checks that the names of output files differ in more than the case of letters,
// which many media ignore.
func checkDistinct(paths ...string) error {
	seen := make(map[string]string)
	for _, p := range paths {
		folder, err := filepath.EvalSymlinks(filepath.Dir(p))
		if err != nil {
			folder = filepath.Dir(p) // it does not exist yet, or cannot be read
		}
		name := filepath.Join(folder, strings.ToLower(filepath.Base(p)))
		if other, ok := seen[name]; ok {
			return usagef("%s and %s are named for two output files: expected two names that differ in more than the case of letters", other, p)
		}
		seen[name] = p
	}
	return nil
}

// output is a new file that a command writes.
type output struct {
	path string
	data []byte
	mode fs.FileMode
}

// outputs are new files whose content is written, but which have no names yet. create gives them their names.
type outputs []preparedOutput

type preparedOutput struct {
	path string
	file *durable.Prepared
}

// prepare writes the content of all files, or of none.
func prepare(files ...output) (prepared outputs, err error) {
	for _, f := range files {
		p, err := durable.Prepare(f.path, f.data, f.mode)
		if err != nil {
			prepared.discard()
			return nil, err
		}
		prepared = append(prepared, preparedOutput{f.path, p})
	}
	return prepared, nil
}

// create gives all files their names, or none.
func (o outputs) create() error {
	for i, p := range o {
		err := p.file.Create()
		if err == nil {
			continue
		}
		named := o[:i]
		if errors.Is(err, durable.ErrUnsynced) {
			named = o[:i+1]
		}
		for _, done := range named {
			err = errors.Join(err, os.Remove(done.path))
		}
		o.discard()
		return err
	}
	return nil
}

// discard removes the content of files that have no name yet.
func (o outputs) discard() {
	for _, p := range o {
		p.file.Discard()
	}
}
