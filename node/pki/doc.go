// Package pki knows what Swaptacular certificates are: it makes them, reads
// them, and decides whether a chain of them proves who somebody is. It knows
// nothing of directories, commands or networks.
//
// # The model
//
// Every node is its own certificate authority, and has one name, an [Identity]:
//
//	O=Swaptacular Nodes Registry, OU=<node type>, serialNumber=<node ID>
//
// Three certificates exist ([SelfSign], [Authority.SignServer] and
// [Authority.SignPeer] make them):
//
//	root     node's name, root key,        signed by itself
//	server   node's name, the server's key, signed by the node's root
//	peer     the PEER's name, the PEER's root key, signed by the node's root
//
// A peer certificate turns the peer's root into a subordinate of the node's
// root, but only for the peer's own name: it carries a critical name
// constraint that permits nothing else. So when node B connects to node A, the
// two certificates that B shows end at the root that A trusts, its own:
//
//	A's root ──signs──▶ B's peer certificate ──B's root key signs──▶ B's server certificate
//
// and when A connects to B, B shows its server certificate only, which A checks
// against B's root, pinned since they became peers. [VerifyClient] and
// [VerifyServer] are these two cases; [Verify] is the general one beneath them.
// There is no revocation: a node stops serving a peer by forgetting it, which
// is the business of the caller, as is the question whether an authenticated
// [Identity] is welcome.
//
// # Name constraints
//
// The constraint in the peer certificate is all that stops a peer from signing
// a certificate in another peer's name. crypto/x509 does not implement
// constraints on directory names, so this package does, by RFC 5280, sections
// 4.2.1.10 and 6.1, and leaves to crypto/x509 what it does well: building
// chains, signatures, dates, path lengths, extended key usage, and constraints
// on DNS names, e-mail and IP addresses, and URIs.
//
// The rule throughout is that what is not wholly understood is refused. Where
// two names can not be compared with certainty (letters outside of ASCII, whose
// full comparison needs Unicode normalization) they count as different when a
// name must be permitted, and as equal when it must not be excluded.
//
// Differences to RFC 5280, all on the strict side, which come from crypto/x509:
// issuer and subject names must be equal byte for byte for a chain to be built,
// and self-issued intermediates count against the path length. On the loose
// side there is one, without meaning here: a URI or e-mail constraint without a
// leading period admits subdomains of the host too.
//
// # Keys
//
// Root keys are written as PKCS#8 encrypted with a passphrase, server keys as
// plain PKCS#8 ([EncodeEncryptedKey], [EncodeKey]); [DecodeKey] reads also what
// the different versions of OpenSSL have written over the years. Everything is
// signed with SHA-256. Keys that are too weak are refused wherever they appear: RSA of
// less than 2048 bits, and elliptic curves other than P-256, P-384 and P-521; servers of
// peers may also have Ed25519.
//
// # Errors
//
// A chain that is refused gives a [VerifyError], which names the [Rule] that
// was broken; errors.Is(err, pki.RuleDates) asks for one. Keys have the errors
// [ErrPassphrase], [ErrNotKey], [ErrKeyKind] and [ErrKeyCost]. What is not signed
// because it could be presented as something else gives [ErrAmbiguous].
//
// All input is taken for hostile: sizes, numbers of certificates and names, key
// lengths and the cost of key derivation have limits which are checked first.
package pki
