// Package registry reads a list of accounting authorities with the owner and the root key of
// each node ID.
//
// # The model
//
// An agent's node ID is derived from its root key, so that the ID can not be used without the
// key. The ID of an accounting authority is chosen, and any certificate can contain it.
// Therefore it must be confirmed, before a peer certificate is issued to an accounting
// authority, that the root key is the authority's ("The node's directory", section "Becoming
// peers"). The confirmation is given by a person who compares fingerprints ([ParseFingerprint]
// parses a typed one), or by a registry:
//
//	list, err := registry.Load(ctx, source, key)
//	entry, err := list.Check(id, rootKey)   // fails if the list lacks the ID, or has another key for it
//
// A [List] is a file in a small part of TOML, described in docs/registry.md. It
// may end with an Ed25519 signature, over all bytes above it. The caller decides why a list is
// trusted:
//
//   - With the publisher's public key ([ParseKey]), the list must be signed with that key,
//     regardless of its source. This is for lists that many nodes use: an attacker who
//     controls the server, or a certificate authority of the Web, can not forge the list.
//   - Without a key, a file is trusted because it is local, and a list fetched by https
//     because TLS authenticates the server. A list fetched by plain http is refused.
//
// An old list with a valid signature lacks later corrections. A list can contain the end of its
// validity, and is refused afterwards.
//
// A list is accepted only as a whole. A malformed line, an unknown key, or a repeated node ID
// makes the whole list invalid. The content of a list is not parsed before its signature has been
// verified.
package registry
