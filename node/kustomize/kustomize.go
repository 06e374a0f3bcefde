package kustomize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"peerlink/internal/excerpt"
)

// Peer has the properties of a peer that are in the files.
type Peer struct {
	// ID is the peer's node ID: 8 or 32 lowercase hex digits.
	ID string
	// Queues is the number of sending queues, 1 to 99, and of replicas.
	Queues int
	// UpdatedAt is the date of the peer's nodeinfo, as published by the peer: up to 64 printable
	// ASCII characters, or empty if there is none.
	UpdatedAt string
	// Deactivated means that no messages are sent to the peer, and its queues are drained.
	Deactivated bool
	// HandedOver means that the queues lead to another peer, which has the accounts of this deactivated
	// one. They must not be drained, so there are no replicas.
	HandedOver bool
}

// Bounds on a [Peer].
const (
	maxQueues    = 99
	maxUpdatedAt = 64 // characters
)

// The names of the files.
const (
	manifestName    = "kustomization.yaml" // also the name of the aggregator
	patchName       = "resources-patch.yaml"
	referenceScript = "create-peer-manifest"
)

// Update updates the Kustomize files of a registered peer. peersDir is the "peers" folder of the node's
// directory, in which the peer's folder must exist. baseApp is the name of the node's folder below
// "base", as returned by [BaseApp].
//
// Files are replaced atomically, and only if their content changes. The aggregator is written last, so
// that it never lists a peer without a manifest. After an interruption, the next Update completes the
// changes. Several Updates may run at once. If the form of the aggregator does not allow adding the
// peer, the error says what to add by hand; the peer's own files are up to date in this case.
func Update(peersDir string, p Peer, baseApp string) error {
	if err := update(peersDir, p, baseApp); err != nil {
		return fmt.Errorf("peer %q: Kustomize files: %w", excerpt.Of(p.ID), err)
	}
	return nil
}

func update(peersDir string, p Peer, baseApp string) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := checkBaseApp(baseApp); err != nil {
		return err
	}
	// The folder must exist: Update does not make peers.
	dir := filepath.Join(peersDir, p.ID)
	if fi, err := os.Stat(dir); err != nil {
		return err
	} else if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	unlock, err := lock(peersDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := createOnce(filepath.Join(dir, patchName), resourcesPatch); err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, manifestName), manifest(p, baseApp)); err != nil {
		return err
	}
	path := filepath.Join(peersDir, manifestName)
	old, err := read(path)
	if err != nil {
		return err
	}
	list, err := addPeer(old, p.ID)
	if err != nil {
		return fmt.Errorf("%s: %w; write \"- %s/\" into its resources yourself", path, err, p.ID)
	}
	return replace(path, list)
}

// Enabled reports whether the node has Kustomize files: a manifest of a peer, an aggregator other than the
// reference's placeholder, or the reference's create-peer-manifest, which operators without Kubernetes have
// to delete according to the reference's documentation. If a file cannot be read, Enabled returns true, so
// that [Update] reports the error.
func Enabled(peersDir string) bool {
	if fi, err := os.Stat(filepath.Join(peersDir, referenceScript)); err == nil && fi.Mode().IsRegular() {
		return true
	}
	list, err := read(filepath.Join(peersDir, manifestName))
	if err != nil || len(list) > 0 && !isPlaceholder(list) {
		return true
	}
	entries, err := os.ReadDir(peersDir)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	for _, e := range entries {
		if !isNodeID(e.Name()) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(peersDir, e.Name(), manifestName)); err == nil {
			return true
		}
	}
	return false
}

// BaseApp returns the name under which the node is deployed: the name of the folder that contains the
// node's directory, after resolving symbolic links.
func BaseApp(peersDir string) (string, error) {
	abs, err := filepath.Abs(peersDir)
	if err != nil {
		return "", err
	}
	nodeDir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	name := filepath.Base(filepath.Dir(nodeDir))
	if err := checkBaseApp(name); err != nil {
		return "", fmt.Errorf("%s: %w", nodeDir, err)
	}
	return name, nil
}

func (p Peer) check() error {
	if !isNodeID(p.ID) {
		return errors.New("not a node ID: expected 8 or 32 lowercase hex digits")
	}
	if p.Queues < 1 || p.Queues > maxQueues {
		return fmt.Errorf("%d queues: expected 1 to %d", p.Queues, maxQueues)
	}
	// Kustomize fails for all peers if one value has a control character, even an escaped one.
	if len(p.UpdatedAt) > maxUpdatedAt || strings.ContainsFunc(p.UpdatedAt, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("date of the nodeinfo %q: expected at most %d printable ASCII characters", excerpt.Of(p.UpdatedAt), maxUpdatedAt)
	}
	return nil
}

func checkBaseApp(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 ||
		strings.ContainsAny(name, `/\`) || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%q can not be the name of an application's folder below \"base\": expected the node's directory in a folder with the application's name", excerpt.Of(name))
	}
	return nil
}

func isNodeID(s string) bool {
	if len(s) != 8 && len(s) != 32 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}
