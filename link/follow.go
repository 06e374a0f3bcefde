package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"peerlink/internal/logthrottle"
	"peerlink/node"
	"peerlink/node/follow"
	"peerlink/node/infobundle"
)

// Follow configures how peers that have moved are found. A peer may list, in its
// stomp.toml, the URLs where it publishes its newest info-bundle
// ([node.BundleURLsKey]). The service fetches the info-bundle when the peer has been
// unreachable for a while, and periodically. An info-bundle that is newer than the known
// one updates the node's directory, as if the operator had signed the peer again with it,
// or is kept in memory if the directory is read-only.
//
// Peers for which following is switched off in the directory ([node.Dir.SetFollow]) are
// skipped.
type Follow struct {
	Off   bool // fetch nothing
	Local bool // allow URLs with loopback, link-local and private addresses

	After    time.Duration // how long a peer must be unreachable before the first fetch; DefaultFollowAfter
	MaxPause time.Duration // the maximum of the growing pauses between fetches, while a peer is unreachable; 1 h
	Every    time.Duration // the mean time between fetches while a peer is reachable; 12 h
}

// DefaultFollowAfter is the default of [Follow.After]: longer than a restart takes.
const DefaultFollowAfter = time.Minute

func (f *Follow) setDefaults() {
	setDefault(&f.After, DefaultFollowAfter)
	setDefault(&f.MaxPause, time.Hour)
	setDefault(&f.Every, 12*time.Hour)
}

// maxFetches is how many info-bundles may be fetched at once. Further fetches that are
// due wait.
const maxFetches = 4

// follower schedules the fetches of a peer's info-bundle. All its times are random
// within bounds: the peers of a node that was offline must not all fetch from it at
// once.
type follower struct {
	mu          sync.Mutex
	conns       int                    // connections to the peer in use
	failing     bool                   // attempts to connect to the peer have failed, and there is no connection
	nextRetry   time.Time              // time of the next fetch, while failing
	pause       time.Duration          // the pause before nextRetry, without jitter
	nextRoutine time.Time              // time of the next periodic fetch; zero before the first call of due
	busy        bool                   // a fetch is in progress
	fetched     map[string]fetchResult // by URL
	lastErr     string                 // the last error reported
}

// fetchResult describes the last info-bundle found at a URL.
type fetchResult struct {
	tag  follow.Tag
	date string // of the info-bundle
}

// recordFailure records that an attempt to connect to the peer has failed.
func (f *follower) recordFailure(cfg Follow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing || f.conns > 0 {
		return
	}
	f.failing, f.pause = true, cfg.After
	f.nextRetry = time.Now().Add(jitter(f.pause))
}

// addConn records that a connection to the peer is in use. The caller calls remove when
// the connection ends.
func (f *follower) addConn() (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns++
	f.failing = false
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.conns--
	}
}

// due reports whether a fetch is due.
func (f *follower) due(cfg Follow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.nextRoutine.IsZero() {
		f.nextRoutine = now.Add(rand.N(cfg.Every))
	}
	return !f.busy && (!now.Before(f.nextRoutine) || f.failing && !now.Before(f.nextRetry))
}

// expedite makes the next fetch due immediately.
func (f *follower) expedite() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextRoutine = time.Now()
}

// begin records that a fetch is in progress. It returns the results of the previous
// fetch.
func (f *follower) begin() map[string]fetchResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = true
	return f.fetched
}

// end records the result of a fetch and schedules the next fetch. It reports whether the
// error differs from that of the previous fetch.
func (f *follower) end(cfg Follow, results map[string]fetchResult, err error) (isNew bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy, f.fetched = false, results
	now := time.Now()
	f.nextRoutine = now.Add(rand.N(2 * cfg.Every))
	f.pause = min(2*f.pause, cfg.MaxPause)
	f.nextRetry = now.Add(jitter(f.pause))
	text := ""
	if err != nil {
		text = err.Error()
	}
	isNew = text != f.lastErr
	f.lastErr = text
	return isNew
}

// jitter returns a random duration between d and 1.5 d.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/2+1) }

// pendingUpdate is a newer info-bundle of a peer, kept in memory because the node's
// directory is read-only.
type pendingUpdate struct {
	root    *x509.Certificate // the peer's, when the info-bundle was fetched
	date    string
	stomp   *node.StompConfig
	newest  node.RevokedKeys // in the list of this info-bundle
	revoked node.RevokedKeys // also those known before
}

