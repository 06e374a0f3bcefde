package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"peerlink/broker/embedded"
	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/node"
)

// Embedded examines the embedded broker. It only reads.
type Embedded struct {
	State     string                 // the state folder
	Store     string                 // the file in it
	Owner     func(*node.Dir) string // returns the owner of the node's store
	PeerQuota int64                  // bytes; 0: no limit
	MinFree   int64                  // bytes that must be free on the disk

	found *embedded.Inspection // nil if there is no store, or it can not be read
}

// The times for which a message may wait, the same as those of the alerts: in a queue that leads to a
// peer, and in an inbox, until an application consumes it.
const (
	maxQueueAge = 15 * time.Minute
	maxInboxAge = time.Hour
)

func (b *Embedded) examine(_ context.Context, e *examination) {
	b.checkState(e)
	b.checkDisk(e)
	const name = "broker"
	if e.skip(name, b.Store, "state") {
		return
	}
	found, err := embedded.Inspect(b.Store, b.Owner(e.dir))
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.cfg.Service == nil:
		e.pass(name, b.Store, "there is none yet: the service makes it when it starts")
	case errors.Is(err, embedded.ErrOwner):
		e.fail(name, b.Store, err.Error(), "name this node's own state folder with --state")
	case err != nil:
		e.fail(name, b.Store, err.Error(), "see docs/operations.md, about a damaged message store")
	default:
		b.found = found
		e.pass(name, b.Store, fmt.Sprintf("queues: %d", len(found.Queues)))
		b.checkInboxes(e)
	}
}

func (*Embedded) close() {}

// checkState checks that the state folder can be used, and only by this user.
func (b *Embedded) checkState(e *examination) {
	const name = "state"
	fi, err := os.Stat(b.State)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.pass(name, b.State, "there is none yet: the service makes it when it starts")
		return
	case err != nil:
		e.fail(name, b.State, err.Error(), "run this command as the user of the service, or name the state folder with --state")
		return
	case !fi.IsDir():
		e.fail(name, b.State, "it is no folder", "name the state folder with --state")
		return
	}
	if err := guard.CheckFolderPath(b.State); err != nil {
		e.fail(name, b.State, err.Error(), "chmod 700 "+b.State+", or name another folder with --state")
		return
	}
	if guard.OpenToGroup(b.State) {
		e.warn(name, b.State, "a group can replace files in it, such as messages and the passcode of applications", "chmod 700 "+b.State)
		return
	}
	e.pass(name, b.State, "nobody else can change it")
}

// checkDisk checks the free space on the disk of the state folder.
func (b *Embedded) checkDisk(e *examination) {
	const name = "disk"
	dir := existingFolder(b.State)
	free, err := embedded.FreeBytes(dir)
	inodes, known := durable.FreeInodes(dir)
	switch {
	case err != nil:
		e.warn(name, dir, "the free space is not known: "+err.Error(), "see that this user can read the folder")
	case free < b.MinFree:
		e.fail(name, dir, fmt.Sprintf("%d MiB are free, and %d are needed: few or no messages are accepted", free>>20, b.MinFree>>20), "free space on this disk, or let the applications consume their messages")
	case known && inodes == 0:
		e.fail(name, dir, "there are no free inodes: the disk can hold no more files, although it has free space", "remove files on this disk")
	case free-b.MinFree < b.PeerQuota:
		e.warn(name, dir, fmt.Sprintf("%d MiB are free, less than the quota of one peer (%d MiB)", free>>20, b.PeerQuota>>20), "free space on this disk, or give the service a lower --peer-quota")
	default:
		e.pass(name, dir, fmt.Sprintf("%d MiB are free", free>>20))
	}
}

