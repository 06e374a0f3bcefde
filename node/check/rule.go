package check

// Rule is what a [Finding] says was broken. Its text is an ID that does not
// change, for programs that read reports.
type Rule string

// Rules about files as such.
const (
	// RuleUnreadable: what is there can be read: regular files of a sensible size.
	RuleUnreadable Rule = "file.unreadable"
	// RuleByteOrderMark: text files are in UTF-8, without a byte order mark.
	RuleByteOrderMark Rule = "file.byte-order-mark"
	// RuleIncomplete: the generated files and folders are there.
	RuleIncomplete Rule = "file.missing"
	// RuleLeftover: no temporary files of interrupted commands.
	RuleLeftover Rule = "file.leftover"
)

// Rules about who the node is.
const (
	// RuleNodeType: db/nodetype names a type of node, the one in root-ca.crt.
	RuleNodeType Rule = "node.type"
	// RuleNodeID: db/nodeid holds the node ID, the one in root-ca.crt.
	RuleNodeID Rule = "node.id"
	// RuleCSR: db/root-ca.csr is a request by the root key, in the node's name.
	RuleCSR Rule = "node.csr"
	// RuleConf: root-ca.conf is about this node.
	RuleConf Rule = "node.conf"
)

// Rules about single certificates ("Swaptacular SSL/TLS Certificates").
const (
	// RuleCertMissing: the certificate is there.
	RuleCertMissing Rule = "cert.missing"
	// RuleCertPEM: a file with exactly one certificate.
	RuleCertPEM Rule = "cert.pem"
	// RuleVersion: X.509 version 3.
	RuleVersion Rule = "cert.version"
	// RuleSerial: a positive serial number of at most 20 bytes (RFC 5280).
	RuleSerial Rule = "cert.serial"
	// RuleSubject: exactly O, OU and serialNumber; in server and peer
	// certificates byte for byte as in the holder's root certificate.
	RuleSubject Rule = "cert.subject"
	// RuleNameEncoding: the subject is encoded as the reference does it.
	RuleNameEncoding Rule = "cert.name-encoding"
	// RuleDerivedID: an agent's node ID is derived from its root key.
	RuleDerivedID Rule = "cert.derived-id"
	// RulePublicKey: a peer certificate has the root key of the peer, a server
	// certificate does not have the root key.
	RulePublicKey Rule = "cert.public-key"
	// RuleIssuer: the issuer's name, byte for byte as in its root certificate.
	RuleIssuer Rule = "cert.issuer"
	// RuleSignature: signed with the issuer's root key.
	RuleSignature Rule = "cert.signature"
	// RuleDates: valid now.
	RuleDates Rule = "cert.dates"
	// RuleExpiry: valid for 60 days more.
	RuleExpiry Rule = "cert.expiry"
	// RuleLifetime: root and peer certificates end at least 500 years ahead,
	// server certificates live for about a year.
	RuleLifetime Rule = "cert.lifetime"
	// RuleBasicConstraints: critical; CA:true, or CA:false for servers.
	RuleBasicConstraints Rule = "cert.basic-constraints"
	// RulePathLen: no path length in a root certificate, or at least 1; in peer
	// certificates the reference writes 0.
	RulePathLen Rule = "cert.path-length"
	// RuleKeyUsage: critical; keyCertSign, or digitalSignature and
	// keyEncipherment for servers.
	RuleKeyUsage Rule = "cert.key-usage"
	// RuleExtKeyUsage: not critical; clientAuth and serverAuth for servers, and
	// in others nothing that would forbid these.
	RuleExtKeyUsage Rule = "cert.ext-key-usage"
	// RuleSubjectKeyID: not critical; SHA-1 of the certificate's public key.
	RuleSubjectKeyID Rule = "cert.subject-key-id"
	// RuleAuthorityKeyID: not critical; SHA-1 of the issuer's public key.
	RuleAuthorityKeyID Rule = "cert.authority-key-id"
	// RuleNameConstraints: critical; a peer certificate permits the peer's own
	// O, OU and serialNumber, and nothing else.
	RuleNameConstraints Rule = "cert.name-constraints"
	// RuleComment: not critical; what an accounting authority issues to a peer
	// names the peer's subnet in the nsComment.
	RuleComment Rule = "cert.comment"
	// RuleRefused: accepted by package pki, which knows more reasons to refuse
	// a certificate than the rules above.
	RuleRefused Rule = "cert.refused"
)

