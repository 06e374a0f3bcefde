package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"peerlink/internal/pulse"
	"peerlink/node"
)

// maxMissing is the number of consecutive polls without a peer's directory after which
// the peer's traffic ends: replacing a whole tree, as git and Kubernetes do, takes a
// moment.
const maxMissing = 3

// reconciler brings the peers up to date with the node's directory: it binds their queues
// in the broker, and starts and stops their senders and drainers. One goroutine calls its
// methods, except runBindJob, follow, adoptBundle and setHealth, which others call too.
type reconciler struct {
	*shared
	bindSlots    chan struct{} // contains an element for each bind job that is running
	bindsDone    chan *peer    // peers whose bind job is done
	pendingBinds int           // bind jobs started and not received from bindsDone yet
	fetchSlots   chan struct{} // contains an element for each fetch of an info-bundle in progress

	patternsStamp  *node.FileStamp       // of the recorded queue patterns, at their last check
	stompTOMLStamp *[2]node.FileStamp    // at the last check of the node's stomp.toml
	health         atomic.Pointer[error] // see [Service.Health]
	pulse          pulse.Pulse
}

func newReconciler(s *shared) *reconciler {
	r := &reconciler{
		shared:     s,
		bindSlots:  make(chan struct{}, maxBindJobs),
		bindsDone:  make(chan *peer),
		fetchSlots: make(chan struct{}, maxFetches),
	}
	r.setHealth(errNotServing)
	return r
}

// reconcileLoop reconciles the peers with the node's directory every
// [Config.PollInterval] until ctx is done. It returns an error if the service can not go on.
func (r *reconciler) reconcileLoop(ctx, graceCtx context.Context) error {
	tick := time.NewTicker(r.cfg.PollInterval)
	defer tick.Stop()
	defer r.pulse.Stop()
	lastErr := ""
	for {
		r.pulse.Beat()
		select {
		case <-ctx.Done():
			return nil
		case p := <-r.bindsDone:
			r.bindJobDone(ctx, graceCtx, p)
			continue
		case <-r.cfg.Recheck:
			r.forgetStamps()
			lastErr = ""
		case <-tick.C:
		}
		r.reloadCertificate()
		err := r.reconcile(ctx, graceCtx)
		r.followDue(ctx)
		r.checkOwnStompTOML()
		switch {
		case ctx.Err() != nil:
		case err == nil:
			if err := r.cfg.Certificate.checkRevoked(); err != nil {
				return err
			}
			r.keepQueuePatterns(ctx)
			r.setHealth(nil)
			lastErr = ""
		case err.Error() != lastErr:
			lastErr = err.Error()
			r.setHealth(fmt.Errorf("the node's directory can not be used: %w", err))
			r.log.Error("the node's directory can not be used, the links stay as they are", "err", err)
		}
	}
}

// reloadCertificate loads a renewed server certificate.
func (s *shared) reloadCertificate() {
	switch logText, err := s.cfg.Certificate.reload(); {
	case err != nil:
		s.log.Error("the last good server certificate stays in use", "err", err)
	case logText != "":
		s.log.Info(logText, "not_after", s.cfg.Certificate.serverChain().Leaf.NotAfter)
	}
}

// forgetStamps makes the next reconciliation check everything as if for the first time.
// Faults that persist are reported again.
func (r *reconciler) forgetStamps() {
	r.log.Info("looking at everything again: server certificate, node's directory, queues, published info-bundles")
	r.cfg.Certificate.forget()
	r.stompTOMLStamp, r.patternsStamp = nil, nil
	for _, p := range r.peers.all() {
		p.stamp, p.lastErr, p.rebind = nil, "", true
		p.follower.expedite()
	}
}

// reconcile brings the peers up to date with the node's directory. Faults of single peers are
// recorded and logged, not returned.
func (r *reconciler) reconcile(ctx, graceCtx context.Context) error {
	if err := r.cfg.Dir.CheckIdentity(); err != nil {
		return err
	}
	ids, err := r.cfg.Dir.PeerIDs()
	if err != nil {
		return err
	}
	present := make(map[string]bool, len(ids))
	for _, id := range ids {
		if !r.cfg.Dir.HasPeer(id) {
			continue
		}
		present[id] = true
		r.reconcilePeer(ctx, graceCtx, r.peers.getOrAdd(id))
	}
	for _, p := range r.peers.all() {
		if present[p.id] {
			p.missing = 0
			p.gone.Store(false)
			continue
		}
		if p.missing++; p.missing == maxMissing {
			r.peerGone(p)
		}
	}
	return nil
}

// peerGone ends all traffic with a peer whose directory does not exist any more.
func (r *reconciler) peerGone(p *peer) {
	p.stamp, p.lastErr = nil, ""
	p.gone.Store(true)
	p.trackFiles(nil)
	r.brokerProblems.set(p.id, nil)
	p.stopDrainers()
	if read := p.lastContent.Load(); read != nil && read.SubCA == nil && p.state.Load() == nil {
		r.log.Info("peer that was not registered is gone from the node's directory", "peer", p.id)
		r.peers.remove(p.id)
		return
	}
	if p.state.Load() != nil {
		r.log.Warn("peer is gone from the node's directory, its link ends", "peer", p.id)
		p.end()
	}
}