// existingFolder returns the folder or, if it does not exist, the first one above it that does.
func existingFolder(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// checkInboxes checks that the applications consume what has arrived for them.
func (b *Embedded) checkInboxes(e *examination) {
	for _, q := range b.found.Queues {
		if q.Depth > 0 && strings.HasSuffix(q.Name, "_in") && e.now.Sub(q.Oldest) > maxInboxAge {
			e.fail("messages", q.Name, fmt.Sprintf("%d messages wait in the inbox, the oldest since %s", q.Depth, q.Oldest.UTC().Format(time.DateTime)),
				"see that the node's applications run, and consume it")
		}
	}
}

func (b *Embedded) examinePeer(_ context.Context, e *examination, s *section, p *node.Peer) {
	if b.found == nil || p.SubCA == nil {
		return
	}
	b.checkBinding(e, s, p)
	b.checkQuota(s, p)
	b.checkMessages(e, s, p)
}

// checkBinding checks that messages for the peer are routed to its queue.
func (b *Embedded) checkBinding(e *examination, s *section, p *node.Peer) {
	const name = "objects"
	if p.Deactivated != "" {
		return
	}
	want, err := bindingOf(e.dir, p, link.DefaultQueuePattern)
	if err != nil {
		s.fail(name, "", err.Error(), peerRemedies["peer.chain"])
		return
	}
	want.Queues, want.Prefix = want.Queues[:1], ""
	got, there := b.found.Bindings[p.Identity.ID]
	switch {
	case there && reflect.DeepEqual(got, want):
		s.pass(name, "", fmt.Sprintf("messages for %s are routed to %s", orAll(want.BindingKey), want.Queues[0]))
	case !p.Active:
		s.warn(name, "", "there is no queue yet", "start the service, which makes it: peerlink serve")
	case !there:
		s.fail(name, "", "messages for the peer are routed to no queue: the store is another one, or an older copy was put back", "start the service again, which makes the queue; messages that were lost with the store have to be sent again by the applications")
	default:
		s.fail(name, "", fmt.Sprintf("messages for %s are routed to %s, expected %s to %s", orAll(got.BindingKey), got.Queues[0], orAll(want.BindingKey), want.Queues[0]), "start the service again, which corrects that")
	}
}

func orAll(key string) string {
	if key == "" {
		return "all accounts"
	}
	return key
}

// checkQuota checks how many bytes of messages from the peer no application has consumed.
func (b *Embedded) checkQuota(s *section, p *node.Peer) {
	const name = "quota"
	used := b.found.Unconsumed[p.Identity.ID]
	text := fmt.Sprintf("%d of %d bytes are used by messages that no application has consumed", used, b.PeerQuota)
	const remedy = "see that the node's applications run, and consume their messages: peerlink queue list; or give the service a higher --peer-quota"
	switch {
	case b.PeerQuota <= 0:
		s.pass(name, "", fmt.Sprintf("%d bytes are used, and there is no limit", used))
	case used >= b.PeerQuota:
		s.fail(name, "", text+": no more are accepted from the peer", remedy)
	case used >= b.PeerQuota-b.PeerQuota/8:
		s.warn(name, "", text, remedy)
	default:
		s.pass(name, "", text)
	}
}

// checkMessages checks that no messages for the peer are stuck.
func (b *Embedded) checkMessages(e *examination, s *section, p *node.Peer) {
	queue := link.DefaultQueuePattern.Name(p.Identity.ID, 0)
	for _, q := range b.found.Queues {
		if q.Name == queue {
			e.reportMessages(s, p.Identity.ID, queueState{q.Depth, q.SetAside, q.Oldest})
			return
		}
	}
}

// queueState is how many messages for a peer wait.
type queueState struct {
	waiting, setAside int64
	oldest            time.Time // zero if it is not known, or none waits
}

// reportMessages adds a check about the messages for a peer. Those that wait because of a fault that
// another check has found are no fault of their own.
func (e *examination) reportMessages(s *section, peer string, q queueState) {
	const name = "messages"
	old := !q.oldest.IsZero() && e.now.Sub(q.oldest) > maxQueueAge
	text := fmt.Sprintf("%d wait", q.waiting)
	if old {
		text += ", the oldest since " + q.oldest.UTC().Format(time.DateTime)
	}
	switch {
	case q.setAside > 0:
		s.fail(name, "", fmt.Sprintf("%d are set aside, because they can not be sent, and %s", q.setAside, text), "see why, and send them again or drop them: peerlink queue show "+peer)
	case old && e.cfg.Service == nil:
		s.fail(name, "", text+", and no service runs", "peerlink serve")
	case old:
		s.fail(name, "", text, "if no other check has failed, look into the log of the service: peerlink links "+peer)
	default:
		s.pass(name, "", text)
	}
}
