package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/textfile"
	"peerlink/node/pki"
)

// maxFile is the maximum size, in bytes, of a file read from the node's directory,
// unless another limit is given. The largest of these files is a certificate with a
// human-readable dump.
const maxFile = 1 << 20

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) { return durable.Read(path, maxFile) }

// readText reads a text file of at most maxFile bytes, in UTF-8 or in the encoding
// that a byte order mark indicates.
func readText(path string) ([]byte, error) { return textfile.Read(path, maxFile) }

// readLine reads a file that holds one line, with or without its line end.
func readLine(path string) (string, error) {
	data, err := readText(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%s: %w: it holds more than one line", path, errDamaged)
	}
	return s, nil
}

// readCerts reads the certificates in a file, in PEM or in DER.
func readCerts(path string) (certs []*x509.Certificate, err error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	switch cert, err := pki.ParseCertificate(data); {
	case err == nil:
		return []*x509.Certificate{cert}, nil
	case errors.Is(err, pki.ErrTimes):
		return nil, err
	}
	if data, err = textfile.Decode(data); err != nil {
		return nil, err
	}
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		cert, err := pki.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, data = append(certs, cert), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return certs, nil
}

// filesIn returns the sorted paths of the files and folders in dir for whose names
// fits returns true. If dir does not exist, the result is empty. Unlike filepath.Glob,
// filesIn does not treat dir as a pattern: the path of a node may contain "*", "?" or "[".
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

// exists reports whether path exists. If that cannot be determined, for example
// because a directory may not be searched, it returns an error: callers may create or
// remove files where the result is false.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// HasRecords reports whether a directory has the folder of a node's records, db, which may
// be incomplete so that [Open] fails with [ErrNotNode]. If that can not be determined, the
// result is true.
func HasRecords(path string) bool {
	ok, err := exists(filepath.Join(path, "db"))
	return ok || err != nil
}

// lock excludes other peerlink commands from changing the directory until the
// returned function is called. The reference scripts lock only their counter files;
// the files that both write are safe because they are created exclusively.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	if err := checkSafeForSuperuser(d.path); err != nil {
		return nil, err
	}
	return durable.Lock(ctx, d.file("db"))
}

// checkSafeForSuperuser returns an error if this process is the superuser's, and another user
// owns, or can create files in, the node's directory, a folder in it, or a folder above it
// ([guard.CheckSuperuserWrites], [guard.CheckSuperuserShares]).
func checkSafeForSuperuser(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	folders := []string{path}
	for _, pattern := range []string{"*", "db/*", "db/*/*", "peers/*", "peers/*/*"} {
		found, err := fs.Glob(os.DirFS(path), pattern)
		if err != nil {
			return err
		}
		for _, name := range found {
			name = filepath.Join(path, filepath.FromSlash(name))
			if fi, err := os.Stat(name); err == nil && fi.IsDir() {
				folders = append(folders, name)
			}
		}
	}
	if err := guard.CheckSuperuserWrites(folders...); err != nil {
		return err
	}
	return guard.CheckSuperuserShares(folders...)
}

// ReplaceKeyFile replaces the root key's file with a newly encrypted one. The new
// file is read back and must pass check before the old one is removed.
func ReplaceKeyFile(path string, pem []byte, check func(pem []byte) error) error {
	if err := CheckKeyFileReplaceable(path); err != nil {
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

// CheckKeyFileReplaceable checks that [ReplaceKeyFile] would leave no copy of the old key
// file. It fails if path is not a regular file, or if the file has several names (hard
// links): under the other names the key would keep its old passphrase.
func CheckKeyFileReplaceable(path string) error {
	file, err := durable.Target(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(file)
	if err != nil {
		return nil // the function that opens the file reports the error
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file: expected the file of the root key", file)
	}
	if n := durable.HardLinks(fi); n > 1 {
		return fmt.Errorf("the file %s has %d names (hard links), and would keep its old passphrase under the other names: remove those first (\"find DIR -samefile %s\" finds them)", file, n, file)
	}
	return nil
}
