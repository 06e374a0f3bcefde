package node

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/durable"
)

// queuePatternsFile is the name, relative to the node's directory, of the file with the
// patterns of the names of queues that were used so far, one on each line. The reference
// scripts do not use this file.
const queuePatternsFile = "db/queue-patterns.txt"

// maxQueuePatterns is the maximum size of queuePatternsFile in bytes.
const maxQueuePatterns = 64 << 10

// QueuePatterns returns the patterns that were recorded by [Dir.RecordQueuePatterns].
func (d *Dir) QueuePatterns() (patterns []string, err error) {
	data, err := durable.Read(d.file(filepath.FromSlash(queuePatternsFile)), maxQueuePatterns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		if pattern := strings.TrimRight(line, "\r\n"); pattern != "" {
			patterns = append(patterns, pattern)
		}
	}
	return patterns, nil
}

// QueuePatternsStamp returns the fingerprint of the file of the recorded patterns.
func (d *Dir) QueuePatternsStamp() FileStamp {
	return StampFile(d.file(filepath.FromSlash(queuePatternsFile)))
}

// RecordQueuePatterns records patterns of the names of queues, each one line that is not empty.
// After a change of the pattern in use, the recorded patterns are used to find the queues with
// earlier names.
func (d *Dir) RecordQueuePatterns(ctx context.Context, patterns ...string) error {
	known, err := d.QueuePatterns()
	if err != nil || !hasNew(known, patterns) {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if known, err = d.QueuePatterns(); err != nil {
		return err
	}
	for _, p := range patterns {
		if !slices.Contains(known, p) {
			known = append(known, p)
		}
	}
	return durable.Replace(d.file(filepath.FromSlash(queuePatternsFile)), []byte(strings.Join(known, "\n")+"\n"), 0o644)
}

// hasNew reports whether one of the patterns is not known.
func hasNew(known, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return !slices.Contains(known, p) })
}
