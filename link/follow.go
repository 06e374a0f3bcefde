package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"peerlink/node"
	"peerlink/node/follow"
	"peerlink/node/infobundle"
)

// Follow says how to find peers that have moved. A peer may name, in its
// stomp.toml, where it publishes its newest info-bundle ([node.BundleURLsKey]).
// That is fetched when the peer can not be reached for a while, and now and
// then; a newer one goes into the node's directory as if a person had signed it
// again, or into memory where the directory is read-only.
//
// Peers for which the directory says so ([node.Dir.SetFollow]) are left out.
type Follow struct {
	Off   bool // fetch nothing
	Local bool // let URLs lead to loopback, link-local and private addresses

	After    time.Duration // for which a peer can not be reached, before the first fetch; DefaultFollowAfter
	MaxPause time.Duration // pauses between fetches grow up to this, while it can not be reached; 1 h
	Every    time.Duration // the mean time between fetches while it can; 12 h
}

// DefaultFollowAfter is how long a peer must be out of reach unless [Follow] says
// otherwise: longer than a restart takes.
const DefaultFollowAfter = time.Minute

func (f *Follow) setDefaults() {
	setDefault(&f.After, DefaultFollowAfter)
	setDefault(&f.MaxPause, time.Hour)
	setDefault(&f.Every, 12*time.Hour)
}

// maxFetches is how many info-bundles may be fetched at once. Those that are due
// meanwhile wait.
const maxFetches = 4

// follower decides when a peer's info-bundle is fetched. Everything in it is
// random within bounds: the peers of a node that was away must not all come at
// once.
type follower struct {
	mu      sync.Mutex
	conns   int           // connections to the peer that are in use
	failing bool          // there are none, and attempts fail
	retry   time.Time     // the next fetch, while failing
	pause   time.Duration // before retry
	routine time.Time     // the next fetch in any case; zero before the first look
	busy    bool          // fetching
	seen    map[string]fetched
	trouble string // the last problem reported
}

// fetched is what was last found at a URL.
type fetched struct {
	tag  follow.Tag
	date string // of the info-bundle
}

// failed notes that an attempt to reach the peer has failed.
func (f *follower) failed(cfg Follow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing || f.conns > 0 {
		return
	}
	f.failing, f.pause = true, cfg.After
	f.retry = time.Now().Add(stretch(f.pause))
}

// connected notes that the peer has been reached, until the returned function is
// called.
func (f *follower) connected() (closed func()) {
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

// due reports whether it is time for a fetch.
func (f *follower) due(cfg Follow) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.routine.IsZero() {
		f.routine = now.Add(rand.N(cfg.Every))
	}
	return !f.busy && (!now.Before(f.routine) || f.failing && !now.Before(f.retry))
}

// hurry makes a fetch due now.
func (f *follower) hurry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routine = time.Now()
}

// begin notes that a fetch is on its way. It returns what was last seen.
func (f *follower) begin() map[string]fetched {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = true
	return f.seen
}

// end notes how a fetch went, and plans the next one. It reports whether the
// problem is another one than last time.
func (f *follower) end(cfg Follow, seen map[string]fetched, err error) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy, f.seen = false, seen
	now := time.Now()
	f.routine = now.Add(rand.N(2 * cfg.Every))
	f.pause = min(2*f.pause, cfg.MaxPause)
	f.retry = now.Add(stretch(f.pause))
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	news = trouble != f.trouble
	f.trouble = trouble
	return news
}

// stretch makes a pause longer by up to a half.
func stretch(d time.Duration) time.Duration { return d + rand.N(d/2+1) }

// relocation is a peer's newer info-bundle, where the node's directory is read-only.
type relocation struct {
	date  string
	stomp *node.StompConfig
}

// apply replaces what the directory says of the peer, unless that is newer, or
// the peer is not to be followed any more.
func (m *relocation) apply(p *node.Peer) {
	if m == nil || p.NoFollow || p.UpdatedAt >= m.date {
		return
	}
	p.Stomp, p.StompErr, p.UpdatedAt = m.stomp, nil, m.date
}

// followDue starts a fetch for each peer whose time has come.
func (s *Service) followDue(ctx context.Context) {
	if s.cfg.Follow.Off {
		return
	}
	for _, p := range s.peers.all() {
		st := p.state.Load()
		if st == nil || st.NoFollow || st.Stomp == nil || len(st.Stomp.BundleURLs) == 0 || !p.follower.due(s.cfg.Follow) {
			continue
		}
		select {
		case s.fetches <- struct{}{}:
		default:
			return
		}
		seen := p.follower.begin()
		s.wg.Go(func() {
			defer func() { <-s.fetches }()
			s.follow(ctx, p, st, seen)
		})
	}
}

// follow fetches the peer's info-bundle from everywhere that it names, and takes
// over the newest if it is newer than what is known.
func (s *Service) follow(ctx context.Context, p *peer, st *peerState, before map[string]fetched) {
	log := s.log.With("peer", p.id)
	fetcher := &follow.Fetcher{AllowLocal: s.cfg.Follow.Local, OwnHosts: s.cfg.Dir.OwnHosts()}
	var newest *infobundle.Bundle
	var errs []error
	seen := make(map[string]fetched)
	for _, from := range st.Stomp.BundleURLs {
		known := before[from]
		if known.date > st.UpdatedAt {
			known = fetched{} // it was not taken over, or the directory has gone back
		}
		switch b, tag, err := fetcher.Fetch(ctx, from, st.Root, known.tag); {
		case errors.Is(err, follow.ErrUnchanged):
			seen[from] = known
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		default:
			seen[from] = fetched{tag, b.UpdatedAt()}
			if newest == nil || b.UpdatedAt() > newest.UpdatedAt() {
				newest = b
			}
		}
	}
	if newest != nil && newest.UpdatedAt() > st.UpdatedAt {
		if err := s.takeOver(ctx, log, p, st, newest); err != nil {
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
	if p.follower.end(s.cfg.Follow, seen, err) && err != nil && ctx.Err() == nil {
		log.Warn("the info-bundle that the peer publishes could not be fetched or used", "err", err)
	}
}

// takeOver makes a peer's newer info-bundle known. The next scan brings the peer
// up to date with it.
func (s *Service) takeOver(ctx context.Context, log *slog.Logger, p *peer, st *peerState, b *infobundle.Bundle) error {
	stomp, err := node.ParseStompTOML(b.File(infobundle.StompTOML), s.cfg.Dir.Identity().ID)
	if err != nil {
		return err
	}
	updated, err := s.cfg.Dir.UpdatePeer(ctx, b)
	switch {
	case readOnly(err):
		p.relocation.Store(&relocation{b.UpdatedAt(), stomp})
		log.Warn("the node's directory is read-only: what the peer has published is kept in memory only", "date", b.UpdatedAt())
	case err != nil:
		return err
	case !updated:
		return nil // somebody was faster
	}
	if slices.Equal(stomp.Servers, st.Stomp.Servers) {
		log.Info("peer has published a newer info-bundle, with the same servers", "date", b.UpdatedAt())
	} else {
		log.Info("peer has moved", "old", st.Stomp.Servers, "new", stomp.Servers, "date", b.UpdatedAt())
	}
	return nil
}

// readOnly reports whether a change failed because the node's directory is not for
// this process to change.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}
