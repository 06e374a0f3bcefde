package link

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/node"
)

// untilDue polls a follower once a second, as a service does, until a fetch is due, and returns how
// long that took.
func untilDue(t *testing.T, f *follower, cfg Follow) time.Duration {
	t.Helper()
	start := time.Now()
	for !f.due(cfg) {
		if time.Sleep(time.Second); time.Since(start) > 3*cfg.MaxPause {
			t.Fatal("no fetch is due")
		}
	}
	return time.Since(start)
}

// defaultFollow returns the times of a service, without periodic fetches.
func defaultFollow() (cfg Follow) {
	cfg.setDefaults()
	cfg.Every = 10_000 * time.Hour
	return cfg
}

// However long a peer was unreachable, and however long ago it announced the same URL before, the URL
// that it announces when it connects is fetched from within a minute and a half, and if the info-bundle
// is not there yet, again after pauses that grow from two minutes.
func TestAnnouncementIsFetchedSoon(t *testing.T) {
	const limit = 90*time.Second + time.Second // with the poll
	cfg := defaultFollow()
	root := new(x509.Certificate)
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			var f follower
			f.due(cfg)
			f.recordFailure(cfg)
			for range 10 { // the pauses have grown to their maximum
				untilDue(t, &f, cfg)
				f.begin()
				f.end(cfg, nil, errTest)
			}
			for _, listed := range []bool{false, true} {
				if !f.recordAnnounced(cfg, "https://new.example/", root, listed) {
					t.Fatal("no fetch is due soon")
				}
				if took := untilDue(t, &f, cfg); took > limit {
					t.Errorf("listed %v: the fetch is due after %v", listed, took)
				}
				f.begin()
				f.end(cfg, nil, errTest)
				for want := 2 * time.Minute; want < 10*time.Minute; want *= 2 {
					if took := untilDue(t, &f, cfg); took < want || took > want+want/2+time.Second {
						t.Errorf("listed %v: the next fetch is due after %v, want %v and up to a half more", listed, took, want)
					}
					f.begin()
					f.end(cfg, nil, errTest)
				}
			}
		})
	}
}

// A peer that can be reached causes a fetch by announcing a URL from which nothing was fetched before,
// and none by a URL that is known.
func TestKnownAnnouncements(t *testing.T) {
	cfg := defaultFollow()
	root, otherRoot := &x509.Certificate{Raw: []byte{1}}, &x509.Certificate{Raw: []byte{2}}
	synctest.Test(t, func(t *testing.T) {
		var f follower
		f.due(cfg)
		defer f.addConn()()
		const url = "https://new.example/"
		if f.recordAnnounced(cfg, "https://listed.example/", root, true) {
			t.Error("a URL in the peer's stomp.toml causes a fetch")
		}
		for _, fetched := range []bool{false, true} { // the info-bundle is there at the second fetch
			if !f.recordAnnounced(cfg, url, root, false) {
				t.Error("a URL from which nothing was fetched causes no fetch")
			}
			untilDue(t, &f, cfg)
			f.begin()
			results := map[string]fetchResult{}
			if fetched {
				results[url] = fetchResult{}
			}
			f.end(cfg, results, nil)
		}
		if f.recordAnnounced(cfg, url, root, false) || f.due(cfg) {
			t.Error("a known URL causes another fetch")
		}
		if got := f.urls(nil, root); !slices.Equal(got, []string{url}) {
			t.Errorf("the URLs are %q", got)
		}
		if got := f.urls(nil, otherRoot); got != nil {
			t.Errorf("after the peer was replaced, the URLs are %q", got)
		}
		if !f.recordAnnounced(cfg, url, otherRoot, false) {
			t.Error("the announcement of another node with the ID causes no fetch")
		}
	})
}

// Whatever a peer does and announces, and however fast, a fetch is from no more URLs than a
// stomp.toml may list, and there is at most one in the shortest pause of those that follow its
// failures. No URL that its stomp.toml lists is passed over for long.
func TestAnnouncementsAreBounded(t *testing.T) {
	cfg := defaultFollow()
	root := new(x509.Certificate)
	listed := []string{"a", "b", "c", "d"}
	synctest.Test(t, func(t *testing.T) {
		var f follower
		seen := make(map[string]int)
		rounds := 0
		var last time.Time
		start := time.Now()
		for i := 0; time.Since(start) < 12*time.Hour; i++ {
			f.recordAnnounced(cfg, fmt.Sprint("https://host", i, ".example/"), root, false)
			f.recordAnnounced(cfg, "a", root, true)
			f.addConn()()
			f.recordFailure(cfg)
			if f.due(cfg) {
				now := time.Now()
				if pause := now.Sub(last); rounds > 0 && pause < cfg.After {
					t.Fatalf("two fetches within %v", pause)
				}
				last = now
				rounds++
				f.begin()
				urls := f.urls(listed, root)
				if len(urls) > node.MaxBundleURLs {
					t.Fatalf("fetched from %q", urls)
				}
				for _, u := range urls {
					seen[u]++
				}
				f.end(cfg, nil, errTest)
			}
			time.Sleep(time.Second)
		}
		for _, u := range listed {
			if seen[u] < rounds/2 {
				t.Errorf("%s was fetched from in %d of %d rounds", u, seen[u], rounds)
			}
		}
		if rounds == 0 {
			t.Error("nothing was fetched")
		}
	})
}
