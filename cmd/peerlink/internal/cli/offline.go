package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
	"peerlink/internal/terminal"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/offline"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

func (a *app) requestCommand() *cobra.Command {
	c := group("request", "On the online machine: collect what waits for the offline root key, file the answer",
		a.requestNewCommand(), a.requestFileCommand(), a.requestListCommand(), a.requestForgetCommand())
	c.Long = `For a root key that is never on a machine with a network. What needs it is
collected into one file on the online machine, signed in one sitting on the
offline one, and filed when it is back:

  peerlink request new /media/stick/request.json --csr server.csr --peer bob.zip --bundle me.zip
  peerlink fulfil /media/stick/request.json /media/stick/answer.json   # offline
  peerlink request file /media/stick/answer.json

Neither file holds a secret. See docs/offline.md for a whole session.`
	return c
}

// requestFlags are the flags of "peerlink request new".
type requestFlags struct {
	csrs, peers []string // paths of certificate signing requests, and of info-bundles of peers
	replace     []string // PEER=FILE: peers, and the info-bundles of the nodes that take their places
	subnet      string   // keep or new, for the nodes in replace
	bundle      string   // path of this node's new info-bundle; "" for none
	days        int      // validity of server certificates
	trust       trustFlags
}

func (a *app) requestNewCommand() *cobra.Command {
	var f requestFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "new REQUEST",
		Short: "Collect what waits for the root key into one file",
		Long: `Checks everything that is asked for, reserves serial numbers and subnets for it,
and writes one file for the machine with the root key. Certificates for --csr
FILE.csr will be filed as FILE.crt.

--replace PEER=FILE.zip asks for what "peerlink peer replace PEER FILE.zip" does on
a machine with the root key: the node in the file takes the place of a peer whose
owner has lost the root key, once the answer is filed. An accounting authority
says with --subnet whether the node gets the peer's subnet, and so its accounts.

--fingerprint is for one info-bundle: with several, type the fingerprints on a
terminal, or make several requests.`,
		Example: `  peerlink request new /media/stick/request.json --csr server.csr --peer bob.zip --bundle me.zip
  peerlink request new /media/stick/request.json --replace 1234abcd=new-node.zip --fingerprint 'aardvark adroitness …'`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			if err := checkCreatable(args[0]); err != nil {
				return err
			}
			if err := checkDistinct(append([]string{args[0]}, f.outputs()...)...); err != nil {
				return err
			}
			requested, err := a.readRequested(cmd.Context(), d, f)
			if err != nil {
				return err
			}
			r, err := offline.Collect(cmd.Context(), d, requested, time.Now())
			if err != nil {
				return err
			}
			if err := durable.Create(args[0], r.Encode(), 0o644); err != nil {
				return errors.Join(err, offline.Forget(cmd.Context(), d, r.ID))
			}
			if err := a.result(asJSON, madeOfflineRequest{args[0], r.ID, r.Summary()}, args[0]); err != nil {
				return err
			}
			a.showItems(r)
			if f.bundle != "" {
				a.warnExcluded(d)
			}
			a.printMessage("\nTake this file to the machine with the root key: \"peerlink fulfil\".")
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().StringArrayVar(&f.csrs, "csr", nil, "certificate signing request `FILE` of a server, from \"peerlink server-cert request\" (repeat for several)")
	c.Flags().IntVar(&f.days, "days", defaultDays, "how many days the server certificates are valid")
	c.Flags().StringArrayVar(&f.peers, "peer", nil, "info-bundle `FILE` of a node that shall become a peer (repeat for several)")
	c.Flags().StringArrayVar(&f.replace, "replace", nil, "`PEER=FILE`: a peer that has lost its root key, and the info-bundle of the node that takes its place (repeat for several)")
	c.Flags().StringVar(&f.subnet, "subnet", "", "of the nodes in --replace, at an accounting authority: keep, or `new`")
	c.Flags().StringVar(&f.bundle, "bundle", "", "make this node's own info-bundle, as `FILE`")
	f.trust.add(c)
	return c
}

// outputs returns the paths of the files that will be made when the answer is filed.
func (f requestFlags) outputs() []string {
	var paths []string
	for _, csr := range f.csrs {
		paths = append(paths, certificatePath(csr))
	}
	if f.bundle != "" {
		paths = append(paths, f.bundle)
	}
	return paths
}

