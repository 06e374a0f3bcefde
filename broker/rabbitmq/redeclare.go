package rabbitmq

import (
	"slices"
	"strings"
	"time"
)

const (
	// checkInterval is how often the objects of each peer are declared again. RabbitMQ may
	// lose them without losing connections: a queue is deleted, or a node of a cluster is
	// replaced.
	checkInterval = time.Minute
	// checkStep is the minimum time between the checks of two peers. Each check takes
	// about ten AMQP methods.
	checkStep = 50 * time.Millisecond
	// keepPause is the time until the next attempt after a failed declaration.
	keepPause = time.Second
)

// keep restores declared objects that RabbitMQ has lost, whether or not the peers are
// reachable: RabbitMQ would silently drop the messages of applications. It reconnects
// after the loss of a connection, and then declares all objects again. It also checks the
// objects of one peer after the other.
func (b *Broker) keep() {
	k := redeclarer{Broker: b, failures: make(map[string]string), due: time.Now().Add(b.opts.checkInterval)}
	for b.life.Err() == nil {
		var wait time.Duration
		if _, err := b.declaring.get(b.life); err == nil {
			wait = k.redeclare()
		} // get waits between failed attempts
		select {
		case <-b.life.Done():
		case <-b.health.changed:
		case <-time.After(wait):
		}
	}
}

// redeclarer is the state of keep.
type redeclarer struct {
	*Broker
	checked  string            // the peer whose objects were checked last
	due      time.Time         // time of the next check
	failures map[string]string // by peer: the last logged error
}

// redeclare repeats the declarations from before RabbitMQ was lost, or else checks the
// objects of the next peer. It returns the time until its next call.
func (k *redeclarer) redeclare() time.Duration {
	epoch := k.health.currentEpoch()
	stale := k.peers(func(d declaration) bool { return d.epoch < epoch })
	failed := false
	for _, id := range stale {
		if k.again(id) != nil {
			failed = true
		}
		if k.health.currentEpoch() != epoch {
			return 0
		}
	}
	switch {
	case failed:
		return keepPause
	case len(stale) > 0:
		k.log.Info("everything is declared again in RabbitMQ", "peers", len(stale))
		return time.Until(k.due)
	case time.Now().Before(k.due):
		return time.Until(k.due)
	}
	all := k.peers(func(declaration) bool { return true })
	step := max(checkStep, k.opts.checkInterval/time.Duration(max(1, len(all))))
	k.due = time.Now().Add(step)
	if len(all) == 0 {
		return step
	}
	next, _ := slices.BinarySearch(all, k.checked+"\x00")
	k.checked = all[next%len(all)]
	_ = k.again(k.checked)
	return step
}

// peers returns the sorted IDs of the peers with declarations for which wanted returns
// true.
func (k *redeclarer) peers(wanted func(declaration) bool) (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, d := range k.declared {
		if wanted(d) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// again repeats the declaration of a peer.
func (k *redeclarer) again(id string) error {
	var missing []string
	err := k.changing(k.life, func() error {
		q := k.before(id)
		if q == nil {
			return nil // Unbind was called meanwhile
		}
		epoch, made, err := k.declareObjects(k.life, *q)
		if err != nil {
			return err
		}
		missing = made
		k.mu.Lock()
		defer k.mu.Unlock()
		k.declared[id] = declaration{*q, epoch}
		return nil
	})
	switch {
	case err == nil:
		delete(k.failures, id)
	case k.life.Err() == nil && k.failures[id] != err.Error():
		k.failures[id] = err.Error()
		k.log.Warn("objects of a peer may be missing in RabbitMQ, and can not be declared again now", "peer", id, "err", err)
	}
	if len(missing) > 0 {
		k.log.Warn("queues had vanished from RabbitMQ, and what was in them; they are declared again", "peer", id, "queues", strings.Join(missing, " "))
	}
	return err
}
