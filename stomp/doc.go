// Package stomp carries messages from one program to another over any [net.Conn], in
// the frames of STOMP 1.2. It does not interpret the messages, and does not depend on
// how the connection is secured.
//
// # Three layers
//
//	Client, Server       a session: messages one way, receipts the other
//	Conn                 a connection: frames both ways, batches, heart-beats, an orderly end
//	Reader, appendFrame  the wire format: bytes to frames and back, within Limits
//
// Each layer can be used without those above it. A server that offers subscriptions is
// built on [Conn]: after the opening handshake ([Conn.Accept]), it reads and writes any
// frames. Such a server may accept clients of STOMP 1.0 and 1.1 too ([Acceptance].Versions).
//
// # A session
//
// The session is that of the "STOMP Message Transport for the Swaptacular Messaging
// Protocol": messages are sent from client to server only.
//
//	client                                     server
//	STOMP accept-version, host, heart-beat →
//	                                         ← CONNECTED version, heart-beat
//	SEND receipt:1 →
//	SEND receipt:2 →
//	SEND receipt:3 →                           (stores them all)
//	                                         ← RECEIPT receipt-id:3
//	DISCONNECT receipt:4 →
//	                                         ← RECEIPT receipt-id:4
//
// A receipt confirms its message and all messages before it, so one receipt can answer
// a thousand messages, and the client may have many in flight: up to
// [ClientConfig].Window. The server sends a receipt only when its user calls
// [Server.Confirm]. The receipt of a DISCONNECT confirms everything. ERROR ends the
// connection; messages that are unconfirmed then may or may not have been received, and
// have to be sent again on the next connection.
//
// # Batches and backpressure
//
// [Conn.WriteFrame] appends to a buffer, and one goroutine for each connection writes
// everything that was appended since its last write. So a single frame is written at
// once, and many frames in large writes, without a timer. Every queue is bounded: a full
// buffer blocks WriteFrame, a full window blocks [Client.Send], and a [Server] whose
// Next is not called reads nothing, which fills the peer's TCP window. So backpressure
// propagates from one store to the other. It is bounded in time too: if a peer has not
// accepted a whole write after [WriteTimeout], the connection ends ([ErrStalled]).
//
// # Heart-beats
//
// Each side offers and requests an interval, see [HeartBeat]. On an idle connection a
// line end is sent a quarter before each interval is over, and every byte received counts as a heart-beat. If
// no byte is received for the agreed interval plus a grace time for slow networks, the
// connection is closed ([ErrSilent]). The connection is also closed if a frame has begun
// and is not complete after half a minute plus a second for each 1,000 bytes that a frame
// may have ([ErrSlow]): a peer that sends single bytes is not silent, but makes no
// progress. The intervals used are never shorter than what this side has configured, so a
// peer cannot request a flood. Nor may a peer send one: the line ends between frames are
// limited to 1,000, and 10 more for each frame, and 100 more for each second. Receipts
// that confirm nothing new are limited to 1,000, and 100 more for each second.
//
// # Strictness
//
// Input that violates the grammar of STOMP 1.2 is a [ProtocolError]. The following
// decisions apply where the specification is ambiguous, or implementations differ:
//
//   - STOMP 1.2 does not escape headers of CONNECT and CONNECTED, but many
//     programs do. This package writes them escaped: if a value has no backslash,
//     colon or line end, the two forms are the same, and if it has a colon, most
//     parsers accept only the escaped form. When these frames are read, an escape
//     is decoded, a backslash that does not begin an escape stands for itself, and
//     a value may contain colons. In all other frames, such a backslash or colon
//     is an error.
//   - A NUL must follow exactly content-length bytes of body, where the header
//     is given.
//   - Header names and values must be valid UTF-8. Nothing is trimmed.
//   - Of a repeated header the first counts.
//   - A repeated receipt for the last confirmed message is ignored, unless there
//     are very many. A receipt for an earlier message, for a message that was never
//     sent, or for anything else is an error.
//
// What is written never exceeds the limits of the most restrictive known
// reader, see [DefaultLimits].
package stomp