// readRequested reads and checks the files that the flags name, and returns what the flags request:
// at least one item. For each peer, it asks the operator to confirm the root key if necessary.
func (a *app) readRequested(ctx context.Context, d *node.Dir, f requestFlags) ([]offline.Requested, error) {
	if n := len(f.peers) + len(f.replace); n > 1 && f.trust.fingerprint != "" {
		return nil, usagef("--fingerprint is for one info-bundle, and there are %d: make a request for each (several may wait), or leave --fingerprint out and type the fingerprints on a terminal, which asks for each that is needed", n)
	}
	var requested []offline.Requested
	for _, path := range f.csrs {
		data, err := readText(ctx, path, maxInputFile)
		if err != nil {
			return nil, err
		}
		if _, err := pki.ParseCSRPEM(data); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		requested = append(requested, offline.ServerCert{CSR: data, Days: f.days, File: certificatePath(path)})
	}
	for _, path := range f.peers {
		data, b, err := a.readTrusted(ctx, path, f.trust)
		if err != nil {
			return nil, err
		}
		if err := a.confirmRootKey(ctx, b, f.trust); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		requested = append(requested, offline.PeerCert{Bundle: data})
	}
	if f.subnet != "" && len(f.replace) == 0 {
		return nil, usagef("--subnet is for --replace")
	}
	for _, what := range f.replace {
		item, err := a.readReplacement(ctx, d, what, f)
		if err != nil {
			return nil, err
		}
		requested = append(requested, item)
	}
	if f.bundle != "" {
		requested = append(requested, offline.InfoBundle{File: f.bundle})
	}
	if len(requested) == 0 {
		return nil, usagef("nothing is asked for: give --csr, --peer, --replace or --bundle")
	}
	return requested, nil
}

// readTrusted reads an info-bundle, and compares it with the flags that confirm its root key.
func (a *app) readTrusted(ctx context.Context, path string, t trustFlags) ([]byte, *infobundle.Bundle, error) {
	data, err := readBounded(ctx, path, infobundle.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	b, err := parseBundle(path, data)
	if err != nil {
		return nil, nil, err
	}
	if err := a.checkTrust(ctx, b, t); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, b, nil
}

// readReplacement returns the replacement that a value of --replace requests, after the new root key has
// been confirmed.
func (a *app) readReplacement(ctx context.Context, d *node.Dir, what string, f requestFlags) (item offline.Replacement, err error) {
	peer, path, ok := strings.Cut(what, "=")
	if !ok || peer == "" || path == "" {
		return item, usagef("--replace %q: expected PEER=FILE, a peer and the info-bundle of the node that takes its place", what)
	}
	data, b, err := a.readTrusted(ctx, path, f.trust)
	if err != nil {
		return item, err
	}
	r := node.Replacement{Bundle: b}
	if r.Peer, err = findReplaced(d, peer); err != nil {
		return item, err
	}
	if r.KeepSubnet, err = a.keepSubnet(ctx, d, r.Peer, f.subnet); err != nil {
		return item, err
	}
	if err := d.CheckReplacement(r); err != nil {
		return item, fmt.Errorf("%s: %w", path, err)
	}
	if err := a.confirmSuccessor(ctx, r, f.trust); err != nil {
		return item, fmt.Errorf("%s: %w", path, err)
	}
	return offline.Replacement{Peer: r.Peer, Bundle: data, KeepSubnet: r.KeepSubnet}, nil
}

// certificatePath returns the name of the file for the certificate that is signed for the request in
// the file csrPath.
func certificatePath(csrPath string) string { return strings.TrimSuffix(csrPath, ".csr") + ".crt" }

// showItems prints the items of a request.
func (a *app) showItems(r *offline.Request) {
	a.printMessage("Request %.8s of %s, made %s:", r.ID, r.Node, r.Created.Local().Format("2006-01-02 15:04"))
	for i, item := range r.Summary() {
		a.printMessage("  %d. %s", i+1, terminal.Line(item.String()))
	}
}

// showChanges prints how an info-bundle that is going to be signed differs from an earlier state; since
// describes that state. If since is "", there is no earlier state, and nothing is printed.
func (a *app) showChanges(since string, changes []offline.Change) {
	switch {
	case since == "":
	case len(changes) == 0:
		a.printMessage("The info-bundle says the same as %s.", since)
	default:
		a.printMessage("What the info-bundle says differs from %s:", since)
		for _, c := range changes {
			a.printMessage("  - %s", terminal.Line(c.String()))
		}
	}
}

func (a *app) requestFileCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "file ANSWER",
		Short: "Check the answer that came back, and put everything in its place",
		Args:  someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			data, err := readText(cmd.Context(), args[0], offline.MaxSize)
			if err != nil {
				return err
			}
			answer, err := offline.ReadAnswer(data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			done, fileErr := offline.File(cmd.Context(), d, answer, time.Now())
			if asJSON {
				err = a.json(done)
			} else {
				for _, item := range done {
					a.print("%s: %s", terminal.Line(item.Path), item.State)
				}
				if len(done) == 0 && fileErr == nil {
					a.printMessage("This answer was filed before: nothing to do.")
				}
				for _, item := range done {
					if item.State != offline.Failed {
						a.showFiled(item)
					}
				}
			}
			return errors.Join(fileErr, err, a.updateReplaced(d, done))
		},
	}
	jsonFlag(c, &asJSON)
	a.kustomizeFlag(c)
	return c
}