// apply adds the server keys that the peer has revoked, and replaces the peer's stomp.toml by that of
// the pending update, unless the directory has the same or a newer one, or following is switched
// off for the peer. It does nothing if the peer has another root certificate now.
func (u *pendingUpdate) apply(p *node.Peer) {
	if u == nil || !u.root.Equal(p.Root) {
		return
	}
	p.Revoked = u.newest.With(p.Revoked).With(u.revoked)
	if p.NoFollow || p.UpdatedAt >= u.date {
		return
	}
	p.Stomp, p.StompErr, p.UpdatedAt = u.stomp, nil, u.date
}

// followDue starts a fetch for each peer for which one is due, unless maxFetches are in
// progress.
func (r *reconciler) followDue(ctx context.Context) {
	if r.cfg.Follow.Off {
		return
	}
	for _, p := range r.peers.all() {
		st := p.state.Load()
		if st == nil || st.NoFollow || st.Stomp == nil || len(st.Stomp.BundleURLs) == 0 || !p.follower.due(r.cfg.Follow) {
			continue
		}
		select {
		case r.fetchSlots <- struct{}{}:
		default:
			return
		}
		previous := p.follower.begin()
		r.wg.Go(func() {
			defer func() { <-r.fetchSlots }()
			r.follow(ctx, p, st, previous)
		})
	}
}

// follow fetches the peer's info-bundle from all its URLs, and adopts the newest if it
// is newer than the known one. previous are the results of the last fetch.
func (r *reconciler) follow(ctx context.Context, p *peer, st *peerState, previous map[string]fetchResult) {
	log := r.log.With("peer", p.id)
	fetcher := &follow.Fetcher{AllowLocal: r.cfg.Follow.Local, OwnHosts: r.cfg.Dir.OwnHosts()}
	var newest *infobundle.Bundle
	var errs []error
	results := make(map[string]fetchResult)
	for _, url := range st.Stomp.BundleURLs {
		last := previous[url]
		if last.date > st.UpdatedAt {
			// That info-bundle was not adopted, or the directory has been reset to an older
			// one: it has to be fetched again even if it is unchanged.
			last = fetchResult{}
		}
		switch b, tag, err := fetcher.Fetch(ctx, url, st.Root, last.tag); {
		case errors.Is(err, follow.ErrUnchanged):
			results[url] = last
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", url, err))
		default:
			results[url] = fetchResult{tag, b.UpdatedAt()}
			if newest == nil || b.UpdatedAt() > newest.UpdatedAt() {
				newest = b
			}
		}
	}
	if newest != nil && newest.UpdatedAt() > st.UpdatedAt {
		if err := r.adoptBundle(ctx, log, p, st, newest); err != nil {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if ctx.Err() == nil {
		p.stats.fetches.Add(1)
		if err != nil {
			p.stats.fetchFailures.Add(1)
		}
	}
	if p.follower.end(r.cfg.Follow, results, err) && err != nil && ctx.Err() == nil {
		r.logFollowing(log, p, slog.LevelWarn, "the info-bundle that the peer publishes could not be fetched or used", "err", err)
	}
}

// adoptBundle stores a newer info-bundle of a peer. The next reconciliation applies it.
func (r *reconciler) adoptBundle(ctx context.Context, log *slog.Logger, p *peer, st *peerState, b *infobundle.Bundle) error {
	stomp, err := node.ParseStompTOML(b.File(infobundle.StompTOML), r.cfg.Dir.Identity().ID)
	if err != nil {
		return err
	}
	updated, err := r.cfg.Dir.ReplaceNodeinfo(ctx, b)
	switch {
	case readOnly(err):
		newest := node.RevokedIn(b)
		p.pendingUpdate.Store(&pendingUpdate{st.Root, b.UpdatedAt(), stomp, newest, newest.With(st.Revoked)})
		r.logFollowing(log, p, slog.LevelWarn, "the node's directory is read-only: what the peer has published is kept in memory only", "date", b.UpdatedAt())
	case err != nil:
		return err
	case !updated:
		return nil // another process has stored it already
	}
	if slices.Equal(stomp.Servers, st.Stomp.Servers) {
		r.logFollowing(log, p, slog.LevelInfo, "peer has published a newer info-bundle, with the same servers", "date", b.UpdatedAt())
	} else {
		r.logFollowing(log, p, slog.LevelInfo, "peer has moved", "old", st.Stomp.Servers, "new", stomp.Servers, "date", b.UpdatedAt())
	}
	return nil
}

// logFollowing logs, at a limited rate, what a peer can cause by what it publishes.
func (r *reconciler) logFollowing(log *slog.Logger, p *peer, level slog.Level, text string, args ...any) {
	r.logLimiter.Log(log, level, logthrottle.Key{Who: p.id, Kind: text}, text, args...)
}

// readOnly reports whether err means that this process may not write to the node's
// directory.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}
