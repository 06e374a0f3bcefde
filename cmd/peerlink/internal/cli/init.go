package cli

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/terminal"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

func (a *app) initCommand() *cobra.Command {
	var id string
	var servers []string
	var keyType string
	var asJSON bool
	c := &cobra.Command{
		Use:   "init accounting-authority|creditors-agent|debtors-agent",
		Short: "Make a new node: root key, root certificate, directory",
		Long: `Makes a new node in the node's directory (--dir, by default the current folder):
a root key (encrypted with a passphrase), a self-signed root
certificate, and the files that everything else builds on. The directory can be
used with the reference scripts and OpenSSL too.

In the directory of an existing node, "peerlink init" without a type repairs what
can be repaired without the root key: records that are missing, a lost
root-ca.crt or peercert.crt of which the directory has a copy, subnets that
nobody uses, leftovers of interrupted commands.

An existing encrypted root key (private/root-ca.key, or --key) is used instead
of making a new one, and so is a key in ssh-agent (--key agent:SHA256:…); if --key names a file that does not exist, the new root key
is made there. What is missing on the command line is asked for on a
terminal.`,
		Example: `  peerlink init accounting-authority --id 1234abcd --server stomp.example.com:1234
  peerlink -C my-node init creditors-agent --server stomp.example.org:1234
  peerlink -C my-node init     # repairs an existing node's directory`,
		Args:      someArgs(0, 1),
		ValidArgs: []string{"accounting-authority", "creditors-agent", "debtors-agent"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if done, err := a.repair(cmd.Context(), asJSON); done {
					return err
				}
			}
			typeName := ""
			if len(args) == 1 {
				typeName = args[0]
			}
			return a.initNode(cmd.Context(), typeName, id, keyType, servers, asJSON)
		},
	}
	c.Flags().StringVar(&id, "id", "", "node ID of an accounting authority: 8 lowercase hex digits, the top of its debtor IDs")
	c.Flags().StringArrayVar(&servers, "server", nil, "`HOST:PORT` where peers reach this node; repeat for several servers")
	c.Flags().StringVar(&keyType, "key-type", pki.RSA3072.String(), "kind of the new root key: rsa3072, rsa4096, p256 or p384")
	jsonFlag(c, &asJSON)
	return a.keyFlags(c)
}

func (a *app) initNode(ctx context.Context, typeName, id, keyType string, servers []string, asJSON bool) error {
	keyKind, err := pki.ParseKeyKind(keyType)
	if err != nil {
		return &usageError{"--key-type: " + err.Error()}
	}
	if err := node.CheckNoNode(a.dir); err != nil {
		return err
	}
	if err := guard.CheckFolder(a.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's directory: %w", err)
	}
	// Checked for root too: the owner of the directory could replace the node's files.
	if err := guard.CheckOwner(a.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's directory: %w", err)
	}
	if typeName == "" {
		checkType := func(answer string) error { _, err := nodetype.Parse(answer); return err }
		if typeName, err = a.ask(ctx, "Type of the node (accounting-authority, creditors-agent or debtors-agent)", checkType); err != nil {
			return err
		}
	}
	t, err := nodetype.Parse(typeName)
	if err != nil {
		return &usageError{err.Error()}
	}
	switch {
	case t.IDDerived() && id != "":
		return usagef("the ID of a %s is derived from its root key: leave out --id", t)
	case !t.IDDerived() && id == "":
		if id, err = a.ask(ctx, "Node ID: 8 lowercase hex digits, the top of the debtor IDs it manages, for example 1234abcd", node.CheckID); err != nil {
			return err
		}
	}
	if !t.IDDerived() {
		if err := node.CheckID(id); err != nil {
			return &usageError{err.Error()}
		}
	}
	if len(servers) == 0 {
		s, err := a.ask(ctx, "Address where peers reach this node's server, for example stomp.example.com:1234 (can be changed later)", node.CheckServer)
		if err != nil {
			return err
		}
		servers = []string{s}
	}
	for _, s := range servers {
		if err := node.CheckServer(s); err != nil {
			return &usageError{err.Error()}
		}
	}
	if restorable, err := node.RootRestorable(a.dir); restorable && !a.keyInAgent() {
		if _, statErr := os.Stat(a.keyPath()); statErr != nil {
			return err // a new root key would not match the root certificate
		}
	}
	key, err := a.initKey(ctx, keyKind)
	if err != nil {
		return err
	}
	d, err := node.Init(ctx, a.dir, node.InitOptions{Type: t, ID: id, Servers: servers, Key: key})
	if err != nil {
		return err
	}
	made := initResult{d.Identity().ID, t.String(), pki.Fingerprint(key.Public()), a.keyPath(), []string{}}
	if err := a.result(asJSON, made, made.ID); err != nil {
		return err
	}
	backup := "Back up the root key file now, and its passphrase elsewhere: without both there are no\n" +
		"new peers and no new server certificates, ever."
	if a.keyInAgent() {
		backup = "Be sure that there is a second copy of this key: without it there are no new peers and no\n" +
			"new server certificates, ever. Every command that signs needs --key with it."
	}
	a.printMessage("This is the node ID of your %s.\n\n"+
		"  root key          %s\n"+
		"  fingerprint       %s\n\n%s\n"+
		"Next: \"peerlink server-cert issue\" and \"peerlink bundle create\".",
		t, made.RootKey, made.Fingerprint, backup)
	return nil
}

