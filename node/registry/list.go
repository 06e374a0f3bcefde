package registry

import (
	"crypto"
	"fmt"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/node/pki"
)

// List is a registry of accounting authorities, verified if a key was given.
type List struct {
	// Verified reports whether the list was verified with a publisher's key.
	Verified bool
	// ValidUntil is the end of the list's validity, or zero if there is none.
	ValidUntil time.Time

	entries map[string]Entry
}

// Entry is one accounting authority.
type Entry struct {
	// ID is the node ID (the serialNumber in its certificates), 8 lowercase hex
	// digits.
	ID string
	// Name is the name of the ID's owner, for display: up to 200 bytes, without control
	// characters.
	Name string
	// Fingerprint is that of the root key, in the form of [pki.Fingerprint].
	Fingerprint string
}

// Len returns the number of accounting authorities in the list.
func (l *List) Len() int { return len(l.entries) }

// Lookup returns the accounting authority with the given node ID, and whether the list has it.
func (l *List) Lookup(id string) (Entry, bool) {
	e, ok := l.entries[id]
	return e, ok
}

// Check checks that rootKey is the root key of the accounting authority with the given node ID,
// and returns the entry for the ID, if there is one. The error wraps [ErrUnlisted] if the list
// does not have the ID. Any other error means that the list has another key for the ID: then
// rootKey must be rejected even if a person confirms it.
func (l *List) Check(id string, rootKey crypto.PublicKey) (Entry, error) {
	e, ok := l.Lookup(id)
	if !ok {
		return Entry{}, fmt.Errorf("accounting authority %q is %w", excerpt.Of(id), ErrUnlisted)
	}
	if got := pki.Fingerprint(rootKey); got != e.Fingerprint {
		return e, fmt.Errorf("%w for accounting authority %s (%s): expected %s, but the root certificate has %s; do not sign it, ask the authority and the registry",
			errMismatch, e.ID, e.Name, e.Fingerprint, got)
	}
	return e, nil
}
