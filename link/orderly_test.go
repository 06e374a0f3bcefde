package link

import (
	"crypto"
	"crypto/ed25519"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowKey takes a second for each signature, and counts concurrent ones.
type slowKey struct {
	crypto.Signer
	running, most atomic.Int32
}

func (k *slowKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	n := k.running.Add(1)
	defer k.running.Add(-1)
	for most := k.most.Load(); n > most && !k.most.CompareAndSwap(most, n); most = k.most.Load() {
	}
	time.Sleep(time.Second)
	return nil, nil
}

// However many handshakes are running, the number of concurrent signatures is bounded,
// so that they are completed in order of arrival, and none waits longer than that
// takes.
func TestOrderly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &slowKey{Signer: ed25519.PrivateKey(nil)}
		o := limitedSigner{key, make(chan struct{}, 2)}
		start := time.Now()
		var done [10]time.Duration
		var all sync.WaitGroup
		for i := range done {
			all.Go(func() {
				if _, err := o.Sign(nil, nil, crypto.Hash(0)); err != nil {
					t.Error(err)
				}
				done[i] = time.Since(start)
			})
			synctest.Wait() // they start in order
		}
		all.Wait()
		for i, took := range done {
			if want := time.Duration(1+i/2) * time.Second; took != want {
				t.Errorf("number %d was done after %v, want %v", i, took, want)
			}
		}
		if most := key.most.Load(); most != 2 {
			t.Errorf("%d were signed at once", most)
		}
	})
}
