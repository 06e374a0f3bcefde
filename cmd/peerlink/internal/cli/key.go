package cli

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/passphrase"
	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/keyshare"
)

// maxShareFile is the maximum size of the file of a share in bytes. The text of a page has some kilobytes, twice
// as many in UTF-16. For PDF files of any size, [keyshare.Parse] has a specific error.
const maxShareFile = 256 << 10

func (a *app) keyCommand() *cobra.Command {
	return group("key", "Keep the root key: passphrase, shares on paper, drills",
		a.keyPassphraseCommand(), a.keySplitCommand(), a.keyJoinCommand(), a.keyDrillCommand())
}

func (a *app) keyPassphraseCommand() *cobra.Command {
	var newFile string
	c := &cobra.Command{
		Use:   "passphrase",
		Short: "Change the root key's passphrase",
		Long: `Encrypts the root key with a new passphrase. The old file is replaced only after
the new one has been read back and opened. Copies of the old file, and shares
made from it, still open with the old passphrase.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.passphraseFile == "-" && newFile == "-" {
				return usagef("--passphrase-file - and --new-passphrase-file -: standard input holds one passphrase only; give the other one in a file")
			}
			if err := a.refuseAgentKey("an ssh-agent keeps no passphrase of a root key: change that of the key's own file, or the PIN of the token, where it is"); err != nil {
				return err
			}
			if err := node.CheckKeyFileReplaceable(a.keyPath()); err != nil {
				return err
			}
			key, old, err := a.rootKeyAndPassphrase(cmd.Context())
			if err != nil {
				return err
			}
			defer clear(old)
			fresh := *a
			fresh.passphraseFile, fresh.newPassphraseFlag = newFile, true
			pass, err := fresh.newPassphrase(cmd.Context())
			if err != nil {
				return err
			}
			defer clear(pass)
			// The same text in another form is a change: keys are encrypted with one of the forms.
			normal := passphrase.Normal(pass)
			defer clear(normal)
			if old != nil && bytes.Equal(old, normal) {
				return errors.New("the new passphrase is the one that the key has: expected another one; the key file is as it was")
			}
			if err := a.storeKey(node.ReplaceKeyFile, a.keyPath(), key, pass); err != nil {
				return err
			}
			a.removeLeftovers(a.keyPath(), key, pass, old)
			a.warnExposed(a.keyPath())
			a.printMessage("The root key %s has a new passphrase. Renew your backups of it.", a.keyPath())
			return nil
		},
	}
	a.keyFlags(c).Flags().StringVar(&newFile, "new-passphrase-file", "", "read the new passphrase from the first line of `FILE` (default: ask)")
	return c
}

func (a *app) keySplitCommand() *cobra.Command {
	var shares, threshold int
	var out string
	var text, asJSON bool
	c := &cobra.Command{
		Use:   "split --shares N --threshold T",
		Short: "Make shares of the root key for paper, any T of which restore it",
		Long: `Makes N pages to print, for different hands and places. Any T of them restore the
root key, together with its passphrase; fewer tell nothing. Each page carries
its share as words that can be typed back and as a QR code, and says what it is
and how to restore the key.

Print the pages, try a restore ("peerlink key drill"), and delete the files.`,
		Example: "  peerlink key split --shares 5 --threshold 3 --out pages",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.refuseAgentKey("an ssh-agent never gives the key itself, of which shares are made: name the key's file"); err != nil {
				return err
			}
			d, err := node.OpenRoot(a.dir)
			if err != nil {
				return err
			}
			return a.splitKey(cmd.Context(), d, shares, threshold, out, text, asJSON)
		},
	}
	c.Flags().IntVar(&shares, "shares", 0, "how many shares to make, 2 to 16")
	c.Flags().IntVar(&threshold, "threshold", 0, "how many of them restore the key")
	c.Flags().StringVar(&out, "out", "shares", "a new or empty `DIR` for the pages")
	c.Flags().BoolVar(&text, "text", false, "write the words into text files besides the pages")
	jsonFlag(c, &asJSON)
	cobra.CheckErr(c.MarkFlagRequired("shares"))
	cobra.CheckErr(c.MarkFlagRequired("threshold"))
	return a.keyFlags(c)
}

func (a *app) splitKey(ctx context.Context, d *node.Dir, shares, threshold int, out string, text, asJSON bool) error {
	if threshold < 2 || shares < threshold || shares > 16 {
		return usagef("--shares %d --threshold %d: expected a threshold of at least 2, and from that many to 16 shares", shares, threshold)
	}
	if entries, err := os.ReadDir(out); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: choose a fresh folder with --out", out)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := errors.Join(guard.CheckFolder(out), guard.CheckOwner(out)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.warn("the folder for the pages: %v", err)
	}
	key, pass, err := a.rootKeyAndPassphrase(ctx)
	if err != nil {
		return err
	}
	defer clear(pass)
	if pass == nil {
		return fmt.Errorf("the root key %s is not encrypted: first give it a passphrase with \"peerlink key passphrase\"; the shares have the same", a.keyPath())
	}
	if err := passphrase.Check(pass); err != nil {
		return fmt.Errorf("the passphrase could not be typed when the shares are opened: %w; first change it with \"peerlink key passphrase\"", err)
	}
	if err := d.CheckKey(key); err != nil {
		return err
	}
	stored := passphrase.Normal(pass)
	defer clear(stored)
	stop := a.working("Making and testing the shares")
	made, err := keyshare.Split(key, d.Identity(), stored, shares, threshold, time.Now())
	stop()
	if err != nil {
		return err
	}
	names, err := writeShares(out, made, text)
	if err != nil {
		return err
	}
	if err := a.result(asJSON, madeFiles{names}, strings.Join(names, "\n")); err != nil {
		return err
	}
	a.printMessage("Print these pages, give them to different people or put them in different places, and delete\n"+
		"the files. Any %d of the %d restore the root key together with its passphrase, which is on none\n"+
		"of them: keep that elsewhere. Then prove that it works: \"peerlink key drill\".", threshold, shares)
	return nil
}

// writeShares writes the pages of the shares to a folder, and returns the names of the PDF files.
// If a file cannot be written, all are removed.
func writeShares(out string, shares []*keyshare.Share, text bool) (names []string, err error) {
	_, statErr := os.Stat(out)
	if err := os.MkdirAll(out, 0o700); err != nil {
		return nil, err
	}
	var written []string
	defer func() {
		if err == nil {
			return
		}
		for _, path := range written {
			os.Remove(path)
		}
		if statErr != nil { // the folder was created here
			os.Remove(out)
		}
	}()
	create := func(path, content string) error {
		err := durable.Create(path, []byte(content), 0o600)
		if err == nil || errors.Is(err, durable.ErrUnsynced) {
			written = append(written, path)
		}
		return err
	}
	for _, s := range shares {
		name := filepath.Join(out, fmt.Sprintf("share-%d-of-%d", s.Index(), s.Total()))
		var page strings.Builder
		if err := s.PDF(&page); err != nil {
			return nil, err
		}
		if err := create(name+".pdf", page.String()); err != nil {
			return nil, err
		}
		names = append(names, name+".pdf")
		if text {
			if err := create(name+".txt", s.Text()); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

func (a *app) keyJoinCommand() *cobra.Command {
	var out string
	var asJSON bool
	c := &cobra.Command{
		Use:   "join [SHARE...]",
		Short: "Restore the root key from shares",
		Long: `Restores the root key from the shares in the given files: the words as typed, or
the text of the QR code. Without files the shares are asked for, line by line; a
mistyped line is named at once. The passphrase is the one that the key had when
it was split, and the restored file has it too. The result is checked against
root-ca.crt in the node's directory, of which nothing else is needed.`,
		Example: "  peerlink key join --out /media/stick/root-ca.key share1.txt share2.txt share3.txt",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := node.OpenRoot(a.dir)
			if err != nil {
				return err
			}
			if out == "" {
				out = d.DefaultKeyFile()
			}
			if durable.CheckAbsent(out) != nil {
				return fmt.Errorf("%s exists already, and a root key is never overwritten: if the file is damaged, move it away first; or write the key to another file with --out", out)
			}
			if err := checkKeyCreatable(out); err != nil {
				return err
			}
			key, pass, err := a.joinShares(cmd.Context(), d, args)
			if err != nil {
				return err
			}
			defer clear(pass)
			if err := a.storeKey(node.WriteKeyFile, out, key, pass); err != nil {
				return err
			}
			a.warnExposed(out)
			if err := a.result(asJSON, madeFiles{[]string{out}}, out); err != nil {
				return err
			}
			a.printMessage("This is the root key of %s, with the passphrase that it had when it was split.", d.Identity())
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().StringVar(&out, "out", "", "where to write the restored root key (default private/root-ca.key in the node's directory)")
	c.Flags().StringVar(&a.passphraseFile, "passphrase-file", "", "read the passphrase from the first line of `FILE` (default: ask)")
	return c
}

func isSameFile(path, other string) bool {
	a, err := os.Stat(path)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

// checkKeyCreatable is like checkCreatable for the file of a root key, whose folder may be missing, because it is created too.
func checkKeyCreatable(path string) error {
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return durable.CheckAbsent(path)
	}
	return checkCreatable(path)
}

// joinShares restores the root key from shares in files, or from typed shares if no files are
// given. It also returns the passphrase for the restored key.
func (a *app) joinShares(ctx context.Context, d *node.Dir, files []string) (crypto.Signer, []byte, error) {
	guard.ProtectProcess()
	var shares []*keyshare.Share
	var err error
	if len(files) == 0 {
		shares, err = a.promptShares(ctx, d.Root().PublicKey)
	} else {
		shares, err = shareFiles(ctx, files)
	}
	if err != nil {
		return nil, nil, err
	}
	sealed, err := keyshare.Combine(shares)
	if err != nil {
		return nil, nil, err
	}
	defer sealed.Wipe()
	if err := sealed.CheckKey(d.Root().PublicKey); err != nil {
		return nil, nil, err
	}
	errWrong := errors.New("wrong passphrase for these shares: expected the one that the root key had when it was split")
	// The shares may have been typed, so a wrong passphrase must not lose them.
	key, pass, given, err := a.decryptWithPassphrase(ctx, "Passphrase that the root key had when it was split: ", errWrong, math.MaxInt,
		func(pass []byte) (crypto.Signer, error) { return sealed.Open(pass, d.Root().PublicKey) })
	if err != nil {
		return nil, nil, err
	}
	defer given.Wipe()
	return key, a.passphraseToKeep(given, pass), d.CheckKey(key)
}

// passphraseToKeep returns the passphrase for a restored key: sharesPass, with which the shares
// were opened, if it can be typed at a prompt. If it cannot, because earlier versions of peerlink
// included byte order marks in it, the passphrase is the text of the passphrase file's first line,
// or sharesPass if that text cannot be typed either.
func (a *app) passphraseToKeep(given *passphrase.Input, sharesPass []byte) []byte {
	err := passphrase.Check(sharesPass)
	if err == nil && passphrase.Mixed(sharesPass) {
		a.warn("These shares open with the passphrase as it was given, and not with the same text from another keyboard: it is in none\n" +
			"of the normal forms of Unicode (NFC, NFD). A key restored from them opens with either form; make new shares of it.")
	}
	if err == nil {
		return sharesPass
	}
	if text, err := given.Typeable(); err == nil {
		a.printMessage("These shares open only with the whole content of the passphrase file; the passphrase of the restored key is the text of its first line.")
		return bytes.Clone(text)
	}
	a.warn("Nobody can type this passphrase: %v.\nChange it with \"peerlink key passphrase\" once the key is restored, and make new shares.", err)
	return sharesPass
}

func shareFiles(ctx context.Context, files []string) ([]*keyshare.Share, error) {
	var shares []*keyshare.Share
	for _, path := range files {
		data, err := readBounded(ctx, path, maxShareFile)
		text := data
		if !bytes.HasPrefix(data, []byte("%PDF-")) { // Parse has a specific error for PDF files, also for larger ones
			if err != nil {
				return nil, err
			}
			if text, err = textfile.Decode(data); err != nil {
				return nil, fmt.Errorf("%s: %w: expected the text of a share", path, err)
			}
		}
		s, err := keyshare.Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for i, other := range shares {
			if other.String() == s.String() {
				return nil, fmt.Errorf("%s and %s: %w: %v", files[i], path, keyshare.ErrDuplicate, s)
			}
		}
		shares = append(shares, s)
	}
	return shares, nil
}

func (a *app) keyDrillCommand() *cobra.Command {
	var typed bool
	c := &cobra.Command{
		Use:   "drill [SHARE...]",
		Short: "Prove that a backup of the root key opens and belongs to this node",
		Long: `Opens a backup of the root key, and compares it with the node's root certificate:
a file (--key), shares in files, or with --type shares that are typed from paper
or scanned, as for "peerlink key join". Of the node's directory, root-ca.crt is
enough. Nothing is changed, except that the date of the drill is noted in the
directory if the rest of it is there; "peerlink check" reminds you after a year.
The root key in private/ of the directory itself is no backup, and its test is not
noted. A key in ssh-agent (--key agent:SHA256:…) signs a text that means nothing:
use the token that is kept as the backup, and not the one in daily use.`,
		Example: `  peerlink key drill --key /media/stick/root-ca.key
  peerlink key drill --type
  peerlink key drill share-1-of-5.txt share-4-of-5.txt share-5-of-5.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := node.OpenRoot(a.dir)
			if err != nil {
				return err
			}
			if typed && len(args) > 0 {
				return usagef("name files of shares, or give --type")
			}
			if a.keyFile != "" && (typed || len(args) > 0) {
				return usagef("--key names a key file, and shares are given too: test one backup at a time")
			}
			what := "the shares open, and what they restore"
			if typed || len(args) > 0 {
				var pass []byte
				_, pass, err = a.joinShares(cmd.Context(), d, args)
				clear(pass)
			} else if a.keyInAgent() {
				what = a.keyFile + " signs, and"
				err = a.drillAgentKey(cmd.Context(), d)
			} else {
				what = a.keyPath() + " opens, and"
				_, err = a.checkedRootKey(cmd.Context(), d)
				a.warnLeftovers(a.keyPath())
			}
			if err != nil {
				return err
			}
			if !typed && len(args) == 0 && isSameFile(a.keyPath(), d.DefaultKeyFile()) {
				a.printMessage("%s is the root key of %s.\nThis is the key in the node's directory itself, and not a backup, so no drill is noted: name the\nfile of the backup with --key, or give shares.", what, d.Identity())
				return nil
			}
			a.printMessage("The backup is good: %s is the root key of %s.", what, d.Identity())
			if err := d.RecordDrill(cmd.Context(), time.Now()); errors.Is(err, fs.ErrNotExist) {
				a.printMessage("The date of this drill is not noted: the rest of the node's directory is not here.")
			} else if err != nil {
				// The drill does not need to write to the directory, which may be on a
				// read-only disk or belong to another user.
				a.warn("The date of this drill could not be noted (%v): \"peerlink check\" will not count it.", err)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&typed, "type", false, "ask for shares on the terminal, line by line")
	return a.keyFlags(c)
}
