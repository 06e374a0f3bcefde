//go:build linux

package faulttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// kind is a kind of fault.
type kind struct {
	name string
	// on names the part of a node that the fault affects. Faults that affect the same
	// part do not happen at the same time.
	on string
	// fits reports whether the fault is possible on a node; nil means on all nodes.
	fits func(*member) bool
	// do begins the fault, waits for its duration, and ends it.
	do func(*fault)
}

// fault is a planned fault.
type fault struct {
	kind
	world    *world
	node     *member
	after    time.Duration // time from the beginning of its round to its own
	duration time.Duration
	random   *rand.Rand
}

func (f *fault) String() string {
	return fmt.Sprintf("%s of %s after %v for %v", f.name, f.node.name, f.after, f.duration)
}

// wait waits for the duration of the fault.
func (f *fault) wait() { time.Sleep(f.duration) }

func embeddedBroker(m *member) bool { return m.rabbit == nil }
func rabbitBroker(m *member) bool   { return m.rabbit != nil }
func smallDisk(m *member) bool      { return m.limited }

// kinds are all kinds of faults.
var kinds = []kind{
	{"kill", "process", nil, func(f *fault) { f.stopProcess(syscall.SIGKILL) }},
	{"end in good order", "process", nil, func(f *fault) { f.stopProcess(syscall.SIGTERM) }},
	{"freeze", "process", nil, freeze},
	{"no file descriptors", "process", nil, failOpens},
	{"SIGHUP", "process", nil, hangUp},
	{"log stuck", "process", nil, blockLog},
	{"reader of the log gone", "process", nil, breakLog},

	{"cut", "wire", nil, func(f *fault) { f.disrupt((*wireConn).cut) }},
	{"reset", "wire", nil, func(f *fault) { f.disrupt((*wireConn).reset) }},
	{"abandoned connections", "wire", nil, func(f *fault) { f.disrupt((*wireConn).abandon) }},
	{"reset in mid-frame", "wire", nil, func(f *fault) { f.setWays(way{tear: true}, way{}) }},
	{"refusal", "wire", nil, refuse},
	{"halt", "wire", nil, func(f *fault) { f.setWays(way{hold: true}, way{hold: true}) }},
	{"halt one way", "wire", nil, func(f *fault) { f.setWays(way{hold: true}, way{}) }},
	{"silence one way", "wire", nil, func(f *fault) { f.setWays(way{swallow: true}, way{}) }},
	{"silence", "wire", nil, func(f *fault) { f.setWays(way{swallow: true}, way{swallow: true}) }},
	{"delay", "wire", nil, delay},
	{"a byte a second", "wire", nil, func(f *fault) { f.setWays(way{trickle: true}, way{}) }},
	{"duplicate connections", "wire", nil, duplicate},

	{"full disk", "disk", smallDisk, fillDisk},
	{"disk filled and drained", "disk", smallDisk, drainFullDisk},
	{"write errors", "disk", embeddedBroker, failWrites},
	{"RabbitMQ killed", "broker", rabbitBroker, killRabbit},
	{"RabbitMQ frozen", "broker", rabbitBroker, freezeRabbit},
	{"RabbitMQ without its data", "broker", rabbitBroker, resetRabbit},

	{"clock days ahead", "clock", nil, func(f *fault) { f.stepClock(1) }},
	{"clock days behind", "clock", nil, func(f *fault) { f.stepClock(-1) }},

	{"certificate renewed", "directory", nil, renew},
	{"certificate mismatched", "directory", nil, mismatch},
	{expiry, "directory", nil, expire},
	{expiryOpen, "directory", nil, expireOpen},
	{"directory gone", "directory", nil, hideDirectory},

	{"poison", "messages", nil, poison},
}

// Kinds of faults that affect all nodes: their connections have to be made anew.
const (
	expiry     = "certificate expired"
	expiryOpen = "certificate expired on open connections"
)

// stopProcess ends the node's process with a signal and prevents its restart until the fault ends.
func (f *fault) stopProcess(s syscall.Signal) {
	f.node.process.hold(s)
	f.wait()
	f.node.process.release()
}

func freeze(f *fault) {
	f.node.process.signal(syscall.SIGSTOP)
	f.wait()
	f.node.process.signal(syscall.SIGCONT)
}

