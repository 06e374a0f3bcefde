package offline

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// State is the result of filing an item.
type State string

// The states of a filed item.
const (
	filed        State = "filed"   // the item was filed
	alreadyFiled State = "already" // the item was filed earlier, or the node became a peer by other means
	Failed       State = "failed"  // the item can not be filed; Err is the reason
)

// FiledItem is an item with the result of filing it.
type FiledItem struct {
	Item
	State State `json:"state"`
	// Path is the file on this machine: the server certificate, the peer
	// certificate to be sent to the peer's owner, the signing request, or the
	// info-bundle.
	Path    string `json:"path"`
	Problem string `json:"problem,omitempty"` // Err's text
	Err     error  `json:"-"`
}

// File checks the answer to a waiting request and files all items: it records certificates,
// and creates files and peers. The result has the items in the order of [Request.Summary].
// It is empty if the same answer was filed completely before.
//
// File fails if the request is not waiting in this directory, and if the answer does not match
// the request; in both cases nothing has changed. If some items cannot be filed, the others are
// filed, the error joins the errors of the items, and the request remains waiting: the answer can
// be filed again when the cause is removed, or the request can be forgotten.
//
// now is the current time.
func File(ctx context.Context, d *node.Dir, a *Answer, now time.Time) ([]FiledItem, error) {
	return file(ctx, d, a, now, func() error { return nil })
}

