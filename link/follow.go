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
	"peerlink/stomp"
)

// Follow configures how peers that have moved are found. A peer may list, in its
// stomp.toml, the URLs where it publishes its newest info-bundle
// ([node.BundleURLsKey]). The service fetches the info-bundle when the peer has been
// unreachable for a while, and periodically. An info-bundle that is newer than the known
// one updates the node's directory, as if the operator had signed the peer again with it,
// or is kept in memory if the directory is read-only.
//
// A peer may also announce one such URL when it connects, in a header of CONNECT
// ([BundleURLHeader]), which is sufficient if it has moved and none of the URLs known before leads to
// its info-bundle. The announced URL is added to those in the peer's stomp.toml. If it is not one of
// them and no info-bundle was fetched from it yet, or if the peer is unreachable, it makes a fetch due
// soon. However often a peer announces URLs, the fetch begins at the earliest [Follow.After] after the
// end of the last one, and is from [node.MaxBundleURLs] URLs at most.
//
// Peers for which following is switched off in the directory ([node.Dir.SetFollow]) are
// skipped.
type Follow struct {
	Off   bool // fetch nothing
	Local bool // allow URLs with loopback, link-local and private addresses

	Roots *x509.CertPool // the certificate authorities for https URLs; those of the system

	After    time.Duration // how long a peer must be unreachable before the first fetch; DefaultFollowAfter
	MaxPause time.Duration // the maximum of the growing pauses between fetches, while a peer is unreachable; 1 h
	Every    time.Duration // the mean time between fetches while a peer is reachable; 12 h
}

// BundleURLHeader is the header of CONNECT with which a node announces to a peer the URL of its newest
// info-bundle. It is not in the specification; servers ignore headers that they do not know.
const BundleURLHeader = "info-bundle-url"

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
	lastEnd     time.Time              // when the last fetch ended; zero before the first
	fetched     map[string]fetchResult // by URL
	lastErr     string                 // the last error reported

	// announced is the last URL that the peer has announced and that its stomp.toml did not list,
	// announcedRoot the root certificate with which the peer was authenticated then.
	announced     string
	announcedRoot *x509.Certificate
	nextAnnounced time.Time // from when on a fetch is due because of an announcement; zero: it is not
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
	announced := !f.nextAnnounced.IsZero() && !now.Before(f.nextAnnounced) && now.Sub(f.lastEnd) >= cfg.After
	return !f.busy && (announced || !now.Before(f.nextRoutine) || f.failing && !now.Before(f.nextRetry))
}

// recordAnnounced records that the peer with this root certificate has announced a URL. listed is
// whether the peer's stomp.toml lists the URL. recordAnnounced reports whether it has made a fetch due soon: after
// up to half of [Follow.After], if the last fetch ended long enough ago.
func (f *follower) recordAnnounced(cfg Follow, url string, root *x509.Certificate, listed bool) (soon bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := listed
	if !listed {
		_, fetched := f.fetched[url]
		known = fetched && f.announced == url && f.announcedRoot.Equal(root)
		f.announced, f.announcedRoot = url, root
	}
	if known && !f.failing || !f.nextAnnounced.IsZero() {
		return false
	}
	f.nextAnnounced = time.Now().Add(rand.N(cfg.After/2 + 1))
	f.pause = cfg.After // if the info-bundle is not there yet, the pauses grow from the shortest again
	return true
}

// urls returns the URLs to fetch from: those that the peer's stomp.toml lists, and the one that was
// announced by the peer with this root certificate. If these are too many, a random one of those
// listed is left out.
func (f *follower) urls(listed []string, root *x509.Certificate) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.announced == "" || !f.announcedRoot.Equal(root) || slices.Contains(listed, f.announced) {
		return listed
	}
	urls := append([]string{f.announced}, listed...)
	if len(urls) > node.MaxBundleURLs {
		leftOut := 1 + rand.N(len(listed))
		urls = slices.Delete(urls, leftOut, leftOut+1)
	}
	return urls
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
	f.busy, f.nextAnnounced = true, time.Time{}
	return f.fetched
}

// end records the result of a fetch and schedules the next fetch. It reports whether the
// error differs from that of the previous fetch.
func (f *follower) end(cfg Follow, results map[string]fetchResult, err error) (isNew bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy, f.fetched = false, results
	now := time.Now()
	f.lastEnd = now
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
	listed  node.RevokedKeys // the server keys that this info-bundle lists as revoked
	revoked node.RevokedKeys // listed, and those known when the info-bundle was fetched
}

