package cli

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/excerpt"
	"peerlink/internal/terminal"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/offline"
	"peerlink/node/pki"
)

func (a *app) bundleCommand() *cobra.Command {
	var createJSON bool
	create := &cobra.Command{
		Use:   "create [FILE.zip]",
		Short: "Write this node's info-bundle, signed with the root key",
		Long: `Writes an info-bundle: the root certificate, and what the nodeinfo folder holds
now, signed with the root key. Hidden files, and those that editors and file
managers leave behind, are left out. Private keys, files with the name of a secret,
core dumps, copies of stomp.toml, and links to files elsewhere are refused. Send
it to the owners of the nodes that shall become peers, and again to the peers when
the address in nodeinfo/stomp.toml changes. Nothing in it is secret.

Without FILE.zip it is the info-bundle beside the node's directory, my-node-bundle.zip
for my-node, as "init" makes it. If an older info-bundle of this node is there, the new
one replaces it, also if FILE.zip is another file. No other file is ever overwritten.`,
		Example: "  peerlink -C my-node bundle create               # writes my-node-bundle.zip\n  peerlink -C my-node bundle create my-node-2.zip",
		Args:    someArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			path, err := a.bundleFile(args)
			if err != nil {
				return err
			}
			if err := d.CheckBundleFile(path); err != nil {
				return err
			}
			key, err := a.keyForBundle(cmd.Context(), d)
			if err != nil {
				return err
			}
			if err := d.CreateBundle(cmd.Context(), path, key); err != nil {
				return err
			}
			made := madeBundle{path, pki.Fingerprint(key.Public()), fingerprintWords(key.Public())}
			if err := a.result(createJSON, made, made.File); err != nil {
				return err
			}
			a.warnExcluded(d)
			a.printMessage("Send this file to the owner of the other node. They should compare the fingerprint\nwith you on another way, by telephone for example:\n\n%s", fingerprintText(key.Public(), "  "))
			return a.remindURLs(cmd.Context(), path)
		},
	}
	jsonFlag(create, &createJSON)
	var asJSON bool
	inspect := &cobra.Command{
		Use:     "inspect FILE.zip",
		Short:   "Check an info-bundle and print what it says",
		Example: "  peerlink bundle inspect their-node.zip",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			stomp, err := node.ParseStompTOML(b.File(infobundle.StompTOML), "${NODE_ID}")
			if err != nil {
				return fmt.Errorf("%s: %w: %w", args[0], infobundle.ErrInvalid, err)
			}
			return a.showBundle(b, stomp, asJSON)
		},
	}
	jsonFlag(inspect, &asJSON)
	return group("bundle", "Make and check info-bundles", a.keyFlags(create), inspect)
}

// bundleFile returns the file of a new info-bundle: the argument or, without one, the file beside the
// node's directory.
func (a *app) bundleFile(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	path := node.BundleBeside(a.dir)
	if path == "" {
		return "", usagef("there is nothing beside the root of the file system: name the file of the info-bundle")
	}
	return path, nil
}

// createBundle returns the command that makes a new info-bundle of the node.
func (a *app) createBundle() string {
	if node.BundleBeside(a.dir) == "" {
		return a.commandFor("bundle create FILE.zip")
	}
	return a.commandFor("bundle create")
}

// warnExcluded prints the files of the nodeinfo folder that are excluded from info-bundles.
func (a *app) warnExcluded(d *node.Dir) {
	if names, err := d.Excluded(); err == nil && len(names) > 0 {
		a.printMessage("Left out, as hidden or left by an editor: %s.", terminal.Line(excerpt.Of(strings.Join(names, ", "))))
	}
}

// keyForBundle decrypts the root key for an info-bundle, and prints what is going to be signed.
func (a *app) keyForBundle(ctx context.Context, d *node.Dir) (crypto.Signer, error) {
	files, err := d.NextNodeinfo(time.Now())
	if err != nil {
		return nil, err
	}
	since, changes, err := offline.ChangesSinceSigned(d, files, time.Now())
	if err != nil {
		return nil, err
	}
	return a.announcedKey(ctx, d, func() {
		a.announceBundle(d, files)
		a.showChanges(since, changes)
	})
}

