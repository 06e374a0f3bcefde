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
	var id, list string
	var servers []string
	var keyType string
	var asJSON, bare bool
	c := &cobra.Command{
		Use:   "init accounting-authority|creditors-agent|debtors-agent",
		Short: "Make a new node: root key, root certificate, directory",
		Long: `Makes a new node in the node's directory (--dir, by default the current folder):
a root key (encrypted with a passphrase), a self-signed root
certificate, and the files that everything else builds on. The directory can be
used with the reference scripts and OpenSSL too.

Beside the directory, with names that begin with its name, it makes the first server
key, its certificate, which is valid for a year, and the info-bundle for the owners
of other nodes: my-node-server.key, my-node-server.crt, my-node-bundle.zip. With
--bare it does not. An init that was interrupted is completed by the same command.

In the directory of an existing node, "peerlink init" without a type repairs what
can be repaired without the root key: records that are missing, a lost
root-ca.crt or peercert.crt of which the directory has a copy, subnets that
nobody uses, leftovers of interrupted commands.

An existing encrypted root key (private/root-ca.key, or --key) is used instead
of making a new one, and so is a key in ssh-agent (--key agent:SHA256:…); if --key names a file that does not exist, the new root key
is made there. What is missing on the command line is asked for on a
terminal.`,
		Example: `  peerlink init accounting-authority --id 1234abcd --server stomp.example.com:1234
  peerlink init accounting-authority --id random --list https://example.org/authorities --server stomp.example.com:1234
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
			return a.initNode(cmd.Context(), initFlags{typeName, id, list, keyType, servers, bare, asJSON})
		},
	}
	c.Flags().StringVar(&id, "id", "", "node ID of an accounting authority: 8 lowercase hex digits, the top of its debtor IDs, or random, for one from 10000000 to 1000ffff")
	c.Flags().StringVar(&list, "list", "", "a list of accounting authorities, `FILE or URL`, in any form: the ID must be none of the IDs in it")
	c.Flags().StringArrayVar(&servers, "server", nil, "`HOST:PORT` where peers reach this node; repeat for several servers")
	c.Flags().StringVar(&keyType, "key-type", pki.RSA3072.String(), "kind of the new root key: rsa3072, rsa4096, p256 or p384")
	c.Flags().BoolVar(&bare, "bare", false, "make no server key, server certificate and info-bundle")
	jsonFlag(c, &asJSON)
	return a.keyFlags(c)
}

// initFlags are the arguments and flags of "init".
type initFlags struct {
	typeName, id, list, keyType string
	servers                     []string
	bare, json                  bool
}

func (a *app) initNode(ctx context.Context, f initFlags) error {
	keyKind, err := pki.ParseKeyKind(f.keyType)
	if err != nil {
		return &usageError{"--key-type: " + err.Error()}
	}
	if err := node.CheckNoNode(a.dir); err != nil {
		if d := a.unfinishedNode(f); d != nil {
			return a.resumeInit(ctx, d, f)
		}
		return err
	}
	if err := guard.CheckFolder(a.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's directory: %w", err)
	}
	// Checked for root too: the owner of the directory could replace the node's files.
	if err := guard.CheckOwner(a.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the node's directory: %w", err)
	}
	if err := node.CheckInitFolder(a.dir); err != nil {
		return fmt.Errorf("the node's directory: %w", err)
	}
	o, err := a.initOptions(ctx, f)
	if err != nil {
		return err
	}
	restorable, err := node.RootRestorable(a.dir)
	if restorable && !a.keyInAgent() {
		if _, statErr := os.Stat(a.keyPath()); statErr != nil {
			return err // a new root key would not match the root certificate
		}
	}
	if !f.bare && !node.HasRecords(a.dir) {
		if err := filesBeside(a.dir).checkCreatable(); err != nil {
			return err
		}
	}
	if o.Key, err = a.initKey(ctx, keyKind); err != nil {
		return err
	}
	d, err := node.Init(ctx, a.dir, o)
	if err != nil {
		return err
	}
	return a.finishInit(ctx, d, o.Key, f)
}

// initOptions returns the type, the ID and the servers of the new node. It asks on a terminal for those
// that are not given.
func (a *app) initOptions(ctx context.Context, f initFlags) (o node.InitOptions, err error) {
	if f.typeName == "" {
		checkType := func(answer string) error { _, err := nodetype.Parse(answer); return err }
		if f.typeName, err = a.ask(ctx, "Type of the node (accounting-authority, creditors-agent or debtors-agent)", checkType); err != nil {
			return o, err
		}
	}
	o = node.InitOptions{ID: f.id, Servers: f.servers, Unfinished: !f.bare}
	if o.Type, err = nodetype.Parse(f.typeName); err != nil {
		return o, &usageError{err.Error()}
	}
	switch {
	case o.Type.IDDerived() && o.ID != "":
		return o, usagef("the ID of a %s is derived from its root key: leave out --id", o.Type)
	case !o.Type.IDDerived() && o.ID == "":
		if o.ID, err = a.ask(ctx, "Node ID: 8 lowercase hex digits, the top of the debtor IDs it manages, for example 1234abcd, or random", checkChosenID); err != nil {
			return o, err
		}
	}
	if o.ID, err = a.chooseID(ctx, o, f.list); err != nil {
		return o, err
	}
	if len(o.Servers) == 0 {
		s, err := a.ask(ctx, "Address where peers reach this node's server, for example stomp.example.com:1234 (can be changed later)", node.CheckServer)
		if err != nil {
			return o, err
		}
		o.Servers = []string{s}
	}
	for _, s := range o.Servers {
		if err := node.CheckServer(s); err != nil {
			return o, &usageError{err.Error()}
		}
	}
	return o, nil
}

// initResult is the node that "init" has made or repaired, in JSON.
type initResult struct {
	ID          string   `json:"id"`
	Type        string   `json:"type"`
	Fingerprint string   `json:"fingerprint"`
	Words       string   `json:"fingerprint_words"`
	RootKey     string   `json:"root_key,omitempty"` // the file of the root key of a new node, or agent:SHA256:…
	ServerKey   string   `json:"server_key,omitempty"`
	ServerCert  string   `json:"server_cert,omitempty"`
	InfoBundle  string   `json:"info_bundle,omitempty"`
	Repaired    []string `json:"repaired"` // what was done in an existing directory
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
		r := initResult{ID: d.Identity().ID, Type: d.Identity().Type.String(), Fingerprint: pki.Fingerprint(d.Root().PublicKey), Words: fingerprintWords(d.Root().PublicKey)}
		r.Repaired = append(append([]string{}, restored...), repaired...)
		err = errors.Join(err, a.json(r))
	}
	if err == nil {
		err = d.CheckRootDates(time.Now()) // which no repair can change
	}
	if unfinished, _ := d.InitUnfinished(); err == nil && unfinished && !asJSON {
		return true, a.resumeOrTell(ctx, d)
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
