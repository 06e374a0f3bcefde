// Package local is the door through which the node's own applications reach the
// embedded broker: a STOMP 1.2 server with subscriptions, on loopback and on a
// Unix socket. An application that was written for RabbitMQ's STOMP plugin
// finds the same destinations here, and its client library need not know the
// difference.
//
// # Who may come in
//
// Whoever knows the passcode, which lies in a file of the state folder that
// only the node's user can read. The door makes it once, and another one whenever it
// opens with a TCP port, since anybody may have listened there meanwhile. It is asked for on
// the Unix socket too, and there is no way to turn it off: every user of a
// machine reaches its loopback. The login is any, as is the host.
//
//	passcode    the passcode
//	door.sock   the Unix socket
//	door.json   the addresses of the door that is open now
//	door.lock   locked as long as the door is open
//
// [Dial] finds the door and its passcode by these files.
//
// # Messages out
//
//	SEND                                          /exchange/<exchange>/<routing key>
//	destination:/exchange/to_creditors/00.00.01.05.00.00.00.07
//	type:ConfigureAccount                         the SMP message type
//	content-type:application/json
//	receipt:77                                    wanted by who wants to be sure
//
// RECEIPT comes when the message is on disk, one for each that was asked for. A
// message that no active peer's range takes, or that is not one this node
// sends, is answered with an ERROR that names its receipt, and with the end
// of the connection, as STOMP has it. So is a message for which
// the disk has no room. What was sent before on the connection is confirmed
// first. Every message is durable, whatever "persistent" says.
// There are no transactions.
//
// # Messages in
//
//	SUBSCRIBE                                     MESSAGE
//	destination:/queue/accounts_in                destination:/exchange/accounts_in/<routing key>
//	id:0                                          subscription:0
//	ack:client-individual                         ack:5@0
//	prefetch-count:100                            message-id:1j2t7ya8ddq9x-4711
//	                                              redelivered:false
//	                                              type:PrepareTransfer
//	                                              content-type:application/json
//	                                              persistent:true
//	                                              debtor-id:-4294967296 ... (application headers)
//
// Subscriptions to the inbox compete, also those of different connections: each
// message goes to one of them. It stays in the store until it is
// acknowledged:
//
//   - ack:client-individual: by ACK of this message. This is what
//     applications should use.
//   - ack:client: by ACK of this message, or of a later one of the same
//     subscription.
//   - ack:auto: by itself, once it is handed over to the connection. What
//     is on its way when the application crashes is lost. No more
//     than prefetch-count messages are on their way out of the store at any
//     time.
//
// With a receipt, ACK is answered when the removal is on disk. What is not
// acknowledged when a subscription or its connection ends is given to another
// one, with redelivered:true. The message-id stays the same then, also after a
// restart, and no other message ever gets it, also after a state folder was
// lost or restored from a backup. So an application can tell by it what it has
// already done.
//
// NACK gives a message back. It pauses for a second first, and counts as
// held meanwhile: so a message that nobody wants goes around slowly, and
// others pass it. With requeue:false it is removed instead, as RabbitMQ does
// without a dead-letter exchange. An ACK or NACK for a message
// that the connection does not hold is an error.
//
// SUBSCRIBE to /exchange/<inbox>/# gives copies of what arrives from then on,
// and takes nothing out. What a slow reader misses is counted in the header
// "missed" of the next copy.
//
// # What is bounded
//
// The number of connections and of those that have not shown the passcode
// yet, subscriptions, messages held and operations under way of each
// connection, sizes of frames, and the time for everything that waits for a
// client. A client that does not read is not read from either. A wrong
// passcode is answered after a pause. Connections without the passcode keep nobody
// out: the oldest one makes room for the next.
//
// # Inside
//
// A connection is a session: one goroutine reads frames and hands operations to
// the store, which calls back when they are durable; one writes the receipts
// that have gathered since; and one for each subscription carries messages from
// the store to the connection. None is started for a message. A session ends in
// one way, whatever the reason (session.run): deliveries stop, what is under
// way is awaited and answered, the last frame is written.
package local
