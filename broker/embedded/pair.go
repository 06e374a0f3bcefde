package embedded

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"peerlink/internal/durable"
)

// errMixed is returned by [Open] for a file and a write-ahead log that are not of the same
// point in time, as after only one of them was restored from a backup, and if one of them is
// missing. SQLite would write pages of the log into the file without detecting that.
var errMixed = errors.New("embedded: message store and write-ahead log do not belong together")

// Each transaction, except to adopt, upgrade or rewrite the file in Open, writes a new
// token to the file's first page (PRAGMA application_id): its upper half is random, its lower
// half is the upper half of the previous token. Pages are written to the file only through the
// write-ahead log, in whole transactions. So the token in the file, read without the log, is
// one of the tokens in the log if a part of the log was checkpointed, or else the token before
// the first one in the log.

// tokenAt is the offset of the token in the first page (SQLite's file format, 1.3).
const tokenAt = 68

// follows reports whether a transaction with token b may immediately follow one with token
// a.
func follows(a, b uint32) bool { return b&0xffff == a>>16 }

// writeToken writes a new token in the current transaction, and records it beside the store
// (see recordToken).
func (w *writeConn) writeToken() error {
	if !w.tokenKnown {
		n, err := w.applicationID.number()
		if err != nil {
			return err
		}
		w.token, w.tokenKnown = uint32(n), true
	}
	next := rand.Uint32()&0xffff0000 | w.token>>16
	if err := w.exec(fmt.Sprintf("PRAGMA application_id = %d", int32(next))); err != nil {
		return err
	}
	w.token = next
	recordToken(w.path(), next)
	return nil
}

// commitChange commits a change that is not an op, in a transaction of its own, with a
// token.
func (w *writeConn) commitChange(change func() error) error {
	if err := w.start(); err != nil {
		return err
	}
	w.tokenKnown = false // another connection may have written
	err := change()
	if err == nil {
		err = w.writeToken()
	}
	if err == nil {
		_, err = w.commit.exec()
	}
	if err != nil {
		w.undo()
	}
	return err
}

// pairAttempts is how often a mismatch is checked again: another process may have the
// store open and be changing it.
const pairAttempts = 10

// checkPair returns [errMixed] if the file and its write-ahead log are not of the same
// point in time. Files that can not be read are left for SQLite to report.
func checkPair(path string) error {
	for range pairAttempts {
		before, _, err := readWAL(path + "-wal")
		if errors.Is(err, os.ErrNotExist) && lacksWAL(path) {
			return fmt.Errorf("%w: %s was not closed, and %[2]s-wal, which may have the last messages, is missing."+
				" If the sqlite3 tool has opened %[2]s here since, everything is in it: make an empty file %[2]s-wal."+
				" Otherwise put %[2]s-wal back from the same moment, or make it an empty file to go on without the last messages",
				errMixed, path)
		}
		if err != nil || before == nil {
			return nil
		}
		token, err := tokenInFile(path)
		if err != nil {
			return nil
		}
		after, tokens, err := readWAL(path + "-wal")
		if err != nil || len(tokens) == 0 || slices.Contains(tokens, token) || follows(token, tokens[0]) {
			return nil
		}
		if bytes.Equal(before, after) {
			return fmt.Errorf("%w: %s and %[2]s-wal are of different moments; put both back from the same moment, or make %[2]s-wal an empty file to use %[2]s without the transactions in %[2]s-wal",
				errMixed, path)
		}
	}
	return nil
}

