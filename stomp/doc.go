// Package stomp carries messages from one program to another over any
// [net.Conn], in the frames of STOMP 1.2. It knows nothing of what the messages
// say, nor of how the connection was secured.
//
// # Three layers
//
//	Client, Server       a session: messages one way, receipts the other
//	Conn                 a connection: frames both ways, batches, heart-beats, an orderly end
//	Reader, AppendFrame  the wire format: bytes to frames and back, within Limits
//
// Each can be used without those above it. A server that offers subscriptions
// is built on [Conn]: [Conn.Accept] does the opening handshake, then frames are
// read and written at will.
//
// # A session
//
// The session is the one of the "STOMP Message Transport for the Swaptacular
// Messaging Protocol": messages flow from client to server only.
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
// A receipt confirms its message and all those before it, so one receipt can
// answer a thousand messages, and the client has many in flight: up to
// [ClientConfig].Window. The server gives a receipt only once its user says so,
// with [Server.Confirm]. The receipt of a DISCONNECT confirms everything. ERROR
// ends the connection; whatever is unconfirmed then may or may not have
// arrived, and has to be sent again on the next connection.
//
// # Batches and back pressure
//
// [Conn.WriteFrame] appends to a buffer, and one goroutine for each connection
// writes out whatever has gathered since its last write. A lone frame therefore
// goes out at once, and a flood goes out in large writes; no timer decides.
// Every queue has a bound: a full buffer blocks the writer of frames, a full
// window blocks [Client.Send], and a [Server] whose Next is not called reads
// nothing, which fills the peer's TCP window. So back pressure travels from one
// store to the other. It is bounded in time too: a peer that accepts no bytes
// for [WriteTimeout] loses the connection ([ErrStalled]).
//
// # Heart-beats
//
// Each side offers and asks for an interval, see [HeartBeat]. An idle
// connection sends an end-of-line each interval, and every byte received is a
// sign of life. When there was none for the agreed interval plus a grace for
// slow networks, the connection is lost ([ErrSilent]). So it is when a frame has
// begun and is not complete after half a minute and a second for each 1,000 bytes
// that it may have ([ErrSlow]): a byte now and then is a sign of life, but of no
// use. The intervals used are never shorter than what this side chose, so no peer
// can ask for a flood. Nor may it send one: line ends between frames are limited
// to 1,000, 10 after each frame, and 100 a second, and so are receipts that confirm
// nothing new, to 1,000 and 100 a second.
//
// # Strict and lenient
//
// Input is taken as the grammar of STOMP 1.2 has it, and everything else is a
// [ProtocolError], with these decisions where the specification or the world is
// not of one mind:
//
//   - STOMP 1.2 does not escape headers of CONNECT and CONNECTED, but many
//     programs do. Here they are written escaped: without a backslash, colon or
//     line end in a value, both forms are the same, and with a colon most
//     parsers would take no other. In these frames an escape is read as one, a
//     backslash that begins none is just a backslash, and a value may have
//     colons. In all other frames such a thing is an error.
//   - A NUL must follow exactly content-length bytes of body, where the header
//     is given.
//   - Header names and values must be valid UTF-8. Nothing is trimmed.
//   - Of a repeated header the first counts.
//   - A repeated receipt for the last confirmed message is ignored, unless there
//     are very many. A receipt for an earlier one, for one never sent, or for
//     anything else is an error.
//
// What is written never exceeds the limits of the most restrictive known
// reader, see [DefaultLimits].
package stomp
