package node

import (
	"cmp"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// CreateBundle makes the node's info-bundle from the current content of the nodeinfo
// folder, writes it to a new file, records its date in nodeinfo/updated-at.txt, and
// stores a copy for publishing ([Dir.PublishedBundle]). If the content of the new file can not
// be written, nothing is recorded or published. The file appears under its name last. An older
// info-bundle of this node beside its directory ([BundleBeside]) is replaced, whether path names it or not.
func (d *Dir) CreateBundle(ctx context.Context, path string, key crypto.Signer) error {
	if err := errors.Join(d.CheckKey(key), d.CheckRootDates(time.Now())); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if inside, err := isInside(path, d.file("nodeinfo")); err != nil || inside {
		return cmp.Or(err, fmt.Errorf("%s is in the folder whose files go into info-bundles: name a file in another folder", path))
	}
	files, date, err := d.datedNodeinfo(time.Now())
	if err != nil {
		return err
	}
	replaces := d.isBeside(path) && d.isOlderBundle(path, date)
	if !replaces {
		if err := durable.CheckCreatable(path); err != nil {
			return err
		}
	}
	rootPEM, err := readText(d.file("root-ca.crt"))
	if err != nil {
		return err
	}
	csrPEM, err := d.rootCSR(key)
	if err != nil {
		return err
	}
	bundle, err := infobundle.Create(rootPEM, csrPEM, files, key)
	if err != nil {
		return err
	}
	// The date is written first: a crash in between must not lead to two bundles with the same
	// date.
	if replaces {
		return d.replaceBeside(path, bundle, date)
	}
	out, err := durable.Prepare(path, bundle, 0o644)
	if err != nil {
		return err
	}
	defer out.Discard()
	if err := d.writeDate(date); err != nil {
		return err
	}
	if err := d.publishBundle(bundle); err != nil {
		return err
	}
	return out.Create()
}

// datedNodeinfo returns the files of a new info-bundle, which are the nodeinfo files
// and updated-at.txt, and the bundle's date. It does not record the date
// ([Dir.writeDate] does).
func (d *Dir) datedNodeinfo(now time.Time) (files []infobundle.File, date string, err error) {
	if files, err = d.nodeinfo(); err != nil {
		return nil, "", err
	}
	var updatedAt, stompTOML []byte
	kept := files[:0]
	for _, f := range files {
		switch f.Name {
		case infobundle.UpdatedAt:
			updatedAt = f.Data
			continue
		case infobundle.StompTOML:
			stompTOML = f.Data
		}
		kept = append(kept, f)
	}
	if stompTOML == nil {
		return nil, "", fmt.Errorf("%s does not exist: peers need it to find this node's servers", d.file("nodeinfo", infobundle.StompTOML))
	}
	if _, err := d.RevokedKeys(); err != nil {
		return nil, "", fmt.Errorf("peers would not see what is revoked: %w", err)
	}
	stomp, err := ParseStompTOML(stompTOML, d.identity.ID)
	if err == nil {
		err = stomp.BundleURLsErr // peers ignore this error, but the operator has to correct it
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", d.file("nodeinfo"), err)
	}
	old, file, err := d.lastDate(updatedAt, now)
	if err != nil {
		return nil, "", err
	}
	date, ok := infobundle.NextDate(old, now)
	if !ok {
		return nil, "", fmt.Errorf("%s: the last bundle is dated %s, a day or more ahead of now: peers that have this bundle ignore bundles with an earlier date. If the clock of this machine is wrong, correct it; only if the date itself is wrong, remove the file",
			file, old)
	}
	return append(kept, infobundle.File{Name: infobundle.UpdatedAt, Data: []byte(date + "\n")}), date, nil
}

// isInside reports whether a file would be in a folder, or in a folder below it.
func isInside(path, folder string) (bool, error) {
	var resolved []string
	for _, dir := range []string{filepath.Dir(path), folder} {
		dir, err := filepath.EvalSymlinks(dir)
		if err == nil {
			dir, err = filepath.Abs(dir)
		}
		if err != nil {
			return false, err
		}
		resolved = append(resolved, dir)
	}
	rel, err := filepath.Rel(resolved[1], resolved[0])
	return err == nil && filepath.IsLocal(rel), nil
}

// lastDate returns the date of the node's last info-bundle, or "" if none was made, and the file
// that has the date. It is the latest of the dates in updatedAt, in the published bundle, and in
// the last bundle that was signed here for an offline request. If a bundle was made, but none of
// these has a valid date, lastDate returns today's date.
func (d *Dir) lastDate(updatedAt []byte, now time.Time) (last, file string, err error) {
	last, err = d.lastSignedDate()
	if err != nil {
		return "", "", err
	}
	file = d.file(filepath.FromSlash(LastSigned))
	if date := infobundle.DateOf(updatedAt); date >= last {
		last, file = date, d.file("nodeinfo", infobundle.UpdatedAt)
	}
	if data, err := durable.Read(d.PublishedBundle(), infobundle.MaxSize); err == nil {
		if b, err := infobundle.Read(data, now); err == nil && b.Root.Equal(d.root) && b.UpdatedAt() > last {
			last, file = b.UpdatedAt(), d.PublishedBundle()
		}
	}
	// db/root-ca.csr exists once an info-bundle has been made.
	if made, err := exists(d.file("db", "root-ca.csr")); last == "" && (made || err != nil || updatedAt != nil) {
		last = now.UTC().Format(time.DateOnly)
	}
	return last, file, nil
}

// lastSignedDate returns the date of the last info-bundle that was signed on this machine for an
// offline request, or "" if there was none.
func (d *Dir) lastSignedDate() (string, error) {
	path := d.file(filepath.FromSlash(LastSigned))
	data, err := durable.Read(path, maxRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var r struct {
		InfoBundle struct {
			Nodeinfo []struct {
				Name string `json:"name"`
				Data []byte `json:"data"`
			} `json:"nodeinfo"`
		} `json:"info_bundle"`
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	for _, f := range r.InfoBundle.Nodeinfo {
		if date := infobundle.DateOf(f.Data); f.Name == infobundle.UpdatedAt && date != "" {
			return date, nil
		}
	}
	if err == nil {
		err = errors.New("it has no date of an info-bundle")
	}
	return "", fmt.Errorf("the date of a new info-bundle must be later than that of the last one that was signed here, which can not be read: %w; if you know the cause, remove %s", err, path)
}

// writeDate records the date of the node's newest info-bundle.
func (d *Dir) writeDate(date string) error {
	return durable.Replace(d.file("nodeinfo", infobundle.UpdatedAt), []byte(date+"\n"), 0o644)
}

// Excluded returns the slash-separated names, relative to the nodeinfo folder, of the
// files and folders that are excluded from info-bundles ([infobundle.Excluded]).
func (d *Dir) Excluded() ([]string, error) {
	var names []string
	err := d.walkNodeinfo(func(string, string) error { return nil }, func(name string) { names = append(names, name) })
	return names, err
}

// NextNodeinfo returns the files of the info-bundle that [Dir.CreateBundle] would make now.
// It changes nothing, and fails if CreateBundle would fail because of the content of the
// nodeinfo folder.
func (d *Dir) NextNodeinfo(now time.Time) ([]infobundle.File, error) {
	files, _, err := d.datedNodeinfo(now)
	return files, err
}

// NodeinfoFiles returns the files that an info-bundle would have now, with the
// existing updated-at.txt instead of one with a new date.
func (d *Dir) NodeinfoFiles() ([]infobundle.File, error) { return d.nodeinfo() }

// nodeinfo reads the files of the nodeinfo folder that go into an info-bundle.
func (d *Dir) nodeinfo() ([]infobundle.File, error) {
	var files []infobundle.File
	err := d.walkNodeinfo(func(path, name string) error {
		f := infobundle.File{Name: name}
		var err error
		if f.Name == infobundle.StompTOML || f.Name == infobundle.UpdatedAt {
			f.Data, err = readText(path) // removes a byte order mark, which the reference does not accept
		} else {
			f.Data, err = readFile(path)
		}
		files = append(files, f)
		// Checked after each file, so that not much more is read than is allowed.
		if checkErr := infobundle.CheckFiles(files); err == nil && checkErr != nil {
			err = fmt.Errorf("%s: %w; rename it, or move it out of the folder", d.file("nodeinfo"), checkErr)
		}
		if checkErr := infobundle.CheckPublic(f); err == nil && checkErr != nil {
			err = fmt.Errorf("%s: %w", d.file("nodeinfo"), checkErr)
		}
		return err
	}, func(string) {})
	return files, err
}

// walkNodeinfo calls file for each file of the nodeinfo folder that is part of an
// info-bundle, and excluded for each file or folder that is not.
func (d *Dir) walkNodeinfo(file func(path, name string) error, excluded func(name string)) error {
	base := d.file("nodeinfo")
	return filepath.WalkDir(base, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == base {
			return err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		if infobundle.Excluded(e.Name()) {
			excluded(filepath.ToSlash(rel))
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		fi, err := os.Stat(path)
		if err == nil && e.Type()&fs.ModeSymlink != 0 {
			err = checkSymlink(base, path, fi)
		}
		if err != nil || fi.IsDir() {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		return file(path, filepath.ToSlash(rel))
	})
}

// checkSymlink checks a symbolic link at path in the nodeinfo folder base; fi describes
// the target. A link to a file outside of base is refused, because that file may not
// be meant for the public. A link to a folder is refused, because the files in that
// folder would be missing in the info-bundle.
func checkSymlink(base, path string, fi fs.FileInfo) error {
	if fi.IsDir() {
		return fmt.Errorf("%s is a symbolic link to a folder, whose files go into no info-bundle: put them into the folder %s itself, or remove the link", path, base)
	}
	folder, err := filepath.EvalSymlinks(base)
	if err != nil {
		return err
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(folder, file); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s is a symbolic link to %s, outside of the folder, and everybody gets what is in an info-bundle: copy the file if it is public, or remove the link", path, file)
	}
	return nil
}

// rootCSR returns the content of db/root-ca.csr. It creates the file if it is missing or
// damaged.
func (d *Dir) rootCSR(key crypto.Signer) ([]byte, error) {
	data, err := d.readRootCSR()
	if !isMissingOrDamaged(err) {
		return data, err
	}
	csr, csrErr := pki.NewCSR(d.identity, key, pki.RootCSR)
	if csrErr != nil {
		return nil, csrErr
	}
	data = pki.EncodeCSRPEM(csr)
	_, err = d.restoreFile(rootCSRFile, data, err, "the root key")
	return data, err
}

// rootCSRFile is the file of the root key's certificate signing request, which is made with
// the first info-bundle.
const rootCSRFile = "db/root-ca.csr"

// readRootCSR returns the content of db/root-ca.csr. If it is not a certificate signing
// request, the error wraps errDamaged.
func (d *Dir) readRootCSR() ([]byte, error) {
	path := d.file(filepath.FromSlash(rootCSRFile))
	data, err := readText(path)
	if err != nil {
		return nil, err
	}
	if _, err := pki.ParseCSRPEM(data); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, errDamaged, err)
	}
	return data, nil
}
