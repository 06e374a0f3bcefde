package embedded

import "time"

// checkOtherProcesses notifies all waiting consumers if another process has written.
// Errors are ignored: they recur in the next transaction, which reports them.
func (w *writer) checkOtherProcesses() {
	if changed, err := w.db.changedByOthers(); err == nil && changed {
		_ = w.noteOtherProcesses()
	}
}

// poll detects changes of the file and the disk by other processes.
func (w *writer) poll() {
	w.checkOtherProcesses()
	if err := w.db.inPlace(); err != nil {
		w.failed(err)
		return
	}
	if len(w.held) == 0 && !time.Now().Before(w.retry) {
		w.tryAgain() // no operation would show whether messages can be stored again
	}
	if time.Since(w.diskChecked) >= w.diskCheckInterval {
		w.checkDisk()
		w.diskChecked, w.worked = time.Now(), false
	}
}

// tryAgain ends the trouble, if there is any and what could not be written could be now.
func (w *writer) tryAgain() {
	if w.lastError() == nil {
		return
	}
	if err := w.canStore(); err != nil {
		w.failed(err)
		w.setRetry()
		return
	}
	w.recovered()
}

// canStore returns the reason if messages like those that could not be written since the
// trouble began can not be stored: it checks the free space, writes a file, since the free
// space does not account for a user's quota, and commits an empty transaction.
func (w *writer) canStore() error {
	n := w.unwritten
	n.add(need{kind: received})
	n.bytes = min(n.bytes, maxTrial) // more is for the transaction to show
	if err := w.checkRoomFor(n); err != nil {
		return err
	}
	if err := w.writeTrial(errTrial, n.bytes); err != nil {
		return err
	}
	return w.withReason(w.write(nil), 0)
}

// setRetry doubles the pause before the next attempt.
func (w *writer) setRetry() {
	w.pause = min(max(2*w.pause, firstPause), maxPause)
	w.retry = time.Now().Add(w.pause)
}

// checkDisk measures the free space, and shrinks the file. Read errors are ignored: they
// recur in the next transaction, which reports them.
func (w *writer) checkDisk() {
	inside, err := w.db.freeInside()
	if err == nil && w.shrinks {
		inside, err = w.shrink(inside)
	}
	if err != nil {
		return
	}
	w.reserve.lookFor()
	if free, err := w.disk.freeBytes(); w.reserve.missing && len(w.held) == 0 && err == nil && free+w.db.walBytes() >= w.reserve.size {
		_, _ = w.db.truncate.number() // its space is needed for the reserve
	}
	if w.reserve.missing && w.disk.checkRoom(sent, w.reserve.size) == nil && w.reserve.renew() == nil {
		w.retryNow()
	}
	w.disk.check(inside, &w.reserve)
}

// retryNow makes the next attempt due immediately.
func (w *writer) retryNow() {
	w.retry = time.Time{}
	if len(w.held) > 0 {
		w.retryTimer = time.After(0)
	}
}

// noteOtherProcesses notifies all waiting consumers, and updates the quotas: other
// processes may have removed messages of a peer that waits for its quota, and no operation
// of this process would show that.
func (w *writer) noteOtherProcesses() error {
	w.notifier.notifyAll()
	usage, err := w.db.usage()
	if err == nil {
		w.quotas.update(usage)
	}
	return err
}

// failed records that a transaction has failed, and logs the first failure.
func (w *writer) failed(err error) {
	err = explain(err)
	if t := w.trouble.Load(); t != nil {
		w.trouble.Store(&Trouble{Since: t.Since, Err: err})
		return
	}
	w.trouble.Store(&Trouble{Since: time.Now(), Err: err})
	w.log.Error("can not write the message store; nothing is lost or confirmed, trying again", "err", err)
}

func (w *writer) recovered() {
	w.pause, w.retry, w.retryTimer, w.stopped, w.unwritten = 0, time.Time{}, nil, false, need{}
	w.refuseAtOnce(nil)
	if t := w.trouble.Swap(nil); t != nil {
		w.log.Info("the message store can be written again", "after", time.Since(t.Since).Round(time.Millisecond))
	}
}
