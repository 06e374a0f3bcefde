// Package offline signs certificates and info-bundles with a root key on a machine without
// a network.
//
// Two machines are involved. The online machine has the node's directory, possibly in Git
// or mounted into servers, but not the root key. The offline machine needs only the root
// key. One file is transported in each direction, for example on a USB stick. Neither file
// contains a secret:
//
//	online    [Collect]      everything that waits for the root key becomes one [Request]
//	          carry request.json to the offline machine
//	offline   [ReadRequest]  checks it
//	          [Request.Summary]  says what will be signed; a person reads it and agrees
//	          [Fulfil]       signs it, and makes the [Answer]
//	          [Request.RecordSigned]  records what was signed
//	          carry answer.json back
//	online    [ReadAnswer], [File]  check the answer and put everything in its place
//
// # Records
//
// All records are kept on the online machine, where the reference scripts and OpenSSL may
// change the same directory meanwhile. Values that must be unique are therefore determined
// there, before the request is made: the serial numbers of certificates (which are random),
// the subnets of new peers (an accounting authority's db/subnets), and the date of the
// info-bundle (nodeinfo/updated-at.txt). They are part of the request. Losing a request has
// no consequences: the next request has the same subnets.
//
// # Checks on the offline machine
//
// The offline machine trusts only its key. The root certificate in the request must be
// signed with that key. Info-bundles of peers are complete, and are verified as everywhere
// else; so are the certificate signing requests of servers, which are signed by the servers'
// keys. The operator has to check in the summary what no program can check: the fingerprint
// of a server's key is the one displayed when the key was made, the fingerprint of an
// accounting authority is the one received from its owner, and the addresses in the node's
// own info-bundle are right. If the offline machine has an older copy of the directory,
// [Request.CheckConflicts] compares the request with it, and with what was signed since:
// [Request.RecordSigned] records every certificate (a line in db/offline/signed-certificates) and
// the last info-bundle (db/offline/last-signed), before the answer is handed over. No peer's
// certificate is ever filed in this copy, so besides the reservations of subnets, these records
// are the only data on the offline machine about the peers for which it has signed.
//
// The dates of certificates are determined by the offline machine's clock. If the clock is
// behind the time of the request, the offline machine refuses the request. If the clock is
// ahead, the online machine refuses the answer.
//
// # Checks on the online machine
//
// The online machine stores the request, and accepts only requested items. The answer
// contains the random ID of the request and the SHA-256 of all its bytes, so that the
// request that was displayed and signed is the one that was collected. Each certificate must
// have the requested subject, key, serial number, subnet and validity, and the root key's
// signature. The answer has only the signed part of the info-bundle, which must have exactly
// the requested files; the online machine adds the rest. If anything in an answer is wrong,
// the whole answer is refused, and nothing changes.
//
// A correct answer is filed item by item. The order of changes is the same as when
// [node.Dir] signs: first certs/ and db/index, then the file or the peer's directory, which
// appears atomically. After a crash at any moment the directory is usable, and the same
// answer can be filed again, any number of times. If an item can not be filed, for example
// because the file of a certificate exists, it is reported, and the other items are filed.
//
// # Replacements
//
// A [Replacement] is a peer certificate for a node that takes the place of a peer whose owner has lost
// the root key ([node.Dir.ReplacePeer]). The request has the peer's earlier root certificate, so that the
// summary shows both root keys, also on a machine without a copy of the directory.
// [Request.CompareReplacements] compares the replacement with what this machine knows of the peer. The
// peer stays as it is until the answer is filed. If the peer was replaced by another node meanwhile, the
// item is refused. The record of what was signed names the peer whose place a node takes: only then may
// two certificates have the same ID with different root keys, or the same subnet.
//
// # Waiting requests
//
// Waiting requests are stored in db/offline ([node.RequestsFolder]). Each has a file named
// after its ID, byte for byte the same as the transported file. If the transported file is
// lost, it can be written again ([WaitingRequests]). A request that is no longer needed can be
// removed ([Forget]). The reference scripts ignore additional files in db, the folder of the
// directory's records. Operators who keep the directory in Git commit requests like other
// records, and can collect in one clone and file in another. After filing, a file of one line
// remains, by which a repeated answer is recognized. [node.Dir.Repair] does not release the
// subnets in waiting requests. The reference's init does release debtors subnets; they are
// reserved again when the answer is filed. If another peer has been given such a subnet meanwhile,
// the item with the subnet is refused.
//
// # File formats
//
// Both files are JSON, with a "format" and a "version". Only the exact bytes that this
// package writes for a content are accepted, so that all readers interpret a file in the same
// way. Sizes and numbers are bounded: a file has at most [MaxSize] bytes, and a request at most
// 25 certificates.
package offline
