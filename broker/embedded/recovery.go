package embedded

import (
	"errors"
	"time"
)

// pollForeignCommits calls handleForeignCommit if another process has committed. Errors are
// ignored: they recur in the next transaction, which reports them.
func (w *writer) pollForeignCommits() {
	if changed, err := w.db.changedByOthers(); err == nil && changed {
		_ = w.handleForeignCommit()
	}
}

// poll detects changes of the file and the disk by other processes, and tries to end the
// problem if no postponed operation does so.
func (w *writer) poll() {
	w.pollForeignCommits()
	if err := w.db.checkNotGone(); err != nil {
		w.recordFailure(err)
		return
	}
	if len(w.postponed) == 0 && !time.Now().Before(w.retry) {
		w.tryRecovery()
	}
	if time.Since(w.diskChecked) >= w.diskCheckInterval {
		w.checkDisk()
		w.diskChecked, w.active = time.Now(), false
	}
}

// tryRecovery ends the problem, if there is any, and if messages like those that could not be
// written can be stored now.
func (w *writer) tryRecovery() {
	if w.lastError() == nil {
		return
	}
	if err := w.checkCanStore(); err != nil {
		w.recordFailure(err)
		w.setRetry()
		w.onlyCollecting = w.onlyCollecting && !allowsMaintenance(err) // for maintenance there may be enough space
		return
	}
	w.recordRecovery()
}

// checkCanStore returns an error unless messages like those that could not be written since
// the problem began can be stored now: it checks the free space, writes a file, since the
// free space does not account for a user's quota, and commits an empty transaction.
func (w *writer) checkCanStore() error {
	n := w.unwritten
	n.raiseTo(need{kind: fromPeer})
	n.bytes = min(n.bytes, maxTrial) // if more is missing, the next transaction fails
	if err := w.checkRoomFor(n); err != nil {
		return err
	}
	if err := w.writeTrial(errTrial, n.bytes); err != nil {
		return err
	}
	return w.findReason(w.write(nil), 0)
}

// setRetry schedules the next attempt, after a pause that doubles each time.
func (w *writer) setRetry() {
	w.pause = min(max(2*w.pause, firstPause), maxPause)
	w.retry = time.Now().Add(w.pause)
}

// checkDisk makes the write-ahead log as long as it must be, shrinks the file, creates a missing reserve
// if there is space, and measures the free space. Read errors are ignored: they recur in the next transaction, which reports
// them.
func (w *writer) checkDisk() {
	if w.shrinks {
		_ = w.db.growWAL()
	}
	freeInFile, err := w.db.freeInFile()
	if err == nil && w.shrinks {
		freeInFile, err = w.shrinkFile(freeInFile)
	}
	if err != nil {
		return
	}
	w.reserve.detectRemoval()
	if w.reserve.missing {
		w.createReserve()
	}
	w.disk.check(freeInFile, &w.reserve)
	w.copyWALIfShort()
}

// createReserve creates the reserve if there is space, and then makes the next attempt to write
// due.
func (w *writer) createReserve() {
	if free, err := w.disk.freeBytes(); err == nil && len(w.postponed) == 0 && free+w.db.walBytes()-w.db.keptWAL >= w.reserve.size {
		_ = w.db.truncateWAL() // the space of the write-ahead log is needed for the reserve
	}
	if w.disk.hasRoomForReserve(w.reserve.size) && w.reserve.create() == nil {
		w.retryNow()
	}
}

// retryNow makes the next attempt due immediately.
func (w *writer) retryNow() {
	w.retry = time.Time{}
	if len(w.postponed) > 0 {
		w.retryTimer = time.After(0)
	}
}

// handleForeignCommit notifies all waiting consumers, and reads the sizes of the peers'
// messages again: another process may have stored messages, or removed messages of a peer
// that waits for its quota.
func (w *writer) handleForeignCommit() error {
	w.notifier.notifyAll()
	usage, err := w.db.usage()
	if err == nil {
		w.quotas.update(usage)
	}
	return err
}

// recordFailure begins or continues the problem with err, and logs the first failure.
func (w *writer) recordFailure(err error) {
	err = explain(err)
	w.ioFailed = w.ioFailed || errors.As(err, new(*ioError))
	if t := w.problem.Load(); t != nil {
		w.problem.Store(&Problem{Since: t.Since, Err: err})
		return
	}
	w.problem.Store(&Problem{Since: time.Now(), Err: err})
	w.log.Error("can not write the message store, trying again; nothing is confirmed until it can be written", "err", err)
}

// recordRecovery ends the problem.
func (w *writer) recordRecovery() {
	w.pause, w.retry, w.retryTimer = 0, time.Time{}, nil
	w.onlyCollecting = false
	w.unwritten = need{}
	w.setRefusing(nil)
	if t := w.problem.Swap(nil); t != nil {
		w.log.Info("the message store can be written again", "after", time.Since(t.Since).Round(time.Millisecond))
	}
}
