package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/shell"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// initFiles are the files that "init" makes beside the node's directory, and that "serve" finds there.
type initFiles struct{ key, cert, bundle string }

// filesBeside returns the files beside a node's directory. Their names begin with that of the
// directory. They are empty if there is nothing beside it, because it is the root of the file system.
func filesBeside(dir string) initFiles {
	path, err := filepath.Abs(dir)
	if err != nil || filepath.Dir(path) == path {
		return initFiles{}
	}
	return initFiles{path + "-server.key", path + "-server.crt", node.BundleBeside(dir)}
}

// checkCreatable checks, before anybody types a passphrase, that the files can be made.
func (f initFiles) checkCreatable() error {
	err := errors.New("there is nothing beside the root of the file system")
	if f.key != "" {
		if _, statErr := os.Stat(filepath.Dir(f.key)); errors.Is(statErr, fs.ErrNotExist) {
			return nil // it is made with the node's directory
		}
		err = checkCreatable(f.key, f.cert, f.bundle)
	}
	if err != nil {
		return fmt.Errorf("the server key and the info-bundle, which are made beside the node's directory: %w; with --bare they are not made", err)
	}
	return nil
}

// removeLeftovers removes the incomplete files that an interrupted init has left.
func (f initFiles) removeLeftovers() error {
	for _, path := range []string{f.key, f.cert, f.bundle} {
		left, err := durable.Leftovers(path)
		for _, name := range left {
			err = errors.Join(err, os.Remove(name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unfinishedNode returns the node in the directory if it is the one that the flags describe, and its
// init was interrupted, or nil.
func (a *app) unfinishedNode(f initFlags) *node.Dir {
	d, err := a.open()
	if err != nil {
		return nil
	}
	unfinished, err := d.InitUnfinished()
	if err != nil || !unfinished {
		return nil
	}
	own := d.Identity()
	if t, err := nodetype.Parse(f.typeName); f.typeName != "" && (err != nil || t != own.Type) {
		return nil
	}
	if f.id != "" && f.id != randomID && f.id != own.ID {
		return nil
	}
	return d
}

// resumeInit completes an init that was interrupted after the root certificate had been made.
func (a *app) resumeInit(ctx context.Context, d *node.Dir, f initFlags) error {
	a.printMessage("Completing the init of %s, which was interrupted.", d.Identity())
	var key crypto.Signer
	if !f.bare {
		var err error
		if key, err = a.checkedRootKey(ctx, d); err != nil {
			return err
		}
	}
	return a.finishInit(ctx, d, key, f)
}

// resumeOrTell completes an interrupted init if the passphrase is given, or can be asked for, and
// otherwise says that it is incomplete: a repair needs no root key.
func (a *app) resumeOrTell(ctx context.Context, d *node.Dir) error {
	if a.passphraseFile == "" && !a.keyInAgent() && !isTerminal(a.stdin) {
		a.printMessage("The first server certificate and info-bundle of %s are missing, because its init was interrupted:\n\"peerlink init\" makes them if it has the root key and the passphrase (--passphrase-file).", d.Identity())
		return nil
	}
	return a.resumeInit(ctx, d, initFlags{})
}

// finishInit makes the files beside the directory of a new node, unless there is --bare, and says what
// was made and what to do next. key may be nil with --bare.
func (a *app) finishInit(ctx context.Context, d *node.Dir, key crypto.Signer, f initFlags) error {
	made := initResult{ID: d.Identity().ID, Type: d.Identity().Type.String(), Fingerprint: pki.Fingerprint(d.Root().PublicKey), Words: fingerprintWords(d.Root().PublicKey), RootKey: a.keyPath(), Repaired: []string{}}
	if !f.bare {
		files := filesBeside(a.dir)
		if err := a.makeFirstFiles(ctx, d, key, files); err != nil {
			return fmt.Errorf("%w; the node was made: the same \"peerlink init\" command as before makes the rest", err)
		}
		made.ServerKey, made.ServerCert, made.InfoBundle = files.key, files.cert, files.bundle
	}
	if err := d.FinishInit(); err != nil {
		return err
	}
	if err := a.result(f.json, made, made.ID); err != nil {
		return err
	}
	a.showInit(d, made)
	return nil
}

// makeFirstFiles makes those of the files that an earlier, interrupted init has not made.
func (a *app) makeFirstFiles(ctx context.Context, d *node.Dir, key crypto.Signer, files initFiles) error {
	if err := files.removeLeftovers(); err != nil {
		return err
	}
	if err := a.makeFirstServerCert(ctx, d, key, files); err != nil {
		return err
	}
	if err := durable.CheckAbsent(files.bundle); err != nil {
		_, err := readBundle(ctx, files.bundle)
		return err // an earlier init has made it
	}
	return d.CreateBundle(ctx, files.bundle, key)
}

// makeFirstServerCert makes the first server key and its certificate.
func (a *app) makeFirstServerCert(ctx context.Context, d *node.Dir, root crypto.Signer, files initFiles) error {
	if certErr := durable.CheckAbsent(files.cert); certErr != nil {
		return checkFirstServerCert(ctx, d, files) // an earlier init has made both
	}
	if keyErr := durable.CheckAbsent(files.key); keyErr != nil {
		_, csr, err := serverKeyCSR(ctx, d, files.key, nil)
		if err != nil {
			return err
		}
		_, err = a.makeServerCert(ctx, d, root, csr, defaultDays, files.cert)
		return err
	}
	keyPEM, csr, err := a.newServerKey(d, pki.P256.String())
	if err != nil {
		return err
	}
	if _, err := a.makeServerCert(ctx, d, root, csr, defaultDays, files.cert, output{files.key, keyPEM, 0o600}); err != nil {
		return err
	}
	if err := guard.CheckParentFolder(files.key); err != nil {
		a.warn("the server key: %v", err)
	}
	return nil
}

// checkFirstServerCert checks that existing files are a server certificate of this node and its key.
func checkFirstServerCert(ctx context.Context, d *node.Dir, files initFiles) error {
	data, err := readText(ctx, files.cert, maxInputFile)
	if err != nil {
		return err
	}
	cert, err := pki.ParseCertificatePEM(data)
	if err != nil {
		return fmt.Errorf("%s: %w", files.cert, err)
	}
	if !d.IsServerCert(cert) {
		return fmt.Errorf("%s exists, and is not a server certificate of %s: move it away", files.cert, d.Identity())
	}
	_, _, err = serverKeyCSR(ctx, d, files.key, cert)
	return err
}

// showInit says what an init has made, and what to do next.
func (a *app) showInit(d *node.Dir, made initResult) {
	backup := "Back up the root key file now, and its passphrase elsewhere: without both there are no\n" +
		"new peers and no new server certificates, ever."
	if a.keyInAgent() {
		backup = "Be sure that there is a second copy of this key: without it there are no new peers and no\n" +
			"new server certificates, ever. Every command that signs needs --key with it."
	}
	rows := append([][2]string{{"root key", made.RootKey}}, fingerprintRows(made.Fingerprint, made.Words)...)
	next := "Next: \"peerlink server-cert issue\" and \"peerlink bundle create\"."
	if made.InfoBundle != "" {
		rows = append(rows, [2]string{"server key", made.ServerKey}, [2]string{"certificate", made.ServerCert}, [2]string{"info-bundle", made.InfoBundle})
		next = "Next: send the info-bundle to the owner of the other node, tell them the fingerprint on another\n" +
			"way, its words by telephone for example, and add what they send, an info-bundle, a certificate or a URL:\n\n" +
			"  " + a.commandFor("peer add THEIRS") + "\n\n" +
			"Start the service:\n\n" +
			"  " + a.commandFor("serve")
	}
	a.printMessage("This is the node ID of your %s.\n", made.Type)
	for _, r := range rows {
		a.printMessage("  %-16s  %s", r[0], r[1])
	}
	a.printMessage("\n%s\n%s", backup, next)
}

// commandFor returns a command line for the node's directory.
func (a *app) commandFor(command string) string {
	if a.dir == "." || os.Getenv("PEERLINK_DIR") == a.dir {
		return "peerlink " + command
	}
	return fmt.Sprintf("peerlink -C %s %s", shell.Quote(a.dir), command)
}
