// Package pki makes, parses and verifies Swaptacular certificates. It does not depend on
// directories, commands or networks.
//
// # The model
//
// Every node is a certificate authority, and has one name, an [Identity]:
//
//	O=Swaptacular Nodes Registry, OU=<node type>, serialNumber=<node ID>
//
// There are three kinds of certificates ([SelfSign], [Authority.SignServer] and
// [Authority.SignPeer] make them):
//
//	root     node's name, root key,        signed by itself
//	server   node's name, the server's key, signed by the node's root
//	peer     the PEER's name, the PEER's root key, signed by the node's root
//
// A peer certificate makes the peer's root a subordinate CA of the node's root, but only
// for the peer's own name: a critical name constraint permits no other name. When node B
// connects to node A, B presents two certificates, whose chain ends at A's own root, which
// A trusts:
//
//	A's root ──signs──▶ B's peer certificate ──B's root key signs──▶ B's server certificate
//
// When A connects to B, B presents its server certificate only, which A verifies with B's
// root certificate; A has pinned it when they became peers. [VerifyClient] and
// [VerifyServer] implement these two cases; both use the general [Verify]. There is no
// revocation: whether an authenticated [Identity] is accepted is decided by the caller.
//
// # Name constraints
//
// Only the constraint in the peer certificate prevents a peer from signing a certificate
// in another peer's name. crypto/x509 does not implement constraints on directory names,
// so this package does, according to RFC 5280, sections 4.2.1.10 and 6.1. crypto/x509
// does the rest: building chains, signatures, dates, path lengths, extended key usage,
// and constraints on DNS names, e-mail and IP addresses, and URIs.
//
// Everything that is not completely supported is refused. If two names cannot be
// compared with certainty, because they have characters outside of ASCII whose comparison
// needs Unicode normalization, they are treated as different for permitted subtrees, and
// as equal for excluded subtrees.
//
// Verification differs from RFC 5280 because of crypto/x509. It is stricter in two
// points: issuer and subject names must be equal byte for byte, and self-issued
// intermediates count against the path length. It is less strict in one point, which is
// irrelevant here: a URI or e-mail constraint without a leading period permits subdomains
// of the host too.
//
// # Keys
//
// Root keys are written as PKCS#8 encrypted with a passphrase, server keys as unencrypted
// PKCS#8 ([EncodeEncryptedKey], [EncodeKey]). [DecodeKey] also reads the formats of
// current and earlier versions of OpenSSL. The hash of all signatures is SHA-256. Weak
// keys are refused everywhere except by [Verify]: RSA keys of less than 2048 bits, and elliptic curves other
// than P-256, P-384 and P-521. Servers of peers may also have Ed25519 keys.
//
// # Errors
//
// The error for a refused chain is a [VerifyError] with the broken [Rule], which can be
// tested, for example, with errors.Is(err, pki.RuleDates). The errors for keys are
// [ErrPassphrase], [ErrKeyKind] and [ErrKeyCost]. Data is not signed if the signature could be
// presented as a signature over something else.
//
// All input is considered hostile: limits on sizes, numbers of certificates and names, key
// lengths and the cost of key derivation are checked first.
package pki