// reconcilePeer brings one peer up to date with its directory.
func (r *reconciler) reconcilePeer(ctx, graceCtx context.Context, p *peer) {
	if p.bindJob.pending() {
		// Of all changes, only the end of a link need not wait for the broker. If
		// endLink fails, it fails again when the bind job is done, and the error
		// is reported then.
		_ = r.endLink(p)
		return
	}
	stamp, update := r.cfg.Dir.Stamp(p.id), p.pendingUpdate.Load()
	if p.stamp != nil && stamp == *p.stamp && update == p.appliedUpdate && !r.successorChanged(p) {
		return
	}
	err := r.applyDirectory(ctx, graceCtx, p)
	if errors.Is(err, errBindPending) {
		return
	}
	if errors.Is(err, errNoSuccessor) { // looked for again at the next poll
		p.stamp = nil
		p.trackFiles(nil)
		return
	}
	r.brokerProblems.set(p.id, err)
	p.trackFiles(err)
	switch {
	case err == nil:
		p.stats.recordError(directory, nil)
		p.stamp, p.appliedUpdate, p.lastErr = &stamp, update, ""
	case err.Error() != p.lastErr && ctx.Err() == nil:
		// The peer is reconciled again at each poll, but the error is reported only once.
		p.lastErr = err.Error()
		p.stats.recordError(directory, err)
		r.log.Error("peer can not be brought up to date, its link stays as it is", "peer", p.id, "err", err)
	}
}

// endLink ends the traffic with a peer that has been deactivated, or with which the link has been
// suspended, even if its other files are invalid.
func (r *reconciler) endLink(p *peer) error {
	date, err := r.cfg.Dir.Deactivated(p.id)
	suspended, suspendedErr := r.cfg.Dir.Suspended(p.id)
	err = errors.Join(err, suspendedErr)
	st := p.state.Load()
	if date == "" && suspended == nil || st == nil {
		return err
	}
	if err := r.cfg.Dir.CheckIdentity(); err != nil { // see applyDirectory
		return err
	}
	last := *st.Peer
	if last.Deactivated, last.Suspended = date, suspended; date != "" {
		r.log.Warn("peer has been deactivated, its link ends", "peer", p.id, "date", date)
	} else {
		r.log.Warn("link with the peer is suspended, and ends until it is resumed", "peer", p.id, "date", suspended.Since, "reason", suspended.Reason)
	}
	p.lastContent.Store(&last)
	p.trackFiles(nil)
	p.end()
	return err
}

// applyDirectory brings one peer up to date with its directory. While the broker binds
// or unbinds queues, it returns errBindPending and must be called again.
func (r *reconciler) applyDirectory(ctx, graceCtx context.Context, p *peer) error {
	if err := r.endLink(p); err != nil {
		return err
	}
	np, err := r.readPeer(p)
	if err != nil {
		return err
	}
	if np.SubCA == nil {
		r.endReplaced(p, np)
		return nil // this node has no peer certificate from the peer yet
	}
	if np.RevokedErr != nil && np.Deactivated == "" {
		return np.RevokedErr
	}
	view, err := View(r.cfg.Dir, np)
	if err != nil {
		return err
	}
	if r.receiveOnly {
		if np.State() == "active" {
			p.replaceState(&peerState{Peer: np, view: view})
		} else {
			p.end()
		}
		return nil
	}
	binding, err := BindingOf(r.cfg.Dir, np, view, r.cfg.QueuePattern)
	if err != nil {
		return err
	}
	if !r.cfg.AllQueues {
		binding.Queues = binding.Queues[:1]
	}
	if np.Deactivated != "" {
		return r.endQueues(ctx, graceCtx, p, binding, view)
	}
	return r.applyState(ctx, graceCtx, p, &peerState{Peer: np, view: view, binding: binding})
}

// readPeer reads a peer's directory, and records what it contains.
func (r *reconciler) readPeer(p *peer) (*node.Peer, error) {
	np, err := r.cfg.Dir.Peer(p.id)
	if err != nil {
		return nil, err
	}
	// The node's directory may have been replaced by that of another node since reconcile has
	// checked it, so it is checked again before anything that was read is applied.
	if err := r.cfg.Dir.CheckIdentity(); err != nil {
		return nil, err
	}
	lastContent := *np
	p.lastContent.Store(&lastContent)
	return np, nil
}