// initResult is the node that "init" has made or repaired, in JSON.
type initResult struct {
	ID          string   `json:"id"`
	Type        string   `json:"type"`
	Fingerprint string   `json:"fingerprint"`
	RootKey     string   `json:"root_key,omitempty"` // the file of the root key of a new node, or agent:SHA256:…
	Repaired    []string `json:"repaired"`           // what was done in an existing directory
}

// repair repairs an existing node's directory. It returns false if no node can be opened there, and
// nothing failed before.
func (a *app) repair(ctx context.Context, asJSON bool) (done bool, err error) {
	show := func(list []string) {
		for _, what := range list {
			if !asJSON {
				a.print("%s", terminal.Line(what))
			}
		}
	}
	restored, err := node.Restore(ctx, a.dir)
	show(restored)
	if err != nil {
		return true, err
	}
	d, err := a.open()
	if err != nil {
		return false, nil // initNode reports it
	}
	repaired, err := d.Repair(ctx)
	show(repaired)
	if asJSON {
		r := initResult{ID: d.Identity().ID, Type: d.Identity().Type.String(), Fingerprint: pki.Fingerprint(d.Root().PublicKey)}
		r.Repaired = append(append([]string{}, restored...), repaired...)
		err = errors.Join(err, a.json(r))
	}
	if err == nil {
		err = d.CheckRootDates(time.Now()) // which no repair can change
	}
	if err == nil && len(restored)+len(repaired) == 0 {
		a.printMessage("%s is complete, nothing needed repair. \"peerlink check\" looks at everything.", d.Identity())
	}
	return true, err
}

// warnUsedKey warns that a root key that existed before may belong to a node, unless the root certificate for it is restored.
func (a *app) warnUsedKey(key string) {
	if restorable, _ := node.RootRestorable(a.dir); !restorable {
		a.warn("The root key %s existed before. If it is the key of a node already, end this with Ctrl-C, or do not use the result: the node's peers have its present\nroot certificate on record, and refuse the new one that is made now. Put the node's directory back from a backup instead.", key)
	}
}

// initKey decrypts the existing root key, or makes a new one.
func (a *app) initKey(ctx context.Context, kind pki.KeyKind) (crypto.Signer, error) {
	path := a.keyPath()
	if a.keyInAgent() {
		a.warnUsedKey(path)
		return a.agentKey(ctx)
	}
	if _, err := os.Stat(path); err == nil {
		a.warnUsedKey(path)
		a.printMessage("Using the root key that is there: %s", path)
		key, pass, err := a.rootKeyAndPassphrase(ctx)
		clear(pass)
		if err == nil && pass == nil {
			a.warn("The root key %s is not encrypted: anybody who gets this file can act as this node.\nGive it a passphrase with \"peerlink key passphrase --key FILE\", and destroy every copy of it as it is now.", path)
		}
		return key, err
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if _, err := durable.Target(path); err != nil {
		return nil, err
	}
	if a.keyFile != "" {
		a.printMessage("There is no root key at %s: a new one is made there.", path)
	}
	pass, err := a.newPassphrase(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	a.printMessage("Generating the root key…")
	key, err := a.makeKeyFile(path, kind, pass)
	if err != nil {
		return nil, err
	}
	a.warnExposed(path)
	return key, nil
}

// makeKeyFile makes a new root key, and writes it to a new file, encrypted with the passphrase.
func (a *app) makeKeyFile(path string, kind pki.KeyKind, pass []byte) (crypto.Signer, error) {
	stop := a.working("Generating the root key")
	key, err := pki.GenerateKey(kind)
	stop()
	if err != nil {
		return nil, err
	}
	return key, a.storeKey(node.WriteKeyFile, path, key, pass)
}
