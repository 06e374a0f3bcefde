package registry

import "errors"

var (
	// ErrFormat is returned for data that is not a valid list of accounting authorities.
	ErrFormat = errors.New("not a valid registry")
	// ErrVersion is returned for a list in a later format.
	ErrVersion = errors.New("registry in a format that this version does not know")
	// ErrUnsigned is returned if a list has no signature, but a key was given or the list was
	// to be fetched by plain http.
	ErrUnsigned = errors.New("registry is not signed")
	// ErrSignature is returned if a list was not signed with the given key, or
	// was changed afterwards.
	ErrSignature = errors.New("registry's signature is not valid")
	// ErrExpired is returned for a list after the end of its validity.
	ErrExpired = errors.New("registry is no longer valid")
	// ErrKey is returned for a text that is not a publisher's public key.
	ErrKey = errors.New("not an Ed25519 public key")
	// ErrUnlisted is returned for a node ID that is not in the list. A person may still
	// compare the fingerprint.
	ErrUnlisted = errors.New("not in the registry")
	// ErrMismatch is returned if the list has another key for a node ID, which means that the
	// root certificate is not that of the ID's owner.
	ErrMismatch = errors.New("the registry names another root key")
	// ErrFingerprint is returned for a text that is not a fingerprint.
	ErrFingerprint = errors.New("not a fingerprint")
)