// disrupt calls do for all connections, repeatedly, for the duration of the fault.
func (f *fault) disrupt(do func(*wireConn)) {
	for end := time.Now().Add(f.duration); ; {
		f.node.wire.each(do)
		if time.Now().After(end) {
			return
		}
		time.Sleep(time.Duration(f.random.IntN(300)) * time.Millisecond)
	}
}

// setWays applies a to one direction of the connections and b to the other, chosen
// at random, for the duration of the fault.
func (f *fault) setWays(a, b way) {
	ways := [2]way{a, b}
	if f.random.IntN(2) == 1 {
		ways[0], ways[1] = b, a
	}
	f.node.wire.set(rules{ways: ways})
	f.wait()
	f.node.wire.set(rules{})
}

func refuse(f *fault) {
	f.node.wire.set(rules{refuse: true})
	f.node.wire.each((*wireConn).reset)
	f.wait()
	f.node.wire.set(rules{})
}

func delay(f *fault) {
	d := time.Duration(1+f.random.IntN(300)) * time.Millisecond
	f.setWays(way{delay: d}, way{delay: d})
}

func duplicate(f *fault) {
	f.node.wire.set(rules{duplicate: true})
	f.disrupt((*wireConn).reset)
	f.wait()
	f.node.wire.set(rules{})
}

// hangUp sends SIGHUP repeatedly, for the duration of the fault.
func hangUp(f *fault) {
	for end := time.Now().Add(f.duration); ; {
		f.node.process.signal(syscall.SIGHUP)
		if time.Now().After(end) {
			return
		}
		time.Sleep(time.Duration(f.random.IntN(100)) * time.Millisecond)
	}
}

// blockLog stops reading the log, while the process writes to it. In half of the cases
// the process is then ended by SIGTERM.
func blockLog(f *fault) {
	undo := f.node.process.blockLog()
	f.disrupt((*wireConn).reset)
	if f.random.IntN(2) == 0 {
		f.node.process.hold(syscall.SIGTERM)
		f.node.process.release()
	}
	undo()
}

// breakLog closes the reader of the log, and ends the process later. The next
// process has a log again.
func breakLog(f *fault) {
	f.node.process.breakLog()
	f.disrupt((*wireConn).reset)
	f.node.process.hold(syscall.SIGTERM)
	f.node.process.release()
}

// pause pauses sending in the affected directions, and waits until no message is in
// flight there. idle reports whether that was reached: another fault may prevent it.
func (f *fault) pause(affected func(*direction) bool) (idle bool, resume func()) {
	var paused []*direction
	for _, d := range f.world.directions {
		if affected(d) {
			d.paused.Add(1)
			paused = append(paused, d)
		}
	}
	idle = f.world.within(bound, func() bool {
		return !slices.ContainsFunc(paused, func(d *direction) bool { return !d.ledger.idle() })
	})
	return idle, func() {
		for _, d := range paused {
			d.paused.Add(-1)
		}
	}
}

// resetRabbit restarts RabbitMQ without its data, as a container without its volume.
// Messages lost with the data are not lost by the node, so sending is paused first
// until no message is in flight.
func resetRabbit(f *fault) {
	idle, resume := f.pause(func(d *direction) bool { return d.from == f.node || d.to == f.node })
	defer resume()
	if !idle {
		f.world.t.Logf("%v: messages are in flight, so RabbitMQ keeps its data", f)
		return
	}
	if err := f.node.rabbit.Reset(); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
	for _, d := range f.world.directions {
		if d.from == f.node {
			d.ledger.forgetPoison()
		}
	}
}

// drainFullDisk fills the disk, and keeps it full until the messages in the store have
// been sent: that needs no disk space.
func drainFullDisk(f *fault) {
	starts := f.node.process.count()
	drained := make(chan bool, 1)
	go func() {
		f.wait()
		idle, resume := f.pause(func(d *direction) bool { return d.from == f.node })
		resume()
		drained <- idle
	}()
	idle := false
	f.fill(func() bool {
		select {
		case idle = <-drained:
			return true
		default:
			return false
		}
	})
	// Another fault may have ended the process, which does not start without disk
	// space.
	if !idle && f.node.process.count() == starts {
		f.world.t.Errorf("%v: the messages in the store were not sent within %v", f, bound)
	}
}

