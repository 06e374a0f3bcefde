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
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/passphrase"
	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/pki"
)

// maxInputFile is the maximum size, in bytes, of a file with a passphrase, a key, a certificate or a request.
const maxInputFile = 64 << 10

// keyFlags adds the flags of the commands that use the root key.
func (a *app) keyFlags(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.keyFile, "key", "", "the root key `FILE`, or agent:SHA256:… for a key in ssh-agent (default private/root-ca.key in the node's directory)")
	c.Flags().StringVar(&a.passphraseFile, "passphrase-file", "", "read the root key's passphrase from the first line of `FILE`, - for standard input (default: ask)")
	return c
}

func (a *app) keyPath() string {
	if a.keyFile != "" {
		return a.keyFile
	}
	return node.DefaultKeyFile(a.dir)
}

// rootKey returns the root key. It decrypts the key's file, with the passphrase from the file given
// by a flag or from a prompt, unless an ssh-agent holds the key.
func (a *app) rootKey(ctx context.Context) (crypto.Signer, error) {
	if a.keyInAgent() {
		return a.agentKey(ctx)
	}
	key, pass, err := a.rootKeyAndPassphrase(ctx)
	clear(pass)
	return key, err
}

// rootKeyAndPassphrase decrypts the file of the root key, and returns it with its passphrase, which is nil if the key is not
// encrypted.
func (a *app) rootKeyAndPassphrase(ctx context.Context) (crypto.Signer, []byte, error) {
	guard.ProtectProcess()
	path := a.keyPath()
	var data []byte
	err := guard.CheckKeyFile(path)
	if err == nil {
		data, err = readBounded(ctx, path, maxInputFile)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no root key at %s: name the file with --key", path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("root key: %w", err)
	}
	defer clear(data)
	if err := guard.CheckOwner(path); err != nil {
		return nil, nil, fmt.Errorf("root key: %w", err)
	}
	if err := guard.CheckParentFolder(path); err != nil {
		a.warn("root key: %v", err)
	}
	key, err := pki.DecodeKey(data, func() ([]byte, error) { return nil, errEncrypted })
	var pass []byte
	if errors.Is(err, errEncrypted) {
		errWrong := fmt.Errorf("the passphrase does not open the root key %s: check it and try again; if it is right, the file is damaged", path)
		var given *passphrase.Input
		key, pass, given, err = a.decryptWithPassphrase(ctx, "Passphrase of the root key "+path+": ", errWrong, maxTries, decrypter(data))
		if errors.Is(err, errWrong) {
			return nil, nil, err
		}
		given.Wipe()
	} else if err != nil {
		return nil, nil, fmt.Errorf("root key %s: %w; %s", path, err, node.DamagedKeyRemedy)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("root key %s: %w", path, err)
	}
	if err := passphrase.Check(pass); err != nil {
		a.warn("the passphrase of %s cannot be typed at a prompt: %v.\nChange it with \"peerlink key passphrase\".", path, err)
	} else if passphrase.Mixed(pass) {
		a.warn("the passphrase of %s is in neither of the normal forms of Unicode (NFC, NFD), so the same text\n"+
			"from another keyboard may not decrypt the key. Set it again with \"peerlink key passphrase\"; it may be the same text.", path)
	}
	return key, pass, nil
}

// errEncrypted is returned by a passphrase function in order to find out only whether a key is encrypted.
var errEncrypted = errors.New("the key is encrypted")

// maxTries is the maximum number of prompts for the passphrase of a key file.
const maxTries = 3

// decryptWithPassphrase gets a passphrase and decrypts something with it. On a terminal it prompts
// again after a wrong passphrase, at most tries times in all. If no passphrase was right, it
// returns errWrong. pass is the form of the given passphrase that was right. The caller must wipe
// given, which may be nil.
func (a *app) decryptWithPassphrase(ctx context.Context, prompt string, errWrong error, tries int, decrypt func(pass []byte) (crypto.Signer, error)) (key crypto.Signer, pass []byte, given *passphrase.Input, err error) {
	for try := 1; ; try++ {
		given, err := a.passphrase(ctx, prompt)
		if err != nil {
			return nil, nil, nil, err
		}
		stop := a.working("Trying the passphrase")
		key, pass, err := tryAll(given, decrypt)
		stop()
		if err == nil && ctx.Err() != nil {
			clear(pass)
			err = errInterrupted // the key has not been used yet
		}
		if err == nil {
			return key, pass, given, nil
		}
		given.Wipe()
		switch {
		case !errors.Is(err, pki.ErrPassphrase):
			return nil, nil, nil, err
		case a.passphraseFile != "" || try >= tries:
			return nil, nil, nil, errWrong
		}
		a.printMessage("%v.", errWrong)
	}
}