// lacksWAL reports whether messages may be missing because there is no write-ahead log. This
// is so if the file records that a service has opened the store and not closed it (see
// [writeConn.recordOpen]): until a service closes the store, no connection of this
// package removes the log. But if another program, such as the sqlite3 tool, has moved the
// log's content into the file and removed the log, nothing is missing: the file then has
// the token of the last transaction (see [recordToken]).
func lacksWAL(path string) bool {
	c, err := openConnURI(path, "immutable=1")
	if err != nil {
		return false
	}
	defer c.close()
	closed, err := c.number("SELECT closed FROM store")
	if err != nil || closed != 0 {
		return false
	}
	if token, err := c.number("PRAGMA application_id"); err == nil && isLastToken(path, uint32(token)) {
		return false
	}
	// Another service may have opened the store meanwhile.
	_, err = os.Lstat(path + "-wal")
	return errors.Is(err, os.ErrNotExist)
}

// tokenRecord returns what [recordToken] writes: the token, and the ID of this start of the
// operating system. It returns "" if that ID is unknown.
func tokenRecord(token uint32) string {
	boot := bootID()
	if boot == "" {
		return ""
	}
	return fmt.Sprintf("%08x %s\n", token, boot)
}

// recordToken writes the token of a transaction that is about to be committed to a file
// beside the store. It does not sync the file: isLastToken ignores the record after the next
// start of the operating system, because a power failure may have left an older one. Errors
// are ignored: without a record, lacksWAL reports that messages may be missing.
func recordToken(store string, token uint32) {
	record := tokenRecord(token)
	if record == "" {
		return
	}
	path := store + lastTokenSuffix
	// All records of one start of the operating system have the same length.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|durable.NoFollow, 0o600)
	if err == nil {
		_, err = f.WriteAt([]byte(record), 0)
		err = cmp.Or(err, f.Close())
	}
	if err != nil {
		_ = os.Remove(path) // an older token would be wrong
	}
}

// isLastToken reports whether the last transaction is known to have this token.
func isLastToken(store string, token uint32) bool {
	record, err := os.ReadFile(store + lastTokenSuffix)
	return err == nil && len(record) > 0 && string(record) == tokenRecord(token)
}

const lastTokenSuffix = "-last"

// bootID returns the ID of this start of the operating system, "" if it is unknown.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
})

// tokenInFile returns the token in the file, without the write-ahead log. It reads the token
// through SQLite: if this process opened and closed the file directly, it would lose the
// POSIX locks of its connections.
func tokenInFile(path string) (uint32, error) {
	c, err := openConnURI(path, "immutable=1")
	if err != nil {
		return 0, err
	}
	defer c.close()
	n, err := c.number("PRAGMA application_id")
	return uint32(n), err
}

const (
	walHeaderSize   = 32
	frameHeaderSize = 24
	walMagic        = 0x377f0682 // | 1 if checksums are big-endian
)

// readWAL returns the header of a write-ahead log, or nil if the log has none, and the tokens
// of the transactions in the log (SQLite's file format, 4).
func readWAL(path string) (header []byte, tokens []uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	header = make([]byte, walHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, nil, nil
	}
	magic, size := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[8:])
	if magic&^1 != walMagic || size < 512 || size > 65536 {
		return nil, nil, nil
	}
	sum := walSum{order: binary.LittleEndian}
	if magic&1 != 0 {
		sum.order = binary.BigEndian
	}
	sum.add(header[:24])
	if !sum.matches(header[24:]) {
		return nil, nil, nil
	}
	frame := make([]byte, frameHeaderSize+size)
	var uncommitted []uint32 // tokens of a transaction whose commit frame was not read yet
	for {
		if _, err := io.ReadFull(r, frame); err != nil {
			return header, tokens, nil
		}
		page := frame[frameHeaderSize:]
		sum.add(frame[:8])
		sum.add(page)
		if !bytes.Equal(frame[8:16], header[16:24]) || !sum.matches(frame[16:]) {
			return header, tokens, nil // of an earlier use of the log, or incompletely written
		}
		if binary.BigEndian.Uint32(frame) == 1 {
			uncommitted = append(uncommitted, binary.BigEndian.Uint32(page[tokenAt:]))
		}
		if binary.BigEndian.Uint32(frame[4:]) != 0 {
			tokens, uncommitted = append(tokens, uncommitted...), nil
		}
	}
}

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
