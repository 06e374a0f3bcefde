package node

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// newPeerPrefix is the prefix of the names of incomplete directories in peers/.
const newPeerPrefix = ".new-"

// installPeer creates the directory of a new peer atomically.
func (d *Dir) installPeer(dir string, b *infobundle.Bundle, cert *x509.Certificate, subnet string) error {
	tmp, err := d.preparePeer(b, cert, subnet, nil)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	return d.namePeer(tmp, dir)
}

// preparePeer creates the directory of a new peer under a temporary name. Of two files with the same
// name, the one in kept is written.
func (d *Dir) preparePeer(b *infobundle.Bundle, cert *x509.Certificate, subnet string, kept []infobundle.File) (tmp string, err error) {
	if err := d.checkRemembered(b); err != nil {
		return "", err
	}
	revoked, err := d.rememberedKeys(b.Root)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(d.file("peers"), 0o755); err != nil {
		return "", err
	}
	if tmp, err = os.MkdirTemp(d.file("peers"), newPeerPrefix); err != nil {
		return "", err
	}
	if err := writePeerFiles(tmp, slices.Concat(newPeerFiles(b, cert, subnet), revoked, kept)); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return tmp, nil
}

// newPeerFiles returns the files in the directory of a new peer.
func newPeerFiles(b *infobundle.Bundle, cert *x509.Certificate, subnet string) []infobundle.File {
	files := []infobundle.File{
		{Name: "root-ca.crt", Data: b.RootPEM},
		{Name: "peercert.crt", Data: pki.EncodeCertificatePEM(cert)},
		{Name: "nodetype.txt", Data: []byte(b.Identity.Type.OU() + "\n")},
		{Name: "queues.txt", Data: []byte("1\n")},
	}
	if subnet != "" {
		files = append(files, infobundle.File{Name: "subnet.txt", Data: []byte(subnet + "\n")})
	}
	for _, f := range b.Nodeinfo {
		files = append(files, infobundle.File{Name: "nodeinfo/" + f.Name, Data: f.Data})
	}
	return files
}

func writePeerFiles(dir string, files []infobundle.File) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// As for the files, the mode does not depend on the umask, because the service may run
		// as another user.
		if err := durable.Chmod(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := durable.Replace(path, f.Data, 0o644); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}

// namePeer gives the directory of a new peer its name.
func (d *Dir) namePeer(tmp, dir string) error {
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return durable.SyncDir(d.file("peers"))
}

// removeLeftovers removes the incomplete directories of peers that interrupted commands have left.
// The caller must hold the directory's lock.
func (d *Dir) removeLeftovers() error {
	leftovers, err := filesIn(d.file("peers"), func(name string) bool { return strings.HasPrefix(name, newPeerPrefix) })
	if err != nil {
		return err
	}
	for _, path := range leftovers {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
