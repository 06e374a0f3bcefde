package registry

import "errors"

var (
	// ErrFormat is returned for what is not a list of accounting authorities, or
	// has a mistake in it.
	ErrFormat = errors.New("not a valid registry")
	// ErrVersion is returned for a list in a later format.
	ErrVersion = errors.New("registry in a format that this version does not know")
	// ErrUnsigned is returned if a list has no signature but needs one: because a
	// key was given, or because it was fetched by plain http.
	ErrUnsigned = errors.New("registry is not signed")
	// ErrSignature is returned if a list was not signed with the given key, or
	// was changed afterwards.
	ErrSignature = errors.New("registry's signature is not valid")
	// ErrExpired is returned for a list that is older than it allows itself to be.
	ErrExpired = errors.New("registry is no longer valid")
	// ErrKey is returned for a text that is not a publisher's public key.
	ErrKey = errors.New("not an Ed25519 public key")
	// ErrUnlisted is returned for a node ID that is not in the list. Nothing is
	// known then; a person may still compare the fingerprint.
	ErrUnlisted = errors.New("not in the registry")
	// ErrMismatch is returned if the list names another key for a node ID.
	// Somebody is using a name that belongs to somebody else.
	ErrMismatch = errors.New("the registry names another root key")
	// ErrFingerprint is returned for a text that is not a fingerprint.
	ErrFingerprint = errors.New("not a fingerprint")
)
