package cli

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peerlink/internal/guard"
	"peerlink/node"
	"peerlink/node/pki"
)

// maxSecretFile bounds passphrase and key files.
const maxSecretFile = 64 << 10

// keyFlags adds the flags of the commands that use the root key.
func (a *app) keyFlags(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.keyFile, "key", "", "the root key `FILE` (default private/root-ca.key in the node's directory)")
	c.Flags().StringVar(&a.passphraseFile, "passphrase-file", "", "read the root key's passphrase from the first line of `FILE`, - for standard input (default: ask)")
	return c
}

func (a *app) keyPath() string {
	if a.keyFile != "" {
		return a.keyFile
	}
	return node.DefaultKeyFile(a.dir)
}

// rootKey opens the root key, asking for its passphrase if there is a terminal.
func (a *app) rootKey(ctx context.Context) (crypto.Signer, error) {
	return a.rootKeyWith(func() ([]byte, error) {
		return a.passphrase(ctx, "Passphrase of the root key "+a.keyPath()+": ")
	})
}

// rootKeyWith opens the root key with a passphrase that is got when it is needed.
func (a *app) rootKeyWith(passphrase func() ([]byte, error)) (crypto.Signer, error) {
	guard.Process()
	path := a.keyPath()
	data, err := readBounded(path, maxSecretFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no root key at %s: name the file with --key", path)
	}
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	defer clear(data)
	if err := guard.CheckFile(path); err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	key, err := pki.DecodeKey(data, passphrase)
	if errors.Is(err, pki.ErrPassphrase) {
		return nil, fmt.Errorf("the passphrase does not open the root key %s: check it and try again", path)
	}
	if err != nil {
		return nil, fmt.Errorf("root key %s: %w", path, err)
	}
	return key, nil
}

// nodeKey opens the root key and checks that it is the node's.
func (a *app) nodeKey(ctx context.Context, d *node.Dir) (crypto.Signer, error) {
	key, err := a.rootKey(ctx)
	if err != nil {
		return nil, err
	}
	return key, d.CheckKey(key)
}

// passphrase gets an existing passphrase: from the file, or from the terminal.
func (a *app) passphrase(ctx context.Context, prompt string) ([]byte, error) {
	if a.passphraseFile != "" {
		return a.readPassphrase()
	}
	return a.askSecret(ctx, prompt)
}

// readPassphrase reads the passphrase from the file that is named for it. Every
// passphrase comes from here or from askSecret, which therefore protect the
// process before there is one in its memory.
func (a *app) readPassphrase() ([]byte, error) {
	guard.Process()
	var data []byte
	var err error
	if a.passphraseFile == "-" {
		data, err = io.ReadAll(io.LimitReader(a.stdin, maxSecretFile))
	} else {
		data, err = readBounded(a.passphraseFile, maxSecretFile)
	}
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("the first line of the passphrase file %s is empty: expected the passphrase there", a.passphraseFile)
	}
	return line, nil
}

var errNoTerminal = errors.New("there is no terminal to ask for the passphrase: give it with --passphrase-file (- for standard input)")

// askSecret reads a line from the terminal without showing it.
func (a *app) askSecret(ctx context.Context, prompt string) ([]byte, error) {
	if !isTerminal(a.stdin) {
		return nil, errNoTerminal
	}
	guard.Process()
	fmt.Fprint(a.stderr, prompt)
	defer fmt.Fprintln(a.stderr)
	fd := int(a.stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type answer struct {
		line []byte
		err  error
	}
	ch := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		ch <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		// Interrupted: leave the terminal as it was, with echo.
		term.Restore(fd, state)
		return nil, errors.New("interrupted")
	case got := <-ch:
		return got.line, got.err
	}
}

// readBounded reads a regular file, or what behaves like one, up to max bytes.
func readBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s is larger than %d bytes", path, max)
	}
	return data, err
}