// showFiled says what to do with an item that was filed.
func (a *app) showFiled(item offline.FiledItem) {
	switch item.Kind {
	case offline.KindPeerCert:
		a.printMessage("Send %s to the owner of %s %s.", item.Path, item.Type, item.ID)
	case offline.KindReplacement:
		a.printMessage("%s %s has taken the place of %s. Send %s, and your info-bundle, to its owner, and register\nthe certificate that they send you (\"peerlink peer register\"): until then there is no traffic.", item.Type, item.ID, item.Replaces, item.Path)
	}
}

// updateReplaced updates the Kustomize files of the agents that were replaced.
func (a *app) updateReplaced(d *node.Dir, done []offline.FiledItem) error {
	var errs []error
	for _, item := range done {
		if item.Kind == offline.KindReplacement && item.State != offline.Failed && item.Replaces != item.ID {
			errs = append(errs, a.updateKustomizeOf(d, item.Replaces))
		}
	}
	return errors.Join(errs...)
}

func (a *app) requestListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the requests that wait for an answer",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			waiting, err := offline.WaitingRequests(d, time.Now())
			if asJSON {
				return errors.Join(err, a.json(waitingRequests(waiting)))
			}
			for _, r := range waiting {
				a.print("%s", r.ID)
				a.showItems(r)
			}
			if len(waiting) == 0 && err == nil {
				a.printMessage("No request is waiting.")
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// madeOfflineRequest is a new request for the offline machine, in JSON.
type madeOfflineRequest struct {
	File  string         `json:"file"`
	ID    string         `json:"id"`
	Items []offline.Item `json:"items"`
}

// waitingRequest is a request that waits for an answer, in JSON.
type waitingRequest struct {
	ID      string         `json:"id"`
	Created time.Time      `json:"created"`
	Items   []offline.Item `json:"items"`
}

func waitingRequests(waiting []*offline.Request) []waitingRequest {
	list := make([]waitingRequest, 0, len(waiting))
	for _, r := range waiting {
		list = append(list, waitingRequest{r.ID, r.Created.UTC(), r.Summary()})
	}
	return list
}

func (a *app) requestForgetCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "forget ID",
		Short: "Drop a request: no answer to it can be filed any more",
		Long: `Drops a request that waits for an answer: no answer to it can be filed any more.
On a terminal it asks first, unless there is --yes.`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			if !yes && isTerminal(a.stdin) {
				question := fmt.Sprintf("Drop the request %s, so that no answer to it can be filed any more?", args[0])
				if err := a.confirm(cmd.Context(), question, "the request is kept"); err != nil {
					return err
				}
			}
			if err := offline.Forget(cmd.Context(), d, args[0]); err != nil {
				return err
			}
			if d.Identity().Type == nodetype.AccountingAuthority {
				a.printMessage("If the machine with the root key has signed this request, copy %s from there to the\nsame place here: that file names the subnets that are in the signed certificates.", node.RequestsFolder+"/"+signrecord.Name)
			}
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}