// Rules about the records of what the root key has signed.
const (
	// RuleIndexLine: db/index can be read, line by line.
	RuleIndexLine Rule = "index.line"
	// RuleIndexEntry: a line agrees with its certificate.
	RuleIndexEntry Rule = "index.entry"
	// RuleIndexUnlisted: every certificate that the node has issued has a line.
	RuleIndexUnlisted Rule = "index.unlisted"
	// RuleIndexAttr: unique_subject = no, or OpenSSL would refuse to issue a
	// second server certificate.
	RuleIndexAttr Rule = "index.attr"
	// RuleSerialDuplicate: no two certificates with one serial number.
	RuleSerialDuplicate Rule = "serial.duplicate"
	// RuleSerialNext: db/serial holds a number that was not used before.
	RuleSerialNext Rule = "serial.next"
	// RuleCopy: certs/<SERIAL>.pem is the certificate with that serial number,
	// issued by this node.
	RuleCopy Rule = "certs.copy"
	// RuleCopyMissing: every certificate in db/index has a copy in certs/.
	RuleCopyMissing Rule = "certs.missing"
	// RuleCopyUnused: what was signed for a peer, or as a root certificate, is
	// what the node uses.
	RuleCopyUnused Rule = "certs.unused"
)

// Rules about subnets.
const (
	// RuleSubnetOwn: creditors-subnet.txt holds 6 hex digits.
	RuleSubnetOwn Rule = "subnet.own"
	// RuleSubnetFile: subnet.txt, masq-subnet.txt and debtors-subnet.txt are
	// there, and say the same as the comment in the certificate.
	RuleSubnetFile Rule = "subnet.file"
	// RuleSubnetReservation: the files in db/subnets/ are reservations of
	// possible subnets.
	RuleSubnetReservation Rule = "subnet.reservation"
	// RuleSubnetUnreserved: the subnet of a peer is reserved for that peer.
	RuleSubnetUnreserved Rule = "subnet.unreserved"
	// RuleSubnetUnused: what is reserved belongs to a peer.
	RuleSubnetUnused Rule = "subnet.unused"
	// RuleSubnetOverlap: no two peers share an ID.
	RuleSubnetOverlap Rule = "subnet.overlap"
	// RuleSubnetCounter: SEQNUM holds the last number given out.
	RuleSubnetCounter Rule = "subnet.counter"
)

// Rules about peers.
const (
	// RulePeerName: folders in peers/ are named by node IDs.
	RulePeerName Rule = "peer.name"
	// RulePeerType: nodetype.txt names a type that can be a peer.
	RulePeerType Rule = "peer.type"
	// RulePeerIdentity: root-ca.crt is that of the peer: the type in
	// nodetype.txt, and the node ID in the folder's name.
	RulePeerIdentity Rule = "peer.identity"
	// RulePeerSingle: a debtors agent has exactly one peer.
	RulePeerSingle Rule = "peer.single"
	// RulePeerQueues: queues.txt holds a number from 1 to 99.
	RulePeerQueues Rule = "peer.queues"
	// RulePeerState: only registered peers are active or deactivated.
	RulePeerState Rule = "peer.state"
	// RulePeerChain: the peer will accept the chain that this node shows.
	RulePeerChain Rule = "peer.chain"
)

// Rules about nodeinfo.
const (
	// RuleStompTOML: stomp.toml is there and can be used.
	RuleStompTOML Rule = "nodeinfo.stomp"
	// RuleNodeinfoName: files have names that mean nothing to git, Windows or a
	// shell.
	RuleNodeinfoName Rule = "nodeinfo.name"
	// RuleUpdatedAt: updated-at.txt holds a date, not one in the future.
	RuleUpdatedAt Rule = "nodeinfo.date"
	// RulePublished: the info-bundle that is published is sound, the node's, and
	// says what its stomp.toml says.
	RulePublished Rule = "nodeinfo.published"
)

// Rules about keys and access.
const (
	// RuleServerKey: the server's key can be used, and is the certificate's.
	RuleServerKey Rule = "key.server"
	// RuleRootKey: the root key can be read, and is the node's as far as that
	// can be told.
	RuleRootKey Rule = "key.root"
	// RuleKeyEncrypted: the root key is encrypted with a passphrase.
	RuleKeyEncrypted Rule = "key.encrypted"
	// RuleKeyPlace: no key that is not encrypted lies outside of private/.
	RuleKeyPlace Rule = "key.place"
	// RuleKeyMode: keys can be read by their owner only.
	RuleKeyMode Rule = "mode.key"
	// RulePrivateMode: private/ is closed to all but its owner.
	RulePrivateMode Rule = "mode.private"
	// RuleDrill: a backup of the root key was last proved good less than a year
	// ago. A node that has never had a drill is not reminded: it may keep its
	// records elsewhere.
	RuleDrill Rule = "key.drill"
	// RuleWritable: nothing can be changed by just anybody.
	RuleWritable Rule = "mode.writable"
)
