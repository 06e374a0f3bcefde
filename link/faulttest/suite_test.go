//go:build linux

package faulttest

import (
	"context"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The invariant of the package, in a short run: each kind of fault once, then random
// ones.
func TestFaults(t *testing.T) {
	newWorld(t).short(seedOr(rand.Uint64()))
}

// The invariant in a long run, whose duration is set in the environment: SOAK=1h.
func TestSoak(t *testing.T) {
	text := os.Getenv("SOAK")
	if text == "" {
		t.Skip("skipped: the long run of the fault suite (it is for \"make soak\")")
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	newWorld(t).soak(seedOr(rand.Uint64()), duration)
}

// seedOr returns the seed in the environment, or seed.
func seedOr(seed uint64) uint64 {
	if given, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		return given
	}
	return seed
}

// short runs every kind of fault once, always in the same order, and then some rounds
// that follow from the seed.
func (w *world) short(seed uint64) {
	const rate, rounds, maxDuration = 50, 5, 300 * time.Millisecond
	w.t.Logf("seed %d", seed)
	w.report.Seed, w.report.Rate = seed, rate
	stop := w.traffic(rate)
	todo := w.schedule(1, maxDuration, false).each()
	some := w.schedule(seed, maxDuration, false)
	for range rounds {
		todo = append(todo, some.some())
	}
	for _, r := range todo {
		if !w.round(r) {
			break
		}
	}
	w.finish(stop)
}

// finish ends the run, checks it, and logs the report.
func (w *world) finish(stop func()) {
	stop()
	w.report.Duration = time.Since(w.report.began).Round(time.Second).String()
	w.end()
	w.t.Logf("%s", w.report)
}

// progress logs the progress of the run every ten seconds.
func (w *world) progress(ended <-chan struct{}) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.t.Log(w.report.progress(w.sum()))
		case <-ended:
			return
		}
	}
}

// soak runs random rounds for a time, or until ^C.
func (w *world) soak(seed uint64, duration time.Duration) {
	const rate = 250
	w.t.Logf("seed %d", seed)
	w.report.Seed, w.report.Rate = seed, rate
	stop := w.traffic(rate)
	s := w.schedule(seed, 2*time.Second, true)
	ended := make(chan struct{})
	var progress sync.WaitGroup
	progress.Go(func() { w.progress(ended) })
	ctx, stopWaiting := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stopWaiting()
	for time.Since(w.report.began) < duration && ctx.Err() == nil && w.round(s.some()) {
	}
	close(ended)
	progress.Wait()
	w.finish(stop)
	w.t.Logf("%s", w.report.JSON())
	if path := os.Getenv("SOAK_REPORT"); path != "" {
		if err := os.WriteFile(path, append(w.report.JSON(), '\n'), 0o644); err != nil {
			w.t.Error(err)
		}
	}
}
