package registry

import "errors"

var (
	// errFormat is returned for data that is not a valid list of accounting authorities.
	errFormat = errors.New("not a valid registry")
	// errVersion is returned for a list in a later format.
	errVersion = errors.New("registry in a format that this version does not support")
	// errUnsigned is returned if a list has no signature, but a key was given or the list was
	// to be fetched by plain http.
	errUnsigned = errors.New("registry is not signed")
	// errSignature is returned if a list was not signed with the given key, or
	// was changed afterwards.
	errSignature = errors.New("registry's signature is not valid")
	// errExpired is returned for a list after the end of its validity.
	errExpired = errors.New("registry is no longer valid")
	// errKey is returned for a text that is not a publisher's public key.
	errKey = errors.New("not an Ed25519 public key")
	// ErrUnlisted is returned for a node ID that is not in the list. A person may still
	// compare the fingerprint.
	ErrUnlisted = errors.New("not in the registry")
	// errMismatch is returned if the list has another key for a node ID, which means that the
	// root certificate is not that of the ID's owner.
	errMismatch = errors.New("the registry names another root key")
	// errFingerprint is returned for a text that is not a fingerprint.
	errFingerprint = errors.New("not a fingerprint")
)
