package rabbitmq

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
)

// Bounds of the AMQP library for a message's headers. It ends the connection when it receives a
// message that exceeds them, which RabbitMQ does not refuse: the message would be delivered again on
// the next connection, and so on.
const (
	maxHeaderDepth    = 32   // of nested tables and arrays
	maxHeaderElements = 8192 // in each table and array
	// smallHeaders is a size in bytes of headers that can exceed none of these.
	smallHeaders = 150
)

const (
	frameHead       = 7 // type, channel and size of a frame's payload
	contentHeader   = 2 // type of the frame with the properties of a message
	maxContentFrame = 1 << 20
)

// headerFilter reads the frames that RabbitMQ sends, without those headers of messages that exceed
// the bounds of the AMQP library. All other bytes stay as they are.
type headerFilter struct {
	in      *bufio.Reader
	through uint64 // number of the next bytes that stay as they are
	changed []byte // to be read before the next frame
}

func newHeaderFilter(r io.Reader) *headerFilter {
	return &headerFilter{in: bufio.NewReaderSize(r, 1<<15)}
}

func (f *headerFilter) Read(p []byte) (int, error) {
	for {
		switch {
		case len(f.changed) > 0:
			n := copy(p, f.changed)
			f.changed = f.changed[n:]
			return n, nil
		case f.through > 0:
			n, err := f.in.Read(p[:min(uint64(len(p)), f.through)])
			f.through -= uint64(n)
			return n, err
		}
		head, err := f.in.Peek(frameHead)
		if err != nil {
			if len(head) > 0 { // less than a frame's head before the end
				f.through = uint64(len(head))
				continue
			}
			return 0, err
		}
		size := frameHead + uint64(binary.BigEndian.Uint32(head[3:])) + 1
		if head[0] != contentHeader || size < smallHeaders || size > maxContentFrame {
			f.through = size
			continue
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(f.in, frame); err != nil {
			return 0, err
		}
		f.changed = withoutLargeHeaders(frame)
	}
}

// withoutLargeHeaders returns the frame with a message's properties without the headers that exceed
// the bounds. It returns the frame itself if there are none, or if it has another form than expected.
func withoutLargeHeaders(frame []byte) []byte {
	const flagsAt = frameHead + 2 + 2 + 8 // behind class, weight and size of the body
	const hasContentType, hasContentEncoding, hasHeaders, hasMoreFlags = 1 << 15, 1 << 14, 1 << 13, 1
	if len(frame) < flagsAt+2 {
		return frame
	}
	flags := binary.BigEndian.Uint16(frame[flagsAt:])
	if flags&hasHeaders == 0 || flags&hasMoreFlags != 0 {
		return frame
	}
	at := flagsAt + 2
	for _, property := range []uint16{hasContentType, hasContentEncoding} {
		if flags&property == 0 {
			continue
		}
		if at >= len(frame) {
			return frame
		}
		at += 1 + int(frame[at])
	}
	if at+4 > len(frame) {
		return frame
	}
	size := binary.BigEndian.Uint32(frame[at:])
	if uint64(at)+4+uint64(size) > uint64(len(frame)) {
		return frame
	}
	table, rest := frame[at+4:at+4+int(size)], frame[at+4+int(size):]
	good, changed := goodHeaders(table)
	if !changed {
		return frame
	}
	out := append([]byte(nil), frame[:at]...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(good)))
	out = append(append(out, good...), rest...)
	binary.BigEndian.PutUint32(out[3:], uint32(len(out)-frameHead-1))
	return out
}

// goodHeaders returns the headers in a table that the AMQP library can read, and reports whether there
// are others. After one of unknown size, no more headers can be found.
func goodHeaders(table []byte) (good []byte, changed bool) {
	for count := 0; len(table) > 0; {
		nameSize := 1 + int(table[0])
		if nameSize >= len(table) {
			return good, true
		}
		rest, ok := skipField(table[nameSize:], 0)
		if rest == nil {
			return good, true
		}
		if header := table[:len(table)-len(rest)]; ok && count < maxHeaderElements {
			good = append(good, header...)
			count++
		} else {
			changed = true
		}
		table = rest
	}
	return good, changed
}

// fieldSizes are the sizes in bytes of values of fixed size, by their types.
var fieldSizes = map[byte]int{'t': 1, 'B': 1, 'b': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'l': 8, 'f': 4, 'd': 8, 'D': 5, 'T': 8, 'V': 0}

// skipField returns what follows the value at the beginning of b, which is at a depth of nested tables
// and arrays, and reports whether the value is within the bounds. It returns nil if the value has an
// unknown type, or is not complete.
func skipField(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	kind, b := b[0], b[1:]
	if size, fixed := fieldSizes[kind]; fixed {
		if size > len(b) {
			return nil, false
		}
		return b[size:], true
	}
	if !bytes.ContainsRune([]byte("SxAF"), rune(kind)) || len(b) < 4 {
		return nil, false
	}
	size := uint64(binary.BigEndian.Uint32(b))
	if b = b[4:]; size > uint64(len(b)) {
		return nil, false
	}
	content, rest := b[:size], b[size:]
	switch {
	case kind == 'S' || kind == 'x':
		return rest, true
	case depth >= maxHeaderDepth:
		return rest, false
	}
	for count := 0; len(content) > 0; count++ {
		if kind == 'F' {
			nameSize := 1 + int(content[0])
			if nameSize >= len(content) {
				return rest, false
			}
			content = content[nameSize:]
		}
		if content, ok = skipField(content, depth+1); !ok || count >= maxHeaderElements {
			return rest, false
		}
	}
	return rest, true
}
