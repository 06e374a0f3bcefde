package stomp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// readBuffer is the minimum size of a Reader's buffer: that of the largest TLS record.
const readBuffer = 16 << 10

// errLineTooLong is returned by readLine. Its callers return an error that names the
// line.
var errLineTooLong = errors.New("stomp: line too long")

// Reader reads frames from a stream of bytes. It is not safe for concurrent use.
type Reader struct {
	br       *bufio.Reader
	limits   Limits
	lineEnds allowance // between frames
	raw      bool      // headers are not escaped, as in STOMP 1.0

	// The headers of the frame that is being read; both slices are reused. text contains
	// all names and values, unescaped, one after the other, and ends contains the offsets
	// in text at which they end.
	text []byte
	ends []int
}

// NewReader returns a Reader that accepts frames within the limits. It may read more
// from r than the frames that it returns.
func NewReader(r io.Reader, l Limits) *Reader {
	l = l.orDefault()
	// The buffer must hold the longest line, with its colon and line end.
	size := max(readBuffer, l.Command+2, l.HeaderName+l.HeaderValue+3)
	return &Reader{br: bufio.NewReaderSize(r, size), limits: l, lineEnds: newAllowance()}
}

// ReadFrame returns the next frame, which shares no memory with others. Heart-beats are
// skipped, but far more than needed are an error. The error is [io.EOF] if the stream
// ends between two frames, [io.ErrUnexpectedEOF] if it ends inside a frame, a
// [*ProtocolError] if the bytes are not a frame within the limits, and otherwise an
// error of the stream. After an error no more frames can be read.
func (r *Reader) ReadFrame() (*Frame, error) {
	if err := r.skipHeartBeats(); err != nil {
		return nil, err
	}
	return r.readRest()
}

// readRest is the part of ReadFrame after skipHeartBeats: it reads a whole frame.
func (r *Reader) readRest() (*Frame, error) {
	r.text, r.ends = r.text[:0], r.ends[:0]
	f, err := r.readFrame()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	var violation *ProtocolError
	if errors.As(err, &violation) {
		violation.ReceiptID = r.receipt()
	}
	return f, err
}

// receipt returns the receipt header among the headers of the frame that were read, or "" if
// there is none.
func (r *Reader) receipt() string {
	start := 0
	for i := 0; i+1 < len(r.ends); i += 2 {
		name, value := r.text[start:r.ends[i]], r.text[r.ends[i]:r.ends[i+1]]
		if string(name) == "receipt" {
			return string(value)
		}
		start = r.ends[i+1]
	}
	return ""
}

// skipHeartBeats skips line ends before a frame.
func (r *Reader) skipHeartBeats() error {
	for {
		c, err := r.br.ReadByte()
		if err != nil {
			return err
		}
		if c == '\r' {
			if c, err = r.br.ReadByte(); err == io.EOF {
				return io.ErrUnexpectedEOF
			} else if err != nil {
				return err
			}
			if c != '\n' {
				return protocolErrorf("a carriage return without a line feed between frames")
			}
		}
		if c != '\n' {
			return r.br.UnreadByte()
		}
		if !r.lineEnds.take() {
			return protocolErrorf("too many line ends between frames: %d, and %d a second, are allowed", initialAllowance, allowancePerSecond)
		}
	}
}

func (r *Reader) readFrame() (*Frame, error) {
	line, err := r.readLine(r.limits.Command)
	if err == errLineTooLong {
		err = protocolErrorf("command longer than %d bytes", r.limits.Command)
	}
	if err != nil {
		return nil, err
	}
	if !isCommand(line) {
		return nil, protocolErrorf("%.40q is not a command of capital letters", line)
	}
	f := &Frame{Command: internCommand(line)}
	if err := r.readHeaders(f); err != nil {
		return nil, err
	}
	if length, ok := f.Get("content-length"); ok {
		f.Body, err = r.readBody(f.Command, length)
	} else {
		f.Body, err = r.readBodyToNUL(f.Command)
	}
	if err != nil {
		return nil, err
	}
	r.lineEnds.grant(lineEndsPerFrame)
	return f, nil
}

// readLine reads to the next line end and returns the line without it. The line
// is valid until the next read.
func (r *Reader) readLine(limit int) ([]byte, error) {
	line, err := r.br.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return nil, errLineTooLong
	}
	if err != nil {
		return nil, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
	if len(line) > limit {
		return nil, errLineTooLong
	}
	return line, nil
}

