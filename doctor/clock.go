package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/pki"
)

const (
	// clockTolerance is by how much files may be newer than the clock.
	clockTolerance = 5 * time.Minute
	// maxDated bounds the files of the directory whose times are compared with the clock.
	maxDated = 1000
	// maxCertFile bounds the size of a certificate's file, in bytes.
	maxCertFile = 64 << 10
)

// checkClock compares the clock with times that have passed already: those of files in the directory,
// of the root certificate, and of the program. If it is behind one of them, it is wrong. Nothing can
// be said about a clock that is ahead.
func (e *examination) checkClock(context.Context) {
	const name, remedy = "clock", "set the clock of this machine, and let it be synchronized (timedatectl set-ntp true)"
	says := e.now.UTC().Format(time.DateTime) + " UTC"
	what, passed := e.latestPast()
	switch {
	case passed.After(e.now.Add(clockTolerance)):
		e.fail(name, "", fmt.Sprintf("it says %s, and %s is of %s", says, what, passed.UTC().Format(time.DateTime)), remedy)
	case !e.isSynchronized():
		e.warn(name, "", says+"; it is not synchronized with others, and peers refuse messages from the future", remedy)
	default:
		e.pass(name, "", says)
	}
}

func (e *examination) isSynchronized() bool {
	if e.cfg.synchronized != nil {
		return e.cfg.synchronized()
	}
	return clockSynchronized()
}

// latestPast returns the latest time that must have passed, and what it is the time of.
func (e *examination) latestPast() (what string, at time.Time) {
	note := func(w string, t time.Time) {
		if t.After(at) {
			what, at = w, t
		}
	}
	note("the program", buildTime())
	if root, err := readCertificate(filepath.Join(e.cfg.Dir, "root-ca.crt")); err == nil {
		note("root-ca.crt", root.NotBefore)
	}
	for _, pattern := range []string{"root-ca.crt", "db/*", "certs/*", "nodeinfo/*", "peers/*"} {
		files, _ := filepath.Glob(filepath.Join(e.cfg.Dir, filepath.FromSlash(pattern)))
		for _, file := range files[:min(len(files), maxDated)] {
			if fi, err := os.Stat(file); err == nil {
				name, _ := filepath.Rel(e.cfg.Dir, file)
				note(filepath.ToSlash(name), fi.ModTime())
			}
		}
	}
	return what, at
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := durable.Read(path, maxCertFile)
	if err != nil {
		return nil, err
	}
	return pki.ParseCertificatePEM(data)
}

// buildTime returns the time of the commit from which the program was built; zero if unknown.
func buildTime() (t time.Time) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				t, _ = time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	return t
}
