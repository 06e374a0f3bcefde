package rabbitmq

import (
	"slices"
	"strings"
	"time"

	"peerlink/broker"
)

const (
	// checkInterval is how often the objects of each peer are declared again. RabbitMQ may
	// lose objects without losing connections: a queue is deleted, or a node of a cluster
	// is replaced.
	checkInterval = time.Minute
	// checkStep is the minimum time between the checks of two peers. Each check takes
	// about ten AMQP methods.
	checkStep = 50 * time.Millisecond
	// redeclarePause is the time until the next attempt after a failed declaration.
	redeclarePause = time.Second
)

// keepDeclared declares objects again that RabbitMQ has lost, whether or not the peers are
// connected: without the objects, RabbitMQ would silently drop the messages of applications.
// After the loss of a connection, it reconnects and declares the objects of all peers again;
// otherwise, it does so for one peer after the other, each every checkInterval. It returns
// when the broker is closed.
func (b *Broker) keepDeclared() {
	r := redeclarer{Broker: b, failures: make(map[string]string), nextCheck: time.Now().Add(b.opts.checkInterval)}
	for b.life.Err() == nil {
		var wait time.Duration
		if _, err := b.declaring.get(b.life); err == nil {
			wait = r.step()
		} // otherwise get has paused
		select {
		case <-b.life.Done():
		case <-b.health.changed:
		case <-time.After(wait):
		}
	}
}

// redeclarer is the state of keepDeclared.
type redeclarer struct {
	*Broker
	checked   string            // the peer that the last periodic check was of
	nextCheck time.Time         // when the objects of the next peer are to be declared again
	failures  map[string]string // by peer: the last logged error
}

// step repeats the declarations from before RabbitMQ was lost, if there are any; otherwise,
// if it is time, that of the next peer. It returns the time until its next call.
func (r *redeclarer) step() time.Duration {
	epoch := r.health.currentEpoch()
	stale := r.peers(func(d declaration) bool { return d.epoch < epoch })
	failed := false
	for _, id := range stale {
		if r.redeclarePeer(id) != nil {
			failed = true
		}
		if r.health.currentEpoch() != epoch {
			return 0
		}
	}
	switch {
	case failed:
		return redeclarePause
	case len(stale) > 0:
		r.log.Info("everything is declared again in RabbitMQ", "peers", len(stale))
		return time.Until(r.nextCheck)
	case time.Now().Before(r.nextCheck):
		return time.Until(r.nextCheck)
	}
	all := r.peers(func(declaration) bool { return true })
	pause := max(checkStep, r.opts.checkInterval/time.Duration(max(1, len(all))))
	r.nextCheck = time.Now().Add(pause)
	if len(all) == 0 {
		return pause
	}
	next, _ := slices.BinarySearch(all, r.checked+"\x00")
	r.checked = all[next%len(all)]
	_ = r.redeclarePeer(r.checked)
	return pause
}

// peers returns the sorted IDs of the peers with declarations for which wanted returns
// true.
func (r *redeclarer) peers(wanted func(declaration) bool) (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, d := range r.declared {
		if wanted(d) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// redeclarePeer repeats the declaration of a peer, and logs failures.
func (r *redeclarer) redeclarePeer(id string) error {
	err := r.changeObjects(r.life, func() error {
		q := r.lastDeclaration(id)
		if q == nil {
			return nil // Unbind was called meanwhile
		}
		return r.redeclare(r.life, *q)
	})
	switch {
	case err == nil:
		delete(r.failures, id)
	case r.life.Err() == nil && r.failures[id] != err.Error():
		r.failures[id] = err.Error()
		r.log.Warn("objects of a peer may be missing in RabbitMQ, and can not be declared again now", "peer", id, "err", err)
	}
	return err
}

// logVanished logs the objects of a peer that had vanished and were declared again.
func (b *Broker) logVanished(q broker.PeerBinding, vanished objects) {
	if len(vanished.queues) > 0 {
		b.log.Warn("queues had vanished from RabbitMQ, with their messages; the queues are declared again", "peer", q.PeerID, "queues", strings.Join(vanished.queues, " "))
	}
	if len(vanished.exchanges) > 0 {
		b.log.Warn("exchanges had vanished from RabbitMQ, which has not accepted or has dropped the messages of applications meanwhile; the exchanges are declared and bound again",
			"peer", q.PeerID, "exchanges", strings.Join(vanished.exchanges, " "))
	}
}