// file implements [File]. It calls step before every change, so that a test can interrupt
// it there.
func file(ctx context.Context, d *node.Dir, a *Answer, now time.Time, step func() error) (done []FiledItem, err error) {
	err = d.Locked(ctx, func(l *node.Locked) error {
		filed, err := wasFiled(d, a, step)
		if filed || err != nil {
			return err
		}
		r, err := loadWaiting(d, a.ID, now)
		if err != nil {
			return err
		}
		if err := r.match(a, now); err != nil {
			return err
		}
		f := &filing{ctx: ctx, l: l, d: d, r: r, a: a, step: step}
		if err := f.items(); err != nil {
			done = f.done
			return err
		}
		done = f.done
		var errs []error
		for _, i := range done {
			if i.Err != nil {
				errs = append(errs, fmt.Errorf("%s for %s %s: %w", i.Kind, i.Type, i.ID, i.Err))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return recordFiled(d, a, step)
	})
	return done, err
}

// wasFiled reports whether the answer was filed before. If so, it removes the request, which
// remains after a crash. It fails if another answer to the same request was filed.
func wasFiled(d *node.Dir, a *Answer, step func() error) (bool, error) {
	data, err := durable.Read(requestPath(d, a.ID, filedExt), 1024)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if strings.TrimSpace(string(data)) != a.hash() {
		return false, fmt.Errorf("%w: another answer to the request %s was filed already; the certificates in this answer have the same serial numbers, and should be deleted", errNotWaiting, a.ID)
	}
	return true, removeWaiting(d, a.ID, step)
}

// recordFiled records that the answer was filed, and removes the request.
func recordFiled(d *node.Dir, a *Answer, step func() error) error {
	if err := step(); err != nil {
		return err
	}
	if err := durable.Create(requestPath(d, a.ID, filedExt), []byte(a.hash()+"\n"), 0o644); err != nil {
		return err
	}
	return removeWaiting(d, a.ID, step)
}

func removeWaiting(d *node.Dir, id string, step func() error) error {
	if err := step(); err != nil {
		return err
	}
	if err := os.Remove(requestPath(d, id, waitingExt)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// filing is one call of [File].
type filing struct {
	ctx  context.Context
	l    *node.Locked
	d    *node.Dir
	r    *Request
	a    *Answer
	step func() error
	done []FiledItem
}

// items files the items in order, and adds the results to f.done. The error of an item is in its
// FiledItem; items itself fails only if it is interrupted, or if the info-bundle cannot be made.
func (f *filing) items() error {
	for i, s := range f.r.servers {
		item := FiledItem{Item: f.r.serverItem(s), Path: s.file}
		err := f.item(item, f.certificate(f.a.servers[i]), f.output(s.file, pki.EncodeCertificatePEM(f.a.servers[i]), certificateSignedAgain))
		if err != nil {
			return err
		}
	}
	for i, p := range f.r.peers {
		item := FiledItem{Item: peerItem(p), Path: f.d.IssuedFile(p.bundle.Identity.ID)}
		if p.replaces != nil {
			if err := f.item(item, f.replacement(p, f.a.peers[i])...); err != nil {
				return err
			}
			continue
		}
		ensureSubnet := func() (State, error) {
			err := f.l.EnsureSubnet(f.ctx, p.bundle.Identity, p.subnet)
			if errors.Is(err, node.ErrSubnetTaken) {
				err = fmt.Errorf("%w; this certificate is not filed, and must not be used: drop the request (\"peerlink request forget %s\", which keeps the items that are filed), and ask for a certificate with another subnet (\"peerlink request new\")", err, f.r.ID)
			}
			return filed, err
		}
		err := f.item(item, ensureSubnet, f.certificate(f.a.peers[i]), func() (State, error) {
			added, err := f.l.FilePeer(f.ctx, p.bundle, f.a.peers[i], p.subnet)
			if added {
				return filed, err
			}
			return alreadyFiled, err
		})
		if err != nil {
			return err
		}
	}
	if f.a.rootCSR != nil {
		item := FiledItem{Item: f.r.csrItem(), Path: f.l.RootCSRPath()}
		err := f.item(item, func() (State, error) {
			created, err := f.l.FileRootCSR(f.a.rootCSR)
			if created {
				return filed, err
			}
			return alreadyFiled, err
		})
		if err != nil {
			return err
		}
	}
	if f.r.info == nil {
		return nil
	}
	rootPEM, err := f.l.RootPEM()
	if err != nil {
		return err
	}
	bundle, err := f.r.assemble(f.a, rootPEM)
	if err != nil {
		return err
	}
	date := func() (State, error) { return filed, f.l.AdvanceDate(f.r.info.date) }
	publish := func() (State, error) { return filed, f.l.PublishBundle(bundle) }
	return f.item(FiledItem{Item: f.r.infoItem(), Path: f.r.info.file}, date, publish, f.output(f.r.info.file, bundle, bundleSignedAgain))
}

// replacement returns the changes that file a replacement.
func (f *filing) replacement(p peerCert, cert *x509.Certificate) []func() (State, error) {
	done := false
	check := func() (State, error) {
		var err error
		done, err = f.l.CheckReplacementFiling(f.ctx, p.replacement(), p.replaces.root, p.subnet)
		if err != nil {
			err = fmt.Errorf("%w; this certificate is not filed, and must not be used", err)
		}
		return alreadyFiled, err
	}
	record := func() (State, error) {
		if done {
			return alreadyFiled, nil
		}
		return filed, f.l.FileCertificate(cert)
	}
	replace := func() (State, error) {
		if done {
			return alreadyFiled, nil
		}
		added, err := f.l.FileReplacement(f.ctx, p.replacement(), cert, p.subnet)
		if added {
			return filed, err
		}
		return alreadyFiled, err
	}
	return []func() (State, error){check, record, replace}
}

// item files one item by calling changes in order, until one fails. The last one that it has
// called determines the item's state.
func (f *filing) item(done FiledItem, changes ...func() (State, error)) error {
	for _, change := range changes {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		if err := f.step(); err != nil {
			return err
		}
		if done.State, done.Err = change(); done.Err != nil {
			done.State, done.Problem = Failed, done.Err.Error()
			break
		}
	}
	f.done = append(f.done, done)
	return nil
}

func (f *filing) certificate(cert *x509.Certificate) func() (State, error) {
	return func() (State, error) { return filed, f.l.FileCertificate(cert) }
}

// maxOutput is the maximum size in bytes of a file that is compared with a requested one.
const maxOutput = 1 << 20

// output returns a change that creates a requested file. It never overwrites a file that
// exists meanwhile, unless signedAgain reports that data is what was signed again for the same request.
func (f *filing) output(path string, data []byte, signedAgain func(there, data []byte) bool) func() (State, error) {
	return func() (State, error) {
		err := durable.Create(path, data, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return Failed, fmt.Errorf("%s, which the request names, can not be made: its folder does not exist here: make that folder, or a symbolic link with its name, and file the answer again (%w)", path, err)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return Failed, fmt.Errorf("%s, which the request names, can not be made: %w", path, err)
		}
		if err == nil {
			return filed, nil
		}
		switch there, err := durable.Read(path, maxOutput); {
		case err == nil && bytes.Equal(there, data):
			return alreadyFiled, nil
		case err == nil && signedAgain(there, data):
			return filed, durable.Replace(path, data, 0o644)
		}
		return Failed, fmt.Errorf("%s exists, with other content: move it away, and file the answer again", path)
	}
}

// certificateSignedAgain reports whether two PEM files have certificates that were signed for the same request.
func certificateSignedAgain(there, data []byte) bool {
	a, errA := pki.ParseCertificatePEM(there)
	b, errB := pki.ParseCertificatePEM(data)
	return errA == nil && errB == nil && pki.SignedAgain(a, b)
}

// bundleSignedAgain reports whether two info-bundles are of the same root certificate and have the same files.
func bundleSignedAgain(there, data []byte) bool {
	a, errA := infobundle.Read(there, time.Now())
	b, errB := infobundle.Read(data, time.Now())
	return errA == nil && errB == nil && a.Root.Equal(b.Root) &&
		slices.EqualFunc(a.Nodeinfo, b.Nodeinfo, func(x, y infobundle.File) bool { return x.Name == y.Name && bytes.Equal(x.Data, y.Data) })
}
