// Package offline gets certificates and info-bundles signed by a root key that
// lives on a machine without a network.
//
// Two machines take part. The online one has the node's directory, perhaps
// under git, perhaps mounted into servers, and no root key. The offline one has
// the root key, and needs nothing else. A stick carries one file each way, and
// neither holds a secret:
//
//	online    [Collect]      everything that waits for the root key becomes one [Request]
//	          carry request.json to the offline machine
//	offline   [ReadRequest]  checks it
//	          [Request.Summary]  says what will be signed; a person reads it and agrees
//	          [Fulfil]       signs it, and makes the [Answer]
//	          carry answer.json back
//	online    [ReadAnswer], [File]  check the answer and put everything in its place
//
// # Who keeps the books
//
// All records stay online, where the reference scripts and OpenSSL may work on
// the same directory in the meantime. So whatever must never be used twice is
// decided there, before the request exists: certificate serial numbers (which
// are random), subnets for new peers (an accounting authority's db/subnets), and
// the date of the info-bundle (nodeinfo/updated-at.txt). They are part of the
// request. A request that gets lost costs nothing: a peer gets the same subnet
// next time.
//
// # What the offline machine believes
//
// Nothing but its key. The root certificate in the request must be signed with
// that very key, so it is authentic. Info-bundles of peers travel whole, and go
// through the same checks as everywhere; so do the requests of servers, which
// are signed by the servers' keys. What no machine can check is left to the
// person, and the summary has it: whether the fingerprint of a server's key is
// the one that was shown when the key was made, whether the fingerprint of an
// accounting authority is the one that its owner has told, and whether the
// addresses in the own info-bundle are right. Where an older copy of the
// directory is at hand, [Request.CheckKnown] holds the request against it.
//
// What is signed gets its dates from the offline machine's clock. A clock that
// is behind the request is refused right there, one that is ahead when the
// answer is filed.
//
// # What the online machine believes
//
// It keeps the request, and does not take anything from the answer that it has
// not asked for. The answer names the request by its random ID and by the
// SHA-256 of all its bytes, so that what was shown and signed is what was
// collected. On top of that each certificate must have the subject, key, serial
// number, subnet and validity that were asked for, and the root key's
// signature. Of the info-bundle the answer has only the signed part, which must
// hold exactly the files that were asked for; the rest is put around it here.
// An answer with anything wrong is refused as a whole, and nothing changes.
//
// A correct answer is then filed item by item, each in the order that [node.Dir]
// uses when it signs by itself: certs/ and db/index first, then the file or the
// peer's directory, which appears as a whole. A crash at any moment leaves a
// directory on which everything works, and the same answer can be filed again,
// any number of times. Items that do not fit into the directory any more, such
// as a certificate whose file has come to exist, are reported, and the others
// are filed.
//
// # Where requests wait
//
// In db/offline ([node.RequestsFolder]), one file for each request,
// byte for byte the one on the stick, named after its ID. If a stick is lost, it
// can be written again ([Waiting]); what shall never come back is forgotten
// ([Forget]). db is where the directory's records are; the reference scripts
// name every file that they use there, and do not mind others. Operators who
// keep the directory under git commit requests like other records, and can
// collect in one clone and file in another. A filed request leaves a file of
// one line, by which it is recognized when it comes a second time. Subnets in
// waiting requests are not released by [node.Dir.Repair]. The reference's init
// does release debtors subnets; they are taken again when the answer is filed,
// unless another peer got one of them, in which case its item is refused.
//
// # File formats
//
// Both files are JSON, with a "format" and a "version". They are read strictly:
// only the exact bytes that this package writes for a content are accepted, so
// no two readers can see different things in one file. Sizes and numbers are
// bounded ([MaxSize], [MaxItems]). Every error about the form wraps [ErrFormat].
package offline