// tryAll tries the candidates of a passphrase in order, and returns the key and the first candidate
// with which decryption succeeds. The error wraps [pki.ErrPassphrase] if there is none.
func tryAll(given *passphrase.Input, decrypt func(pass []byte) (crypto.Signer, error)) (crypto.Signer, []byte, error) {
	for _, pass := range given.Candidates() {
		key, err := decrypt(pass)
		if err == nil {
			return key, bytes.Clone(pass), nil
		}
		if !errors.Is(err, pki.ErrPassphrase) {
			return nil, nil, err
		}
	}
	return nil, nil, pki.ErrPassphrase
}

// encryptKey encrypts a root key with a passphrase, and returns the content of the key file and a check of the file
// that was written: the content, read back from the disk, must be decrypted by every form of the passphrase that
// another keyboard may send, and hold the key.
func encryptKey(key crypto.Signer, pass []byte) (pem []byte, check func(written []byte) error, err error) {
	stored := passphrase.Normal(pass)
	defer clear(stored)
	pem, err = pki.EncodeEncryptedKey(key, stored)
	return pem, func(written []byte) error {
		for _, form := range passphrase.Forms(pass) {
			given := &passphrase.Input{Text: form}
			back, rightForm, err := tryAll(given, decrypter(written))
			clear(rightForm)
			given.Wipe()
			if err == nil && pki.Fingerprint(back.Public()) != pki.Fingerprint(key.Public()) {
				err = errors.New("it holds another key")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, err
}

// storeKey writes a root key to a file with write, encrypted with the passphrase.
func (a *app) storeKey(write func(path string, pem []byte, check func([]byte) error) error, path string, key crypto.Signer, pass []byte) error {
	defer a.working("Encrypting and testing the root key")()
	pem, check, err := encryptKey(key, pass)
	if err != nil {
		return err
	}
	return write(path, pem, check)
}

// decrypter returns a function that decrypts the content of a key file.
func decrypter(pem []byte) func(pass []byte) (crypto.Signer, error) {
	return func(pass []byte) (crypto.Signer, error) {
		return pki.DecodeKey(pem, func() ([]byte, error) { return pass, nil })
	}
}

// maxLeftovers is the maximum number of leftovers of a key file that are examined.
const maxLeftovers = 8

// removeLeftovers removes the temporary files that interrupted commands have left beside a key file, if they contain the
// same key, encrypted with one of the passphrases. Other temporary files are only reported.
func (a *app) removeLeftovers(path string, key crypto.Signer, passphrases ...[]byte) {
	found, err := durable.Leftovers(path)
	if err != nil {
		return
	}
	for i, file := range found {
		if i < maxLeftovers && holdsKey(file, key, passphrases) && os.Remove(file) == nil {
			a.printMessage("Removed %s, a copy of the key left by an interrupted command.", file)
		}
	}
	a.warnLeftovers(path)
}

// holdsKey reports whether the file is a key file with the key that one of the passphrases
// decrypts.
func holdsKey(file string, key crypto.Signer, passphrases [][]byte) bool {
	data, err := durable.Read(file, maxInputFile)
	if err != nil {
		return false
	}
	defer clear(data)
	for _, pass := range passphrases {
		given := &passphrase.Input{Text: bytes.Clone(pass)}
		held, rightForm, err := tryAll(given, decrypter(data))
		clear(rightForm)
		given.Wipe()
		if err == nil {
			return pki.Fingerprint(held.Public()) == pki.Fingerprint(key.Public())
		}
	}
	return false
}

// warnLeftovers reports the temporary files beside a key file.
func (a *app) warnLeftovers(path string) {
	found, err := durable.Leftovers(path)
	if err != nil || len(found) == 0 {
		return
	}
	more := ""
	if len(found) > maxLeftovers {
		more = fmt.Sprintf(" and %d more", len(found)-maxLeftovers)
		found = found[:maxLeftovers]
	}
	a.warn("%s%s may hold a copy of the root key, left by an interrupted command:\nremove it, unless a command is changing the key at this moment.", strings.Join(found, ", "), more)
}

// warnExposed warns if other users can read a new key file, because its file system has no file modes.
func (a *app) warnExposed(path string) {
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		a.warn("This medium keeps no file modes: while it is connected, other users of this machine can read\n%s (mode %v), and try passphrases. Mount it with the option umask=077 to prevent that.", path, fi.Mode().Perm())
	}
}

// checkedRootKey is rootKey with a check that the key is the node's.
func (a *app) checkedRootKey(ctx context.Context, d *node.Dir) (crypto.Signer, error) {
	key, err := a.rootKey(ctx)
	if err != nil {
		return nil, err
	}
	return key, d.CheckKey(key)
}

// passphrase returns an existing passphrase from the file or from the terminal.
func (a *app) passphrase(ctx context.Context, prompt string) (*passphrase.Input, error) {
	if a.passphraseFile != "" {
		return a.readPassphrase(ctx)
	}
	line, err := a.askSecret(ctx, prompt)
	return &passphrase.Input{Text: line}, err
}

// readPassphrase reads the passphrase from the passphrase file. All passphrases are read by readPassphrase or
// askSecret, which therefore protect the process before a passphrase is in its memory.
func (a *app) readPassphrase(ctx context.Context) (*passphrase.Input, error) {
	guard.ProtectProcess()
	var data []byte
	var err error
	if a.passphraseFile == "-" {
		data, err = io.ReadAll(io.LimitReader(a.standardInput(ctx), maxInputFile))
	} else {
		data, err = a.readSecretFile(ctx, a.passphraseFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.passphraseSource(), err)
	}
	given, err := passphrase.FromFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", a.passphraseSource(), a.passphraseFile, err)
	}
	if given.Err != nil {
		given.Err = fmt.Errorf("%s %s: %w", a.passphraseSource(), a.passphraseFile, given.Err)
	}
	return given, nil
}

// readSecretFile reads a file that should be readable by this user only.
func (a *app) readSecretFile(ctx context.Context, path string) ([]byte, error) {
	warning, err := guard.CheckSecretFile(path)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		a.warn("the %s %s", a.passphraseSource(), warning)
	}
	if err := guard.CheckParentFolder(path); err != nil {
		a.warn("the %s: %v", a.passphraseSource(), err)
	}
	return readBounded(ctx, path, maxInputFile)
}

