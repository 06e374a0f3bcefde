package registry

import (
	"crypto"
	"fmt"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/node/pki"
)

// List is a registry of accounting authorities that has been read and, if a key
// was given, verified.
type List struct {
	// Signed reports whether the list was verified with a publisher's key.
	Signed bool
	// ValidUntil is when the list ceases to be valid; zero if it does not say.
	ValidUntil time.Time

	entries map[string]Entry
}

// Entry is one accounting authority.
type Entry struct {
	// ID is the node ID (the serialNumber in its certificates), 8 lowercase hex
	// digits.
	ID string
	// Name is whom the ID belongs to, for people to read: up to 200 bytes,
	// without control characters.
	Name string
	// Fingerprint is the root key's, in the form of [pki.Fingerprint].
	Fingerprint string
}

// Len is the number of accounting authorities in the list.
func (l *List) Len() int { return len(l.entries) }

// Lookup finds an accounting authority by its node ID.
func (l *List) Lookup(id string) (Entry, bool) {
	e, ok := l.entries[id]
	return e, ok
}

// Check reports whether root is the root key of the accounting authority with the
// given node ID. The error wraps [ErrUnlisted] or [ErrMismatch]; after
// ErrMismatch no confirmation by anybody should help.
func (l *List) Check(id string, root crypto.PublicKey) (Entry, error) {
	e, ok := l.Lookup(id)
	if !ok {
		return Entry{}, fmt.Errorf("accounting authority %q is %w", excerpt.Of(id), ErrUnlisted)
	}
	if got := pki.Fingerprint(root); got != e.Fingerprint {
		return e, fmt.Errorf("%w for accounting authority %s (%s): expected %s, this one is %s; do not sign it, ask the authority and the registry",
			ErrMismatch, e.ID, e.Name, e.Fingerprint, got)
	}
	return e, nil
}
