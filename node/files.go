package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"peerlink/internal/durable"
	"peerlink/internal/textfile"
)

// maxFile bounds every file that is read from the node's directory. The
// largest that belongs there is a certificate with a human-readable dump.
const maxFile = 1 << 20

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) { return durable.Read(path, maxFile) }

// readText reads a text file of at most maxFile bytes, in UTF-8 or with a byte
// order mark.
func readText(path string) ([]byte, error) { return textfile.Read(path, maxFile) }

// readLine reads a file that holds one line, with or without its line end.
func readLine(path string) (string, error) {
	data, err := readText(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line", path)
	}
	return s, nil
}

// filesIn returns the paths of the files and folders in dir whose names fit, sorted;
// none if there is no dir. Unlike filepath.Glob it takes dir as it is: the path of a
// node may contain "*", "?" or "[".
func filesIn(dir string, fits func(name string) bool) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var paths []string
	for _, e := range entries {
		if fits(e.Name()) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// exists reports whether path exists. Any doubt, such as a directory that may
// not be searched, is an error: "absent" has consequences here.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// lock keeps other peerlink commands off the directory until the returned
// function is called. The reference scripts lock only their counter files;
// what they share with us is made safe by exclusive creation instead.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	return durable.Lock(ctx, d.file("db"))
}

// ReplaceKeyFile puts a newly encrypted root key in the place of an old one.
// The new file is read back, and has to pass check, before the old one goes.
func ReplaceKeyFile(path string, pem []byte, check func(pem []byte) error) error {
	if err := CheckReplaceable(path); err != nil {
		return err
	}
	err := durable.ReplaceChecked(path, pem, 0o600, func(written []byte) error {
		if err := check(written); err != nil {
			return fmt.Errorf("the new key file can not be opened: %w", err)
		}
		return nil
	})
	if errors.Is(err, durable.ErrUnsynced) {
		return fmt.Errorf("the root key %s has its new passphrase, but after a power cut it may have the old one again: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("the root key %s is as it was, with its old passphrase: %w", path, err)
	}
	return nil
}

// CheckReplaceable checks that nothing of an old key file is left where
// [ReplaceKeyFile] puts a new one in its place: a file with several names (hard
// links) would stay, with its old passphrase, under the others.
func CheckReplaceable(path string) error {
	file, err := durable.Target(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return nil // the function that opens it reports what is wrong
	}
	if n := durable.Links(fi); n > 1 {
		return fmt.Errorf("the file %s has %d names (hard links), and would keep its old passphrase under the others: remove those first (\"find DIR -samefile %s\" finds them)", file, n, file)
	}
	return nil
}