// apply adds the server keys that the peer has revoked, and replaces the peer's stomp.toml by that of
// the pending update, unless the directory has the same or a newer one, or following is switched
// off for the peer. It does nothing if the peer has another root certificate now.
func (u *pendingUpdate) apply(p *node.Peer) {
	if u == nil || !u.root.Equal(p.Root) {
		return
	}
	p.Revoked = u.listed.With(p.Revoked).With(u.revoked)
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
		if st == nil || st.NoFollow || len(p.follower.urls(st.bundleURLs(), st.Root)) == 0 || !p.follower.due(r.cfg.Follow) {
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

// bundleURLs returns the URLs that the peer's stomp.toml lists.
func (st *peerState) bundleURLs() []string {
	if st.Stomp == nil {
		return nil
	}
	return st.Stomp.BundleURLs
}

// handleAnnounced handles the URL of an info-bundle that the peer has announced in the CONNECT of a
// connection, or "" if it has announced none. st is the peer's state when it was authenticated.
func (s *shared) handleAnnounced(log *slog.Logger, p *peer, st *peerState, url string) {
	if url == "" || s.cfg.Follow.Off || st.NoFollow {
		return
	}
	if err := node.CheckAnnouncedBundleURL(url); err != nil {
		s.logFollowing(log, p, slog.LevelWarn, "the peer has announced a place of its info-bundle that is not used", "err", err)
		return
	}
	if p.follower.recordAnnounced(s.cfg.Follow, url, st.Root, slices.Contains(st.bundleURLs(), url)) {
		s.logFollowing(log, p, slog.LevelInfo, "the peer has announced the place of its info-bundle, which will be fetched", "url", url)
	}
}

// announcementHeaders returns the headers of CONNECT with which this node announces the URL of its
// info-bundle; none if it has no such URL.
func (s *shared) announcementHeaders() []stomp.Header {
	url := s.cfg.Dir.AnnouncedBundleURL()
	if url == "" {
		return nil
	}
	return []stomp.Header{{Name: BundleURLHeader, Value: url}}
}

// follow fetches the peer's info-bundle from all its URLs, and adopts the newest if it
// is newer than the known one. previous are the results of the last fetch.
func (r *reconciler) follow(ctx context.Context, p *peer, st *peerState, previous map[string]fetchResult) {
	log := r.log.With("peer", p.id)
	fetcher := &follow.Fetcher{AllowLocal: r.cfg.Follow.Local, OwnHosts: r.cfg.Dir.OwnHosts(), Roots: r.cfg.Follow.Roots}
	var newest *infobundle.Bundle
	var errs []error
	results := make(map[string]fetchResult)
	for _, url := range p.follower.urls(st.bundleURLs(), st.Root) {
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
	config, err := node.ParseStompTOML(b.File(infobundle.StompTOML), r.cfg.Dir.Identity().ID)
	if err != nil {
		return err
	}
	updated, err := r.cfg.Dir.ReplaceNodeinfo(ctx, b)
	switch {
	case readOnly(err):
		listed := node.RevokedIn(b)
		p.pendingUpdate.Store(&pendingUpdate{st.Root, b.UpdatedAt(), config, listed, listed.With(st.Revoked)})
		r.logFollowing(log, p, slog.LevelWarn, "the node's directory is read-only: what the peer has published is kept in memory only", "date", b.UpdatedAt())
	case err != nil:
		return err
	case !updated:
		return nil // another process has stored it already
	}
	var old []string
	if st.Stomp != nil {
		old = st.Stomp.Servers
	}
	if slices.Equal(config.Servers, old) {
		r.logFollowing(log, p, slog.LevelInfo, "peer has published a newer info-bundle, with the same servers", "date", b.UpdatedAt())
	} else {
		r.logFollowing(log, p, slog.LevelInfo, "peer has moved", "old", old, "new", config.Servers, "date", b.UpdatedAt())
	}
	return nil
}

// logFollowing logs a message that a peer can cause by what it publishes, at a limited rate for each peer
// and text.
func (s *shared) logFollowing(log *slog.Logger, p *peer, level slog.Level, text string, args ...any) {
	s.logLimiter.Log(log, level, logthrottle.Key{Who: p.id, Kind: text}, text, args...)
}

// readOnly reports whether err means that this process may not write to the node's
// directory.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}