// passphraseSource returns what messages call the passphrase file, which depends on the flag that
// named it.
func (a *app) passphraseSource() string {
	if a.newPassphraseFlag {
		return "new passphrase file"
	}
	return "passphrase file"
}

func (a *app) noTerminalError() error {
	if a.newPassphraseFlag {
		return errors.New("there is no terminal to ask for the new passphrase: give it with --new-passphrase-file (- for standard input, unless that holds the old one)")
	}
	return errors.New("there is no terminal to ask for the passphrase: give it with --passphrase-file (- for standard input)")
}

// askSecret reads a line from the terminal without echo.
func (a *app) askSecret(ctx context.Context, prompt string) ([]byte, error) {
	if !isTerminal(a.stdin) {
		return nil, a.noTerminalError()
	}
	guard.ProtectProcess()
	fd := int(a.stdin.Fd())
	echoState, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	showPrompt := func() { fmt.Fprint(a.stderr, prompt) }
	p, ctx := openHiddenPrompt(ctx, fd, echoState, showPrompt)
	defer p.close()
	showPrompt()
	defer fmt.Fprintln(a.stderr)
	line, err := interruptible(ctx, func() ([]byte, error) { return readHidden(fd) })
	if errors.Is(err, io.EOF) {
		err = errEndOfInput
	}
	return line, err
}

// readText is like [readBounded] for text in UTF-8, or in the encoding given by a byte order mark.
func readText(ctx context.Context, path string, max int64) ([]byte, error) {
	data, err := readBounded(ctx, path, max)
	if err != nil {
		return nil, err
	}
	text, err := textfile.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}