// applyState binds the queues of a peer that is registered and not deactivated, marks it as active,
// and starts its senders. Of a suspended peer only the queues are bound. Like applyDirectory, it
// returns errBindPending while the broker binds queues.
func (r *reconciler) applyState(ctx, graceCtx context.Context, p *peer, st *peerState) error {
	p.successor, p.handedOver = "", nil // an operator may have undone a deactivation
	r.cfg.Outbox.set(st.binding, st.view)
	p.pendingUpdate.Load().apply(st.Peer)
	r.logPeerFaults(st.Peer)
	suspended := st.Suspended != nil
	if st.Active && !suspended && p.state.Load() == nil {
		// From now on, the peer's connections are accepted, even if the broker cannot
		// bind the queues yet: if connections were rejected meanwhile, the peer's pauses
		// between attempts would grow.
		p.rebind = true
		early := *st
		p.replaceState(&early)
	}
	if old := p.state.Load(); old == nil || !equalBinding(old.binding, st.binding) || p.rebind {
		if err := r.bind(ctx, p, st.binding); err != nil {
			return err
		}
		p.rebind, p.bound = false, true
	}
	if !st.Active {
		r.markActive(st.Peer)
	}
	if suspended {
		return nil // its queues are bound, so that they keep the messages
	}
	p.stopDrainers() // an operator may have undone a deactivation, although it is meant to be final
	p.replaceState(st)
	r.startSenders(ctx, graceCtx, p, slices.Concat(st.binding.Queues, p.former, r.queuesTakenOver(p.id)))
	return nil
}

// logPeerFaults logs what in the peer's files keeps messages from it, or will when it moves.
func (r *reconciler) logPeerFaults(np *node.Peer) {
	log := r.log.With("peer", np.Identity.ID)
	if np.NotRemembered > 0 {
		log.Warn("the peer has revoked more server keys than are remembered for ever: some are refused only as long as its newest info-bundle lists them", "keys", np.NotRemembered, "remembered", node.MaxRevokedKeys)
	}
	switch {
	case errors.Is(np.StompErr, fs.ErrPermission):
		log.Warn("nothing can be sent to the peer until its files in the node's directory can be read by the user of this service", "err", np.StompErr)
	case np.StompErr != nil:
		log.Warn("nothing can be sent to the peer until it sends a new info-bundle", "err", np.StompErr)
	case np.Stomp.BundleURLsErr != nil:
		log.Warn("the peer may not be found again when it moves", "err", np.Stomp.BundleURLsErr)
	}
}

// markActive marks the peer as active in the node's directory, or only in np if the directory can
// not be written.
func (r *reconciler) markActive(np *node.Peer) {
	log := r.log.With("peer", np.Identity.ID)
	if err := r.cfg.Dir.MarkActive(np.Identity.ID); err == nil {
		log.Info("peer is active")
	} else {
		log.Warn("the node's directory can not be written: the peer is served, but not marked ACTIVE there", "err", err)
	}
	np.Active = true
}

// endReplaced ends the traffic with a peer that has been replaced by one with the same ID and
// another root certificate, next, until the certificate that it issues is registered.
func (r *reconciler) endReplaced(p *peer, next *node.Peer) {
	if st := p.state.Load(); st == nil || st.Root.Equal(next.Root) {
		return
	}
	r.log.Warn("peer has another root certificate now, its link ends until its new peer certificate is registered", "peer", p.id)
	p.end()
}

// keepQueuePatterns records the patterns of the names of queues again if the record has
// changed: the directory may have been replaced by a copy without the record, or with an
// older one. If recording fails, for example because a command holds the directory's lock,
// the next poll tries again; the service has logged at its start whether it can record the
// patterns. The directory must just have been reconciled, so that it is that of this node.
func (r *reconciler) keepQueuePatterns(ctx context.Context) {
	stamp := r.cfg.Dir.QueuePatternsStamp()
	if !r.cfg.KeepQueuePatterns || r.patternsStamp != nil && stamp == *r.patternsStamp {
		return
	}
	var patterns []string
	for _, pattern := range append(slices.Clip(r.cfg.FormerQueuePatterns), r.cfg.QueuePattern) {
		if pattern != DefaultQueuePattern {
			patterns = append(patterns, string(pattern))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.PollInterval/4)
	defer cancel()
	if r.cfg.Dir.RecordQueuePatterns(ctx, patterns...) == nil {
		r.patternsStamp = &stamp // if the record was written, the next poll compares it again
	}
}

// checkOwnStompTOML checks the node's own stomp.toml when the file has changed, and logs
// the result. The service does not depend on the file. But peers learn of a change only
// from a new info-bundle, which the operator has to make.
func (r *reconciler) checkOwnStompTOML() {
	stamp := r.cfg.Dir.StompTOMLStamp()
	first := r.stompTOMLStamp == nil
	if !first && stamp == *r.stompTOMLStamp {
		return
	}
	changed := !first && stamp[0] != r.stompTOMLStamp[0]
	r.stompTOMLStamp = &stamp
	switch err := r.cfg.Dir.CheckStompTOML(); {
	case errors.Is(err, node.ErrUnpublished):
		r.log.Warn("own stomp.toml differs from the published one", "err", err, "what_to_do", "make a new info-bundle (peerlink bundle create)")
	case err != nil:
		r.log.Error("own stomp.toml can not be used, peers continue to use the published one", "err", err)
	case changed:
		r.log.Info("own stomp.toml has changed, peers learn of it from an info-bundle that has it")
	}
}
