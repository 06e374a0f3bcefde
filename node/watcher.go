package node

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Watcher collects the peers whose files have changed, as the operating system reports it.
// Network file systems do not report what other machines change, so that the files still have to
// be looked at, but less often ([Dir.Stamp]).
type Watcher struct {
	dir     *Dir
	watcher *fsnotify.Watcher
	folders [2]os.FileInfo // the node's directory and its folder peers when the watcher was made

	mu      sync.Mutex
	changes Changes
}

// Changes says what has changed in a node's directory.
type Changes struct {
	All   bool            // anything may have changed
	Peers map[string]bool // IDs of peers that may have come or gone, or whose files have changed
}

// ErrNotWatchable means that the operating system reports no changes, or only by keeping all
// files open.
var ErrNotWatchable = errors.New("changes in the node's directory are not reported by the operating system")

// Watch returns a Watcher for the directory. It watches no peer yet, see [Watcher.Add]. The caller
// calls [Watcher.Close] when it is no longer used.
func (d *Dir) Watch() (*Watcher, error) {
	if runtime.GOOS != "linux" {
		return nil, ErrNotWatchable
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &Watcher{dir: d, watcher: watcher}
	for i, path := range w.paths() {
		if err := watcher.Add(path); err != nil {
			_ = watcher.Close()
			return nil, err
		}
		w.folders[i], _ = os.Stat(path)
	}
	go w.collect()
	return w, nil
}

// paths returns the paths of the node's directory and of its folder peers.
func (w *Watcher) paths() [2]string { return [2]string{w.dir.file(), w.dir.file("peers")} }

// Close ends the watching.
func (w *Watcher) Close() { _ = w.watcher.Close() }

// Replaced reports whether the node's directory, or its folder peers, is another one than when the
// watcher was made. The changes in it are not reported then.
func (w *Watcher) Replaced() bool {
	for i, path := range w.paths() {
		if now, err := os.Stat(path); err != nil || w.folders[i] == nil || !os.SameFile(now, w.folders[i]) {
			return true
		}
	}
	return false
}

// Add watches the files of a peer from now on. If it is called again, it watches the folders that
// the peer has now. It fails if the operating system watches no more folders.
func (w *Watcher) Add(id string) error {
	for _, path := range []string{w.dir.file("peers", id), w.dir.file("peers", id, "nodeinfo")} {
		_ = w.watcher.Remove(path) // it may be another folder now
		if err := w.watcher.Add(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Changes returns what has changed since the last call.
func (w *Watcher) Changes() Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.changes
	w.changes = Changes{}
	return c
}

// collect receives the events until the watcher is closed.
func (w *Watcher) collect() {
	for {
		select {
		case e, open := <-w.watcher.Events:
			if !open {
				return
			}
			w.note(e.Name)
		case _, open := <-w.watcher.Errors: // events were lost
			if !open {
				return
			}
			w.mu.Lock()
			w.changes.All = true
			w.mu.Unlock()
		}
	}
}

// note records that the file or folder at path has changed.
func (w *Watcher) note(path string) {
	rel, err := filepath.Rel(w.dir.file(), path)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch first, rest, _ := strings.Cut(filepath.ToSlash(rel), "/"); {
	case first == "creditors-subnet.txt", first == "debtors-subnet.txt", first == "peers" && rest == "", first == ".":
		w.changes.All = true
	case first == "peers":
		id, _, _ := strings.Cut(rest, "/")
		if w.changes.Peers == nil {
			w.changes.Peers = make(map[string]bool)
		}
		w.changes.Peers[id] = true
	}
}
