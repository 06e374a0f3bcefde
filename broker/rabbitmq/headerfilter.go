package rabbitmq

import (
	"bufio"
	"encoding/binary"
	"io"
	"slices"
	"strings"
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
		if size <= uint64(f.in.Size()) {
			if frame, err := f.in.Peek(int(size)); err == nil && !hasLargeHeaders(frame) {
				f.through = size
				continue
			}
		}
		frame := make([]byte, size)
		if _, err := io.ReadFull(f.in, frame); err != nil {
			return 0, err
		}
		f.changed = withoutLargeHeaders(frame)
	}
}

// headersIn returns the bounds of the table with the headers, without the size in front of it, in a frame
// with a message's properties. Both are 0 if there is none, or if the frame has another form than expected.
func headersIn(frame []byte) (from, to int) {
	const flagsAt = frameHead + 2 + 2 + 8 // behind class, weight and size of the body
	const hasContentType, hasContentEncoding, hasHeaders, hasMoreFlags = 1 << 15, 1 << 14, 1 << 13, 1
	if len(frame) < flagsAt+2 {
		return 0, 0
	}
	flags := binary.BigEndian.Uint16(frame[flagsAt:])
	if flags&hasHeaders == 0 || flags&hasMoreFlags != 0 {
		return 0, 0
	}
	at := flagsAt + 2
	for _, property := range []uint16{hasContentType, hasContentEncoding} {
		if flags&property == 0 {
			continue
		}
		if at >= len(frame) {
			return 0, 0
		}
		at += 1 + int(frame[at])
	}
	if at+4 > len(frame) {
		return 0, 0
	}
	size := binary.BigEndian.Uint32(frame[at:])
	if from = at + 4; uint64(from)+uint64(size) > uint64(len(frame)) {
		return 0, 0
	}
	return from, from + int(size)
}

// hasLargeHeaders reports whether withoutLargeHeaders would change the frame.
func hasLargeHeaders(frame []byte) bool {
	from, to := headersIn(frame)
	count := 0
	for table := frame[from:to]; len(table) > 0; count++ {
		rest, ok := skipEntry(table, 0)
		if !ok || count >= maxHeaderElements {
			return true
		}
		table = rest
	}
	return false
}

// withoutLargeHeaders returns the frame with a message's properties without the headers that exceed
// the bounds. After one of unknown size, no more headers can be found.
func withoutLargeHeaders(frame []byte) []byte {
	if !hasLargeHeaders(frame) {
		return frame
	}
	from, to := headersIn(frame)
	out := slices.Clone(frame[:from])
	count := 0
	for table := frame[from:to]; len(table) > 0; {
		rest, ok := skipEntry(table, 0)
		if rest == nil {
			break
		}
		if ok && count < maxHeaderElements {
			out = append(out, table[:len(table)-len(rest)]...)
			count++
		}
		table = rest
	}
	binary.BigEndian.PutUint32(out[from-4:], uint32(len(out)-from))
	out = append(out, frame[to:]...)
	binary.BigEndian.PutUint32(out[3:], uint32(len(out)-frameHead-1))
	return out
}

// skipEntry is skipField for the entry at the beginning of a table: a name and a value.
func skipEntry(b []byte, depth int) (rest []byte, ok bool) {
	nameSize := 1 + int(b[0])
	if nameSize >= len(b) {
		return nil, false
	}
	return skipField(b[nameSize:], depth)
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
	if strings.IndexByte("SxAF", kind) < 0 || len(b) < 4 {
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
	skip := skipField
	if kind == 'F' {
		skip = skipEntry
	}
	for count := 0; len(content) > 0; count++ {
		if content, ok = skip(content, depth+1); !ok || count >= maxHeaderElements {
			return rest, false
		}
	}
	return rest, true
}