// announcedKey decrypts the root key, and checks that it is the node's. announce prints what is
// going to be signed. If there is a prompt for the passphrase, announce is called before the
// prompt. Otherwise it is called before the first signature, so that nothing is announced if the
// command fails earlier.
func (a *app) announcedKey(ctx context.Context, d *node.Dir, announce func()) (crypto.Signer, error) {
	_, statErr := os.Stat(a.keyPath())
	prompts := statErr == nil && !a.keyInAgent() && a.passphraseFile == "" && isTerminal(a.stdin)
	if prompts {
		announce()
	}
	key, err := a.checkedRootKey(ctx, d)
	if err != nil || prompts {
		return key, err
	}
	return &announcingKey{key, sync.OnceFunc(announce)}, nil
}

// announcingKey is a key that calls announce before each signature.
type announcingKey struct {
	crypto.Signer
	announce func()
}

func (k *announcingKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.announce()
	return k.Signer.Sign(rand, digest, opts)
}

func (k *announcingKey) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.announce()
	return crypto.SignMessage(k.Signer, rand, message, opts)
}

// announceBundle prints what an info-bundle that is going to be signed contains.
func (a *app) announceBundle(d *node.Dir, files []infobundle.File) {
	var names []string
	servers := "none"
	for _, f := range files {
		names = append(names, f.Name)
		if f.Name != infobundle.StompTOML {
			continue
		}
		if c, err := node.ParseStompTOML(f.Data, d.Identity().ID); err == nil {
			servers = fmt.Sprintf("%s (host %q, destination %q)", strings.Join(c.Servers, ", "), c.Host, c.Destination)
		}
	}
	a.printMessage("Signing what %s tells its peers: servers %s; files %s.", d.Identity(), terminal.Line(servers), terminal.Line(strings.Join(names, ", ")))
}

// remindURLs prints the URLs, if any, from which peers fetch a new info-bundle.
func (a *app) remindURLs(ctx context.Context, path string) error {
	b, err := readBundle(ctx, path)
	if err != nil {
		return err
	}
	stomp, err := node.ParseStompTOML(b.File(infobundle.StompTOML), b.Identity.ID)
	if err != nil {
		return err
	}
	if len(stomp.BundleURLs) > 0 {
		a.printMessage("\nPeers who follow this node look for it here, so put it there too (\"peerlink serve\n--publish\" does so by itself):\n\n  %s", strings.Join(stomp.BundleURLs, "\n  "))
	}
	return nil
}

// readBundle reads and verifies an info-bundle file.
func readBundle(ctx context.Context, path string) (*infobundle.Bundle, error) {
	data, err := readBounded(ctx, path, infobundle.MaxSize)
	if err != nil {
		return nil, err
	}
	return parseBundle(path, data)
}

// madeBundle is a new info-bundle, in JSON.
type madeBundle struct {
	File        string `json:"file"`
	Fingerprint string `json:"fingerprint"` // of the node's root key
	Words       string `json:"fingerprint_words"`
}

// parseBundle verifies an info-bundle that was read from path.
func parseBundle(path string, data []byte) (*infobundle.Bundle, error) {
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func (a *app) showBundle(b *infobundle.Bundle, stomp *node.StompConfig, asJSON bool) error {
	names := make([]string, len(b.Nodeinfo))
	for i, f := range b.Nodeinfo {
		names[i] = f.Name
	}
	if asJSON {
		return a.json(map[string]any{
			"type":              b.Identity.Type.String(),
			"id":                b.Identity.ID,
			"fingerprint":       pki.Fingerprint(b.Root.PublicKey),
			"fingerprint_words": fingerprintWords(b.Root.PublicKey),
			"not_after":         b.Root.NotAfter.UTC(),
			"updated_at":        b.UpdatedAt(),
			"servers":           stomp.Servers,
			"info_bundle_urls":  append([]string{}, stomp.BundleURLs...),
			"nodeinfo":          names,
		})
	}
	rows := [][2]string{
		{"type", b.Identity.Type.String()},
		{"node ID", b.Identity.ID},
	}
	rows = append(rows, fingerprintRows(pki.Fingerprint(b.Root.PublicKey), fingerprintWords(b.Root.PublicKey))...)
	a.table(append(rows, [][2]string{
		{"valid until", b.Root.NotAfter.UTC().Format(time.DateOnly)},
		{"made", orNone(b.UpdatedAt())},
		{"servers", strings.Join(stomp.Servers, ", ")},
		{"bundle URLs", orNone(strings.Join(stomp.BundleURLs, ", "))},
		{"nodeinfo", strings.Join(names, ", ")},
	}...))
	a.printMessage("The bundle is sound: certificates and signatures are right. Whether it really is from the\nnode's owner is for you to find out: compare the fingerprint with them.")
	return nil
}
