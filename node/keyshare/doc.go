// Package keyshare splits a node's root key into shares for printing on paper. The shares
// are kept by different people and in different places; a given number of them, together
// with the passphrase, restores the key. The package implements shares, their text and
// their printed page, and does not depend on directories or commands.
//
// # The model
//
// Without its root key, a node cannot get new peers or issue new server certificates;
// with a stolen root key, the thief can impersonate the node. [Split] makes N shares of a
// root key, of which any T restore it:
//
//	root key ──▶ compact key ──encrypted with K──▶ sealed key    printed on every page
//	secret S, random ──Shamir, T of N──▶ share values            one on each page
//	K = scrypt(passphrase, salt S)
//
// Without the passphrase, shares do not reveal the key: an attacker with T shares must
// guess the passphrase, at the cost of one scrypt for each guess. Even with the passphrase, T-1
// shares reveal nothing about S, and therefore nothing about K.
//
// The compact key is the smallest part of a private key from which the private key can be
// computed, given the public key, which is in root-ca.crt and not secret: one of the two primes
// of an RSA key, the scalar of an ECDSA key. The sealed key is the encrypted compact key with its
// description. It is by far the longest part of a page, but it is the same on all pages of a split, so it
// has to be typed from one page only; of the other pages, the five lines of the share itself
// are sufficient. That is why S is split into shares, and not the compact key itself: to restore
// an RSA key of 3072 bits from 3 of 5 shares, 43 lines are typed instead of about 80.
//
// [Parse] parses a share, [Combine] combines shares, and [RestoredKey.Open] decrypts the key
// with the passphrase and compares it with the expected public key. Their error texts
// distinguish a mistyped line, a missing line ([ErrIncomplete]), shares of different splits,
// too few shares, a share given twice ([ErrDuplicate]), a manipulated share, another node's
// key ([ErrOtherKey]), and a wrong passphrase ([pki.ErrPassphrase]). A key other than the
// expected one is never returned.
//
// Splitting a key again makes a new split. The old shares still restore the same key until
// they are destroyed.
//
// # Format, version 1
//
// The format is documented completely, so that it can be implemented again if this program
// is no longer available. Numbers are big-endian unless stated otherwise.
//
// A share consists of the share itself and the sealed key, which is the same in all shares of a
// split. The share itself has 50 bytes:
//
//	 0   1  version of the format: 1
//	 1   1  T, the number of shares needed: 2 to N
//	 2   1  N, the number of shares made: 2 to 16
//	 3   1  i, the index of this share: 1 to N
//	 4  14  split ID: the first 14 bytes of SHA-256 over the sealed key
//	18  32  value of the share
//
// The sealed key has 28 + 8·N + c bytes:
//
//	 0   1  node type: 1 accounting authority, 2 creditors agent, 3 debtors agent
//	 1   4  node ID of an accounting authority; zeros for an agent, whose node
//	        ID is the fingerprint
//	 5  16  fingerprint: the first 16 bytes of SHA-256 over the DER encoding of
//	        the root key's SubjectPublicKeyInfo
//	21   2  day on which the shares were made, counted from 1970-01-01
//	23   1  T
//	24   1  N
//	25   1  binary logarithm of the CPU/memory cost parameter of scrypt: 10 to 20
//	26   2  c, the length of the ciphertext
//	28 8·N  for each share, by index, its hash: the first 8 bytes of SHA-256 over
//	        the byte 1, the byte i, and the share's value
//	     c  ciphertext: the encrypted compact key, and 16 bytes of authentication tag
//
// The split ID in a share identifies the sealed key, and the hashes in the sealed key identify
// the shares, so that the replacement of any part is detected.
//
// The values are Shamir's secret sharing over the integers modulo
//
//	ℓ = 2^252 + 27742317777372353535851937790883648493
//
// (the scalars of ristretto255, RFC 9496), each written as 32 bytes, little
// endian. Share i is the value at i of a random polynomial of degree T-1, and
// the secret S is its value at 0.
//
// The compact key is encrypted by ChaCha20-Poly1305 (RFC 8439) with the key K, a nonce
// of zeros (no K is ever used twice, because S is new with each split), and as
// associated data all bytes of the sealed key before the ciphertext. K is scrypt
// (RFC 7914) of the passphrase, with r = 8, p = 1, 32 bytes of output, and as salt the
// 32 bytes of S. Without S, K can not be distinguished from random bytes, even with the
// passphrase, since scrypt hashes its salt with HMAC-SHA-256 first.
//
// The compact key of an RSA key is the smaller of its two primes, without leading
// zeros. The compact key of an ECDSA key on P-256, P-384 or P-521 is its scalar (SEC 1,
// section 2.3.6).
//
// # Lines of words
//
// For typing, a share is a list of lines of eight words, numbered from 1. A line
// carries 12 bytes: 10 bytes of data and a checksum of two bytes. Lines 1 to 5
// are the share itself; the lines from 6 on are the sealed key, padded with zeros to a
// multiple of 10 bytes. A share is valid without the sealed key, but at least one of the
// shares that are combined must have it.
//
// A word encodes 12 bits, the most significant bits first: its index, counted from 0, in the
// following list. Take the words without a hyphen from the EFF's large word list of 2016;
// keep the 4096 shortest of them (of words with the same length, the first in alphabetical
// order); and sort these alphabetically. The list goes from "abacus", "abdomen", "abide" to
// "zoom", no word has more than seven letters, and SHA-256 over the words with a line feed
// after each begins with 24e8c36d98d4a046.
//
// The checksum is the CRC-16 with polynomial 0x1021 and initial value 0xFFFF,
// not reflected, over the number of the line (one byte) and the 10 bytes. The checksum always
// detects one wrong word in a line, two swapped words of a line, and a line in place of
// another. One illegible word can be computed from the checksum.
//
// A reader ignores letter case, hyphens, punctuation and white space, and, if
// lines have numbers, everything that is not on a line with a number.
//
// # QR code
//
// The QR code has the text "PEERLINK-SHARE-1:" followed by base32 (RFC 4648, without
// padding) of the 50 bytes of the share itself, the sealed key, and four bytes of CRC-32
// (IEEE) over both.
package keyshare
