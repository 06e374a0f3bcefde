package check

// Rule is the ID of the rule that a [Finding] is about. IDs do not change, so that
// programs can rely on them. The comment of each constant describes the state in which
// there is no finding.
type Rule string

// Rules about files as such.
const (
	// RuleUnreadable: existing files are regular, not too large, and can be read.
	RuleUnreadable Rule = "file.unreadable"
	// RuleByteOrderMark: text files are in UTF-8, without a byte order mark.
	RuleByteOrderMark Rule = "file.byte-order-mark"
	// RuleLineEnds: files that the reference's scripts, or openssl, take literally have the line
	// ends of Unix.
	RuleLineEnds Rule = "file.line-ends"
	// RuleConflict: there are no marks of a merge conflict in git.
	RuleConflict Rule = "file.conflict"
	// RuleIncomplete: the generated files and folders exist.
	RuleIncomplete Rule = "file.missing"
	// RuleLeftover: there are no temporary files of interrupted commands.
	RuleLeftover Rule = "file.leftover"
)

// Rules about the node's identity.
const (
	// RuleNodeType: db/nodetype holds a valid type, the same as in root-ca.crt.
	RuleNodeType Rule = "node.type"
	// RuleNodeID: db/nodeid holds the same node ID as root-ca.crt.
	RuleNodeID Rule = "node.id"
	// RuleCSR: db/root-ca.csr is a request in the node's name, signed with the root key.
	RuleCSR Rule = "node.csr"
	// RuleConf: root-ca.conf is the configuration of this node.
	RuleConf Rule = "node.conf"
)

// Rules about single certificates ("Swaptacular SSL/TLS Certificates").
const (
	// RuleCertMissing: the certificate exists.
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
	// RuleNameEncoding: the subject is encoded as the reference encodes it.
	RuleNameEncoding Rule = "cert.name-encoding"
	// RuleDerivedID: an agent's node ID is derived from its root key.
	RuleDerivedID Rule = "cert.derived-id"
	// RulePublicKey: a peer certificate has the root key of its holder, a server
	// certificate does not have the root key, a peer does not have this node's root key.
	RulePublicKey Rule = "cert.public-key"
	// RuleIssuer: the issuer's name is byte for byte as in the issuer's root certificate.
	RuleIssuer Rule = "cert.issuer"
	// RuleSignature: signed with the issuer's root key.
	RuleSignature Rule = "cert.signature"
	// RuleDates: valid now.
	RuleDates Rule = "cert.dates"
	// RuleExpiry: valid for more than 60 whole days from now.
	RuleExpiry Rule = "cert.expiry"
	// RuleLifetime: root and peer certificates end at least 500 years ahead,
	// server certificates are valid for at most 732 days.
	RuleLifetime Rule = "cert.lifetime"
	// RuleBasicConstraints: critical; CA:true, or CA:false for servers.
	RuleBasicConstraints Rule = "cert.basic-constraints"
	// RulePathLen: 0 in a peer certificate, as in the reference; none, or at least 1, in a root
	// certificate.
	RulePathLen Rule = "cert.path-length"
	// RuleKeyUsage: critical; keyCertSign, or digitalSignature and
	// keyEncipherment for servers.
	RuleKeyUsage Rule = "cert.key-usage"
	// RuleExtKeyUsage: not critical; clientAuth and serverAuth for servers. Other
	// certificates must not exclude these purposes for certificates below them.
	RuleExtKeyUsage Rule = "cert.ext-key-usage"
	// RuleSubjectKeyID: not critical; SHA-1 of the certificate's public key.
	RuleSubjectKeyID Rule = "cert.subject-key-id"
	// RuleAuthorityKeyID: not critical; SHA-1 of the issuer's public key.
	RuleAuthorityKeyID Rule = "cert.authority-key-id"
	// RuleNameConstraints: critical; a peer certificate permits the peer's own
	// O, OU and serialNumber, and nothing else.
	RuleNameConstraints Rule = "cert.name-constraints"
	// RuleComment: not critical; the nsComment of a peer certificate issued by an
	// accounting authority has the peer's subnet.
	RuleComment Rule = "cert.comment"
	// RuleRefused: accepted by package pki, which checks more than the rules above.
	RuleRefused Rule = "cert.refused"
)

// Rules about the records of the certificates that the root key has signed.
const (
	// RuleIndexLine: every line of db/index is well-formed.
	RuleIndexLine Rule = "index.line"
	// RuleIndexEntry: a line agrees with its certificate.
	RuleIndexEntry Rule = "index.entry"
	// RuleIndexUnlisted: every certificate that the node has issued has a line.
	RuleIndexUnlisted Rule = "index.unlisted"
	// RuleIndexAttr: db/index.attr has unique_subject = no; otherwise OpenSSL refuses to
	// issue a second server certificate.
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
	// RuleCopyUnused: the peer and root certificates in certs/ are those that the node
	// uses.
	RuleCopyUnused Rule = "certs.unused"
)

