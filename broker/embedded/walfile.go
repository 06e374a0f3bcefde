package embedded

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"slices"
)

// SQLite's file format, section 4.
const (
	walHeaderSize   = 32
	frameHeaderSize = 24
	walMagic        = 0x377f0682 // | 1 if checksums are big-endian
)

// walContent is what a write-ahead log contains.
type walContent struct {
	tokens []uint32 // of the transactions that SQLite reads, see pair.go
	valid  int64    // number of bytes up to the end of the last of them; 0 if the header is invalid
	// unread is the number of transactions that SQLite does not read, because a frame before
	// their last one is invalid. One can be there after a power failure, whose pages were
	// not written in order, and were not synced yet.
	unread int
	// noHeader is set if the log is long enough for a frame, and its header is invalid.
	noHeader bool
}

// isDamaged reports whether transactions that were complete can not be read any more.
func (l *walContent) isDamaged() bool { return l.noHeader || l.unread > 1 }

// continues reports whether the log may belong to a file with this token.
func (l *walContent) continues(inFile uint32) bool {
	return len(l.tokens) == 0 || slices.Contains(l.tokens, inFile) || follows(inFile, l.tokens[0])
}

// endsWith reports whether the transaction with token last is in the log, or in the file,
// whose token is inFile, or was not committed and would have been the next one.
func (l *walContent) endsWith(inFile, last uint32) bool {
	end := inFile
	if n := len(l.tokens); n > 0 {
		end = l.tokens[n-1]
	}
	return last == inFile || slices.Contains(l.tokens, last) || follows(end, last)
}

// readWAL reads a write-ahead log.
func readWAL(path string) (*walContent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	header := make([]byte, walHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return new(walContent), nil
	}
	sum, ok := headerSum(header)
	if !ok {
		_, err := r.Discard(frameHeaderSize)
		return &walContent{noHeader: err == nil}, nil
	}
	l := &walContent{valid: walHeaderSize}
	frame := make([]byte, frameHeaderSize+binary.BigEndian.Uint32(header[8:]))
	l.readTransactions(r, frame, sum, header[16:24])
	l.countUnread(r, frame, header[16:24])
	return l, nil
}

// headerSum returns the checksum after the header of a log, and false if the header is invalid.
func headerSum(header []byte) (walSum, bool) {
	magic, size := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[8:])
	if magic&^1 != walMagic || size < 512 || size > 65536 {
		return walSum{}, false
	}
	sum := walSum{order: binary.LittleEndian}
	if magic&1 != 0 {
		sum.order = binary.BigEndian
	}
	sum.add(header[:24])
	return sum, sum.matches(header[24:])
}

// readTransactions reads frames up to the first one that is invalid, or was written before
// the log was restarted with this salt. That frame is left in frame, and frame is empty at the
// end of the log.
func (l *walContent) readTransactions(r io.Reader, frame []byte, sum walSum, salt []byte) {
	var uncommitted []uint32 // tokens of a transaction whose last frame was not read yet
	for read := l.valid; ; {
		if _, err := io.ReadFull(r, frame); err != nil {
			clear(frame)
			return
		}
		read += int64(len(frame))
		page := frame[frameHeaderSize:]
		sum.add(frame[:8])
		sum.add(page)
		if !bytes.Equal(frame[8:16], salt) || !sum.matches(frame[16:]) {
			return
		}
		if binary.BigEndian.Uint32(frame) == 1 {
			uncommitted = append(uncommitted, binary.BigEndian.Uint32(page[tokenAt:]))
		}
		if isCommit(frame) {
			l.tokens, uncommitted, l.valid = append(l.tokens, uncommitted...), nil, read
		}
	}
}

// countUnread counts the transactions of this salt that end in the invalid frame, which was
// read already, or behind it.
func (l *walContent) countUnread(r io.Reader, frame, salt []byte) {
	for err := error(nil); err == nil; _, err = io.ReadFull(r, frame) {
		if bytes.Equal(frame[8:16], salt) && isCommit(frame) {
			l.unread++
		}
	}
}

// isCommit reports whether a frame is the last one of a transaction.
func isCommit(frame []byte) bool { return binary.BigEndian.Uint32(frame[4:]) != 0 }

// walSum is the running checksum of a write-ahead log.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (s *walSum) add(data []byte) {
	for i := 0; i < len(data); i += 8 {
		s.s0 += s.order.Uint32(data[i:]) + s.s1
		s.s1 += s.order.Uint32(data[i+4:]) + s.s0
	}
}

func (s *walSum) matches(stored []byte) bool {
	return binary.BigEndian.Uint32(stored) == s.s0 && binary.BigEndian.Uint32(stored[4:]) == s.s1
}