// readHeaders reads the header lines and the empty line after them. All names and values
// share one allocation.
func (r *Reader) readHeaders(f *Frame) error {
	for size := 0; ; {
		line, err := r.readLine(r.limits.HeaderName + 1 + r.limits.HeaderValue)
		if err == errLineTooLong {
			err = protocolErrorf("header %d of %s is longer than a name of %d and a value of %d bytes",
				len(r.ends)/2+1, f.Command, r.limits.HeaderName, r.limits.HeaderValue)
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		if len(r.ends)/2 == r.limits.Headers {
			return protocolErrorf("%s has more than %d headers", f.Command, r.limits.Headers)
		}
		if size += len(line) + 1; size > r.limits.HeaderBytes {
			return protocolErrorf("headers of %s take more than %d bytes", f.Command, r.limits.HeaderBytes)
		}
		if err := r.addHeader(f.Command, line); err != nil {
			return err
		}
	}
	text, start := string(r.text), 0
	f.Headers = make([]Header, len(r.ends)/2)
	for i := range f.Headers {
		nameEnd, valueEnd := r.ends[2*i], r.ends[2*i+1]
		f.Headers[i] = Header{text[start:nameEnd], text[nameEnd:valueEnd]}
		start = valueEnd
	}
	return nil
}

// addHeader adds the name and value of one header line to r.text and r.ends. Errors must
// not quote values: a CONNECT may contain a passcode.
func (r *Reader) addHeader(command string, line []byte) error {
	lenient := isHandshake(command)
	name, value, ok := bytes.Cut(line, []byte(":"))
	switch {
	case !ok:
		return protocolErrorf("header %d of %s has no colon", len(r.ends)/2+1, command)
	case len(name) == 0:
		return protocolErrorf("header %d of %s has no name", len(r.ends)/2+1, command)
	case len(name) > r.limits.HeaderName:
		return protocolErrorf("name of header %.40q of %s is longer than %d bytes", name, command, r.limits.HeaderName)
	case len(value) > r.limits.HeaderValue:
		return protocolErrorf("value of header %.40q of %s is longer than %d bytes", name, command, r.limits.HeaderValue)
	case bytes.IndexByte(line, '\r') >= 0:
		return protocolErrorf("header %.40q of %s has a carriage return that is not escaped", name, command)
	case !lenient && !r.raw && bytes.IndexByte(value, ':') >= 0:
		return protocolErrorf("header %.40q of %s has a colon that is not escaped", name, command)
	}
	for _, s := range [...][]byte{name, value} {
		// Unescaping does not change whether s is valid UTF-8.
		if !utf8.Valid(s) {
			return protocolErrorf("header %.40q of %s is not valid UTF-8", name, command)
		}
		if r.raw {
			r.text = append(r.text, s...)
		} else if r.text, ok = appendUnescaped(r.text, s, lenient); !ok {
			return protocolErrorf("header %.40q of %s has an undefined escape", name, command)
		}
		r.ends = append(r.ends, len(r.text))
	}
	return nil
}

// readBody reads a body of a given length and the NUL after it.
func (r *Reader) readBody(command, length string) ([]byte, error) {
	n, ok := parseDecimal(length)
	if !ok {
		return nil, protocolErrorf("content-length of %s is not a number", command)
	}
	if n > uint64(r.limits.Body) {
		return nil, protocolErrorf("body of %s is larger than %d bytes", command, r.limits.Body)
	}
	var body []byte
	if n > 0 {
		body = make([]byte, n)
		if _, err := io.ReadFull(r.br, body); err != nil {
			return nil, err
		}
	}
	end, err := r.br.ReadByte()
	if err != nil {
		return nil, err
	}
	if end != 0 {
		return nil, protocolErrorf("%s has no NUL after the %d bytes of body that content-length announced", command, n)
	}
	return body, nil
}

// readBodyToNUL reads a body of unknown length and the NUL after it.
func (r *Reader) readBodyToNUL(command string) ([]byte, error) {
	var body []byte
	for {
		part, err := r.br.ReadSlice(0)
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		done := err == nil
		if done {
			part = part[:len(part)-1]
		}
		if len(body)+len(part) > r.limits.Body {
			return nil, protocolErrorf("body of %s is larger than %d bytes", command, r.limits.Body)
		}
		body = append(body, part...)
		if done {
			return body, nil
		}
	}
}

// parseDecimal parses a number of 1 to 18 digits. It accepts nothing but digits.
func parseDecimal(s string) (n uint64, ok bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + uint64(s[i]-'0')
	}
	return n, true
}
