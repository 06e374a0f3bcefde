package local

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
)

const (
	// passcodeFile is the file of the state folder with the passcode.
	passcodeFile = "passcode"
	// Bounds for the length, in bytes, of a passcode that the operator chooses. A shorter
	// passcode could be guessed, a longer one does not fit into a header.
	minPasscode, maxPasscode = 16, 250
)

// noPasscode is what the file contains while there is no passcode, because the door is closed. It can be no
// passcode, and is as long as a generated one: a file that is overwritten with as many bytes needs no more space
// on most file systems, so that the door can be opened although the disk is full.
const noPasscode = "the service is not running"

// errExposed means that other users than the node's may have access to the passcode file.
var errExposed = errors.New("local: passcode is not secret")

// passcode verifies the secret that clients must send. The secret is never logged or quoted in
// errors.
type passcode struct {
	path   string // of its file, for errors to clients that do not send it
	digest [sha256.Size]byte
}

// matches reports whether s is the passcode. The time that it takes does not depend on
// the length of the passcode, nor on where s differs from it.
func (p *passcode) matches(s string) bool {
	digest := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(digest[:], p.digest[:]) == 1
}

// openPasscode reads the passcode, and generates it if there is none.
func openPasscode(stateDir string) (*passcode, error) {
	path, err := filepath.Abs(filepath.Join(stateDir, passcodeFile))
	if err != nil {
		return nil, err
	}
	if err := generatePasscode(path); err != nil {
		return nil, fmt.Errorf("make passcode for local applications: %w", err)
	}
	secret, err := readPasscode(path)
	if err != nil {
		return nil, err
	}
	return &passcode{path: path, digest: sha256.Sum256([]byte(secret))}, nil
}

// CheckPasscode reports why the passcode in the state folder can not be used. It returns nil if there is
// none, since [Open] makes one then. It changes nothing.
func CheckPasscode(stateDir string) error {
	if _, err := readPasscode(filepath.Join(stateDir, passcodeFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkLink returns an error if the path is that of a symbolic link to nothing.
func checkLink(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || !isLink(path) {
		return nil
	}
	to, err := os.Readlink(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is a symbolic link to %s, which does not exist; make that file, with the passcode, or remove the link, and a new passcode is made at the next start", path, to)
}

// generatePasscode writes a new passcode to the file unless the file contains one.
func generatePasscode(path string) error {
	if _, err := os.Lstat(path); err == nil {
		if _, err = readPasscode(path); errors.Is(err, fs.ErrNotExist) {
			return overwrite(path, newPasscode())
		}
		return nil // the caller reads it again
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := durable.Create(path, []byte(newPasscode()+"\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process has written it first
	}
	return err
}

func newPasscode() string { return rand.Text() }

// isGenerated reports whether a passcode has the form of those from newPasscode: 26
// characters of base 32.
func isGenerated(s string) bool {
	return len(s) == 26 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// invalidateGenerated makes the passcode in the file invalid if it was generated. It reports whether the
// file exists and contains a passcode chosen by the operator.
func invalidateGenerated(path string) (chosen bool, err error) {
	if checkLink(path) != nil {
		return false, nil
	}
	secret, err := readPasscode(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !isGenerated(secret) || isLink(path):
		return true, nil
	}
	if err := overwrite(path, noPasscode); err != nil {
		return false, fmt.Errorf("overwrite the passcode for local applications: %w", err)
	}
	return false, nil
}

// isLink reports whether the path is that of a symbolic link, which only the operator can have made.
func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// overwrite replaces the content of the file, which is a line with a generated passcode or noPasscode, in place by
// another line of the same length.
func overwrite(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|durable.NoFollow, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.WriteAt([]byte(line+"\n"), 0)
	if err == nil {
		err = f.Truncate(int64(n)) // an editor may have changed how the line ends
	}
	return cmp.Or(err, f.Sync())
}

// readPasscode reads the file. It returns errExposed if other users have access to the file,
// or if it belongs to another user, and [fs.ErrNotExist] if there is no passcode. A symbolic link to nothing is
// another error.
func readPasscode(path string) (string, error) {
	if err := checkLink(path); err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // opening a FIFO could take for ever
		return "", fmt.Errorf("%s is not a passcode: it is no regular file; remove it, and a new one is made at the next start", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read passcode for local applications: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	// On Windows, access is controlled by access lists, which the mode bits do not
	// show.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		if err := guard.CheckPrivateFolder(filepath.Dir(path)); err != nil {
			return "", fmt.Errorf("%w: %w", errExposed, err)
		}
		return "", fmt.Errorf("%w: %s has mode %04o, so other users have access; give it 0600, and remove it if they may have read it: a new one is made at the next start",
			errExposed, path, mode)
	}
	if err := guard.CheckOwnerInFolder(f); err != nil {
		return "", fmt.Errorf("%w: %w; or remove it: a new one is made at the next start", errExposed, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPasscode+3))
	if err != nil {
		return "", fmt.Errorf("read passcode for local applications: %w", err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == noPasscode {
		return "", fmt.Errorf("there is no passcode for local applications in %s now: %w", path, fs.ErrNotExist)
	}
	if len(secret) < minPasscode || len(secret) > maxPasscode || strings.ContainsFunc(secret, isForbidden) {
		return "", fmt.Errorf("%s is not a passcode: expected one line of %d to %d printable ASCII characters without spaces; remove it, and a new one is made at the next start",
			path, minPasscode, maxPasscode)
	}
	return secret, nil
}

// isForbidden reports whether a passcode must not contain r.
func isForbidden(r rune) bool { return r <= ' ' || r > '~' }