// fillDisk uses up all space of the disk for a while.
func fillDisk(f *fault) {
	end := time.Now().Add(f.duration)
	f.fill(func() bool { return time.Now().After(end) })
}

// fill uses up all space of the disk, and all space that is freed meanwhile, until over
// returns true.
func (f *fault) fill(over func() bool) {
	ballast, err := os.Create(filepath.Join(f.node.settings.State, "ballast"))
	if err != nil {
		f.world.t.Errorf("%v: %v", f, err)
		return
	}
	defer ballast.Close()
	size := int64(0)
	for ; !over(); time.Sleep(5 * time.Millisecond) {
		for piece := int64(16 << 20); piece >= 4<<10; {
			if err = unix.Fallocate(int(ballast.Fd()), 0, size, piece); err == nil {
				size += piece
			} else {
				piece /= 2
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			f.world.t.Errorf("%v: the disk has not become full: %v", f, err)
		}
	}
	if err := os.Remove(ballast.Name()); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
}

// failWrites makes every write to a file fail.
func failWrites(f *fault) {
	defer f.node.process.limit(unix.RLIMIT_FSIZE, 0)()
	f.wait()
}

// failOpens makes the process unable to open files, and to open and accept connections.
// New connections are needed to test that.
func failOpens(f *fault) {
	defer f.node.process.limit(unix.RLIMIT_NOFILE, 0)()
	f.disrupt((*wireConn).reset)
}

// hideDirectory removes the node's directory temporarily, like a network file system
// that is not mounted.
func hideDirectory(f *fault) {
	dir := f.node.settings.Dir
	if err := os.Rename(dir, dir+".away"); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
	f.wait()
	if err := os.Rename(dir+".away", dir); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
}

func killRabbit(f *fault) {
	f.node.rabbit.Kill()
	f.wait()
	if err := f.node.rabbit.Start(); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
}

func freezeRabbit(f *fault) {
	if err := f.node.rabbit.Pause(); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
	f.wait()
	if err := f.node.rabbit.Resume(); err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
}

// stepClock sets the node's clock days ahead or behind, and causes new connections,
// both then and when the clock is right again.
func (f *fault) stepClock(sign int) {
	step := time.Duration(sign*(1+f.random.IntN(20))) * 24 * time.Hour
	f.node.process.setClock(ahead + step)
	if f.random.IntN(2) == 0 {
		f.node.wire.each((*wireConn).reset)
	}
	f.wait()
	f.node.process.setClock(ahead)
}

func renew(f *fault) {
	f.node.certify(f.world.t, certificateLife)
	f.node.wire.each((*wireConn).cut)
}

// mismatch installs a key and a certificate that do not belong together.
func mismatch(f *fault) {
	old, err := os.ReadFile(f.node.settings.Cert)
	if err == nil {
		f.node.certify(f.world.t, certificateLife)
		err = os.WriteFile(f.node.settings.Cert, old, 0o644)
	}
	if err != nil {
		f.world.t.Errorf("%v: %v", f, err)
	}
	f.node.wire.each((*wireConn).cut)
	f.wait()
	f.node.certify(f.world.t, certificateLife)
}

// expire lets the certificate expire while new connections are needed.
func expire(f *fault) {
	const life = 300 * time.Millisecond
	f.node.certify(f.world.t, life)
	time.Sleep(life)
	for _, m := range f.world.members {
		m.wire.each((*wireConn).reset)
	}
	f.wait()
	f.node.certify(f.world.t, certificateLife)
}

// expireOpen lets the certificate expire while connections are open.
func expireOpen(f *fault) {
	const life = time.Second
	f.node.certify(f.world.t, life)
	end := time.Now().Add(life)
	time.Sleep(3 * pollInterval)
	for _, m := range f.world.members {
		m.wire.each((*wireConn).reset)
	}
	time.Sleep(time.Until(end))
	f.wait()
	f.node.certify(f.world.t, certificateLife)
}

// poison puts messages that cannot be delivered into the node's queues.
func poison(f *fault) {
	for _, d := range f.world.directions {
		if d.from == f.node {
			for range 1 + f.random.IntN(5) {
				select {
				case d.poisoned <- f.random.IntN(2) == 0:
				default: // enough poison is in flight
				}
			}
		}
	}
}
