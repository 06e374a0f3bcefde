// Package registry reads a list of accounting authorities: which node ID
// belongs to whom, and to which root key.
//
// # The model
//
// An agent's node ID is derived from its root key, so that nobody can have it
// who lacks the key. An accounting authority's is chosen, and anybody can put it
// into a certificate of their own. Therefore somebody has to say, before a peer
// certificate is issued to an accounting authority, that this root key is indeed
// the one of that authority ("The node's directory", section "Becoming peers").
// It may be a person who compares fingerprints ([ParseFingerprint] reads what
// they type), or a registry:
//
//	list, err := registry.Load(ctx, source, key)
//	entry, err := list.Check(id, rootKey)   // ErrUnlisted, ErrMismatch, or found and equal
//
// A [List] is a file in a small part of TOML, described in docs/registry.md. It
// may end with an Ed25519 signature, over all bytes above it. What makes a list
// worth believing is up to the caller:
//
//   - With the publisher's public key ([ParseKey]), the list must be signed by
//     it, wherever it comes from. This is the way for a list that many nodes use:
//     a break-in on the server that hands it out, or into one of the many
//     certificate authorities of the Web, then forges nothing.
//   - Without a key, a file is believed because it is the reader's own, and a
//     list fetched by https because the server is the one that was named. A list
//     fetched by plain http is refused.
//
// An old list with a good signature would bring back what has been corrected
// since. A list can say until when it is valid, and is refused afterwards
// ([ErrExpired]).
//
// A list is believed as a whole or not at all: one bad line, one unknown key,
// one node ID that is there twice, and it is refused ([ErrFormat]). Nothing is
// read from a list before its signature has been verified.
package registry