// Rules about subnets.
const (
	// RuleSubnetOwn: creditors-subnet.txt holds 6 hex digits.
	RuleSubnetOwn Rule = "subnet.own"
	// RuleSubnetFile: subnet.txt, masq-subnet.txt and debtors-subnet.txt exist, and
	// agree with the comment in the certificate.
	RuleSubnetFile Rule = "subnet.file"
	// RuleSubnetReservation: the files in db/subnets/ are reservations of valid subnets.
	RuleSubnetReservation Rule = "subnet.reservation"
	// RuleSubnetUnreserved: the subnet of a peer is reserved for that peer.
	RuleSubnetUnreserved Rule = "subnet.unreserved"
	// RuleSubnetUnused: every reserved subnet belongs to a peer.
	RuleSubnetUnused Rule = "subnet.unused"
	// RuleSubnetOverlap: the subnets of any two peers of one type are disjoint.
	RuleSubnetOverlap Rule = "subnet.overlap"
	// RuleSubnetCounter: SEQNUM holds the last number that was given.
	RuleSubnetCounter Rule = "subnet.counter"
)

// Rules about peers.
const (
	// RulePeerName: the names of folders in peers/ are node IDs.
	RulePeerName Rule = "peer.name"
	// RulePeerType: nodetype.txt holds a type that can be a peer of this node.
	RulePeerType Rule = "peer.type"
	// RulePeerIdentity: root-ca.crt has the type in nodetype.txt, and the node ID in the
	// folder's name.
	RulePeerIdentity Rule = "peer.identity"
	// RulePeerSingle: a debtors agent has exactly one peer.
	RulePeerSingle Rule = "peer.single"
	// RulePeerQueues: queues.txt holds a number from 1 to 99.
	RulePeerQueues Rule = "peer.queues"
	// RulePeerState: only registered peers are active or deactivated.
	RulePeerState Rule = "peer.state"
	// RulePeerAlias: name.txt, if it exists, holds a name that a peer can have and that no other
	// peer has.
	RulePeerAlias Rule = "peer.alias"
	// RulePeerChain: the peer would accept the certificate chain of this node.
	RulePeerChain Rule = "peer.chain"
)

// Rules about nodeinfo.
const (
	// RuleStompTOML: stomp.toml exists and is valid.
	RuleStompTOML Rule = "nodeinfo.stomp"
	// RuleNodeinfoName: file names have no special meaning for Git, Windows or a shell.
	RuleNodeinfoName Rule = "nodeinfo.name"
	// RuleRevokedKeys: the lists of revoked server keys are valid, and have space.
	RuleRevokedKeys Rule = "nodeinfo.revoked"
	// RuleUpdatedAt: updated-at.txt holds a date, not one in the future.
	RuleUpdatedAt Rule = "nodeinfo.date"
	// RulePublished: the published info-bundle is valid, belongs to the node, and has the
	// node's current stomp.toml.
	RulePublished Rule = "nodeinfo.published"
)

// Rules about keys and access.
const (
	// RuleServerKey: the server's key can be used, and belongs to the certificate.
	RuleServerKey Rule = "key.server"
	// RuleRootKey: the root key can be read. If it is not encrypted, it is the key of
	// root-ca.crt.
	RuleRootKey Rule = "key.root"
	// RuleKeyEncrypted: the root key is encrypted with a passphrase.
	RuleKeyEncrypted Rule = "key.encrypted"
	// RuleKeyPlace: there is no unencrypted key outside of private/, and nothing secret in
	// nodeinfo/.
	RuleKeyPlace Rule = "key.place"
	// RuleKeyMode: keys are readable by their owner only. The root key belongs to this user.
	RuleKeyMode Rule = "mode.key"
	// RulePrivateMode: private/ is accessible by its owner only.
	RulePrivateMode Rule = "mode.private"
	// RuleDrill: the last successful test of a backup of the root key was less than a
	// year ago, and not in the future. There is no finding if no test is recorded: the
	// operator may keep such records elsewhere.
	RuleDrill Rule = "key.drill"
	// RuleGit: if the directory is in a work tree of git, the private folder is ignored there.
	RuleGit Rule = "key.git"
	// RuleWritable: no file or folder is writable by everybody. The directory and private/
	// belong to this user.
	RuleWritable Rule = "mode.writable"
)
