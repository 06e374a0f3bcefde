// Package local implements the local door, through which the node's own applications
// use the embedded broker: a STOMP server with subscriptions, on loopback and on a
// Unix socket. It has the destinations of RabbitMQ's STOMP plugin, so that applications
// written for that plugin can use it with any STOMP client library.
//
// # Authentication
//
// A client must send the passcode, which is in a file of the state folder that only the
// node's user can read. The door generates the passcode if the file does not exist. When
// a door opens with a TCP port, it replaces a generated passcode, because another process
// may have listened on the port meanwhile. The passcode is required on the Unix socket
// too, and cannot be turned off: every user of a machine can connect to loopback
// addresses. Any login and host are accepted.
//
//	passcode    the passcode
//	door.sock   the Unix socket
//	door.json   the addresses of the door that is open now, and the node that it belongs to
//	door.lock   locked as long as the door is open
//
// [Dial] uses these files to find the door and its passcode.
//
// # Sending messages
//
//	SEND                                          /exchange/<exchange>/<routing key>
//	destination:/exchange/to_creditors/00.00.01.05.00.00.00.07
//	type:ConfigureAccount                         the SMP message type
//	content-type:application/json
//	receipt:77                                    optional: requests a RECEIPT
//
// With a receipt header, RECEIPT is sent when the message is on disk, one for each
// message. A message that could not be sent to the peer (see [Messages]) is answered with an
// ERROR that has the reason and its receipt-id, and the connection is closed, as STOMP requires.
// The same applies to a message for which there is no disk space. With the header
// "if-invalid:set-aside", a message that could not be sent to the peer gets its RECEIPT, and is set
// aside with the reason. A message whose routing key is in no active peer's range gets
// its RECEIPT: it is answered in the inbox ([Messages].Answer), or set aside. Messages sent earlier on the connection are confirmed first. Every message
// is durable, whatever the "persistent" header contains.
//
// # Receiving messages
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
// Subscriptions to the inbox compete, on one connection and on several: each message is
// delivered to one of them. It stays in the store until it is acknowledged:
//
//   - ack:client-individual: by ACK of this message. This is what
//     applications should use.
//   - ack:client: by ACK of this message, or of a later one of the same
//     subscription.
//   - ack:auto: automatically, once it is written to the connection. Messages
//     in flight when the application crashes are lost. At most prefetch-count
//     messages are being removed from the store at any time.
//
// Clients of STOMP 1.0 and 1.1 acknowledge a message by its message-id, and need not name the
// subscription. A subscription without id is named by its destination. With prefetch-count 0,
// a subscription gets as many messages as the connection may have.
//
// With a receipt header, ACK is answered when the removal is on disk. When a
// subscription or its connection ends, its unacknowledged messages are delivered to
// another subscription, with redelivered:true. The message-id is the same then, also
// after a restart, and is never used for another message, even after a state folder was
// lost or restored from a backup. So an application can detect messages that it has
// processed already.
//
// NACK returns a message to the inbox after a pause of a second, during which the message
// counts against the prefetch-count: so a message that no application accepts is redelivered
// slowly, and does not block others. With requeue:false the message is removed instead,
// as in RabbitMQ without a dead-letter exchange. An ACK or NACK is an error unless it is for
// an unacknowledged message of the connection.
//
// SUBSCRIBE to /exchange/<inbox>/# delivers copies of messages that arrive from then
// on, and removes nothing. The number of copies that a slow client misses is in the
// header "missed" of the next copy.
//
// # Transactions
//
// SEND, ACK and NACK with the header of a transaction (BEGIN) are done by its COMMIT, in one
// transaction of the store: all or nothing, and on disk when the receipt of the COMMIT is
// sent. A message is checked, and refused, at SEND. After ABORT, the client holds again the
// messages that it has acknowledged; when the connection ends, its transactions are aborted.
// What an ACK acknowledges is decided when the door reads it: with ack:client all messages
// delivered before.
//
// # Bounds
//
// There are bounds on the number of connections, on the number of those that have not
// sent the passcode yet, on the subscriptions, unacknowledged messages and pending
// operations of each connection, on its transactions, on the sizes of frames, and on the time of everything
// that waits for a client. While a client does not read, the door does not read from it
// either. A wrong passcode is answered after a pause. Connections that have not sent the
// passcode do not block others: if there are too many, one of them is closed when the next
// is accepted, the oldest of the user with the most.
//
// # Implementation
//
// Each connection has a session. One goroutine reads frames and starts operations of the
// store, which calls back when they are durable; one goroutine writes the queued
// receipts; and one for each subscription moves messages from the store to the
// connection. No goroutine is started for a message. Every session ends in the same way,
// whatever the reason (session.run): deliveries stop, pending operations are awaited and
// answered, the last frame is written.
package local
