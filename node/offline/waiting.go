package offline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node"
)

// The names of a request's files in [node.RequestsFolder] are its ID and one of these
// extensions.
const (
	waitingExt = ".json"  // the request, while it waits
	filedExt   = ".filed" // the SHA-256 of the answer that was filed, in hex
)

func folder(d *node.Dir) string {
	return filepath.Join(d.Path(), filepath.FromSlash(node.RequestsFolder))
}

func requestPath(d *node.Dir, id, ext string) string { return filepath.Join(folder(d), id+ext) }

// storeWaiting stores a new request, which waits for its answer.
func storeWaiting(d *node.Dir, r *Request) error {
	if err := os.MkdirAll(folder(d), 0o755); err != nil {
		return err
	}
	return durable.Create(requestPath(d, r.ID, waitingExt), r.raw, 0o644)
}

// loadWaiting reads a waiting request. The error wraps [errNotWaiting] if there is no request with
// this ID.
func loadWaiting(d *node.Dir, id string, now time.Time) (*Request, error) {
	path := requestPath(d, id, waitingExt)
	data, err := durable.Read(path, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no request %s; is this the directory that the request was collected in?", errNotWaiting, d.Path(), id)
	}
	if err != nil {
		return nil, err
	}
	r, err := readStored(data, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.ID != id || r.Node != d.Identity() || !r.root.Equal(d.Root()) {
		return nil, fmt.Errorf("%s: %w: it is another request, or one of another node", path, errFormat)
	}
	return r, nil
}

// WaitingRequests returns the requests without a filed answer, sorted by ID. If it fails, it also
// returns the requests that could be read. now is the current time.
func WaitingRequests(d *node.Dir, now time.Time) ([]*Request, error) {
	entries, err := os.ReadDir(folder(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var requests []*Request
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), waitingExt)
		if !ok || !isHex(id, idDigits) {
			continue
		}
		// After a crash, the request may exist although its answer has been filed.
		if _, err := os.Lstat(requestPath(d, id, filedExt)); err == nil {
			continue
		}
		r, err := loadWaiting(d, id, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		requests = append(requests, r)
	}
	return requests, errors.Join(errs...)
}

// Forget removes a waiting request, so that no answer to it can be filed. Its serial
// numbers are never used again. Its subnets stay reserved for the peers;
// [node.Dir.Repair] releases those of debtors agents. Forget fails if there is no such
// request.
func Forget(ctx context.Context, d *node.Dir, id string) error {
	if !isHex(id, idDigits) {
		return fmt.Errorf("%w: %q is not the ID of a request: expected %d lowercase hex digits", errNotWaiting, excerpt.Of(id), idDigits)
	}
	return d.Locked(ctx, func(*node.Locked) error {
		err := os.Remove(requestPath(d, id, waitingExt))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s has no request %s", errNotWaiting, d.Path(), id)
		}
		return err
	})
}
