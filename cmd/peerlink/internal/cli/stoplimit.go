package cli

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// maxServiceStop is how long a service may take to end: the default of DrainTimeout in [link.Config] (5 s) plus
	// 5 s, less 300 ms for logging that the service has not ended.
	maxServiceStop = 9700 * time.Millisecond
	// maxStop is how long another command may take to end.
	maxStop = 5 * time.Second
	// lateFlushTimeout is the time limit for writing the rest of a log when a command is ended by limitStop.
	lateFlushTimeout = 200 * time.Millisecond
)

// Errors of a service that does not end in time, on RabbitMQ and on the embedded broker.
var (
	errStopsLate      = fmt.Errorf("the service has not ended within %v: a disk, or the broker, responds too slowly", maxServiceStop)
	errStoreStopsLate = fmt.Errorf("the message store could not be closed within %v after the stop began: its disk responds too slowly; nothing that was confirmed is lost: the next start recovers it from the write-ahead log, as after a kill", maxServiceStop)
)

// errClosesLate is the error of a command that can not close the message store in time.
var errClosesLate = fmt.Errorf("the message store could not be closed within %v: its disk responds too slowly; nothing that is stored is lost, and \"peerlink queue list\" shows whether the last changes are stored", maxStop)

// limitStop bounds how long a command takes to end, since a call to a disk that does not respond can not be
// ended: once ctx is done, or begin is called, and end is not called within limit, the error late is reported and the
// process ends with [exitFailed]. The locks of the message store and of the state folder are not released before: they
// end with the process, and no other process has the store open while this one could still write to it.
//
// The outputs of a must not be replaced afterwards.
func (a *app) limitStop(ctx context.Context, limit time.Duration, late error) (begin, end func()) {
	ctx, begin = context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer begin()
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
			a.exitLate(late)
		case <-ended:
		}
	}()
	return begin, sync.OnceFunc(func() { close(ended) })
}

// exitLate reports an error and ends the process.
func (a *app) exitLate(err error) {
	a.failure("Error:", err)
	for _, l := range a.logs {
		l.Close(lateFlushTimeout)
	}
	if a.exit == nil {
		os.Exit(exitFailed)
	}
	a.exit(exitFailed)
}
