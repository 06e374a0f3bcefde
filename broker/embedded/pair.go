package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
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

// backupToken is the token in a file made by [Backup]. No store has it: see newToken.
const backupToken uint32 = 0x504c424b // "PLBK"

// newToken returns a random token that may follow the token previous.
func newToken(previous uint32) uint32 {
	for {
		if next := rand.Uint32()&0xffff0000 | previous>>16; next != backupToken {
			return next
		}
	}
}

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
	next := newToken(w.token)
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

// pairAttempts is how often the files are read: another process may have the store open and
// be changing them meanwhile.
const pairAttempts = 10

// checkPair returns [errMixed] if the file and its write-ahead log are not of the same
// point in time, or the last transactions are missing, and [errDamaged] if the log is
// damaged: SQLite ignores what follows the first damaged frame. Files that can not be read
// are left for SQLite to report. It returns an error for a second name of a store
// ([checkNotSecondName]), too.
func checkPair(path string) (err error) {
	if err := checkNotSecondName(path); err != nil {
		return err
	}
	for range pairAttempts {
		if err = comparePair(path); err == nil {
			return nil
		}
	}
	return err
}

// comparePair is checkPair with one attempt.
func comparePair(path string) error {
	// Another process may commit between these steps, so what it changes last is read first.
	recorded, isRecorded := recordedToken(path)
	inFile, err := tokenInFile(path)
	if err != nil {
		return nil
	}
	log, err := readWAL(path + "-wal")
	switch {
	case errors.Is(err, os.ErrNotExist) && lacksWAL(path):
		return fmt.Errorf("%w: %s was not closed, and %[2]s-wal, which may have the last messages, is missing."+
			" If the sqlite3 tool has opened %[2]s here since, everything is in it: make an empty file %[2]s-wal, and remove %[2]s"+lastTokenSuffix+"."+
			" Otherwise put %[2]s-wal back from the same moment, or do the same to go on without the last messages",
			errMixed, path)
	case err != nil:
		return nil
	case log.isDamaged():
		return fmt.Errorf("%w: %s-wal can not be read from byte %d on; what follows in it may be messages."+
			" Put back a copy of the whole state folder, or, to go on without these messages, cut the file there (truncate -s %[3]d %[2]s-wal), and remove %[2]s"+lastTokenSuffix,
			errDamaged, path, log.valid)
	case !log.continues(inFile):
		return fmt.Errorf("%w: %s and %[2]s-wal are of different moments; put both back from the same moment, or, to use %[2]s without the transactions in %[2]s-wal, make that an empty file, and remove %[2]s"+lastTokenSuffix,
			errMixed, path)
	case isRecorded && !isClosed(path) && !log.endsWith(inFile, recorded):
		return fmt.Errorf("%w: the last transactions are neither in %s nor in %[2]s-wal, which was cut short, is damaged or of an earlier moment;"+
			" put both back from the same moment, or remove %[2]s"+lastTokenSuffix+" to go on without the last messages",
			errMixed, path)
	}
	return nil
}

// isClosed reports whether the file, read without its write-ahead log, records that the last
// service has closed it, or this can not be read.
func isClosed(path string) bool {
	c, err := openConnURI(path, "immutable=1")
	if err != nil {
		return true
	}
	defer c.close()
	closed, err := c.number("SELECT closed FROM store")
	return err != nil || closed != 0
}

// lacksWAL reports whether messages may be missing because there is no write-ahead log. This
// is so if the file records that a service has opened the store and not closed it (see
// [writeConn.recordOpen]): until a service closes the store, no connection of this
// package removes the log. But if another program, such as the sqlite3 tool, has moved the
// log's content into the file and removed the log, nothing is missing: the file then has
// the token of the last transaction (see [recordToken]).
func lacksWAL(path string) bool {
	if isClosed(path) {
		return false
	}
	if token, err := tokenInFile(path); err == nil {
		if recorded, ok := recordedToken(path); ok && recorded == token {
			return false
		}
	}
	// Another service may have opened the store meanwhile.
	_, err := os.Lstat(path + "-wal")
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
// beside the store. It does not sync the file: recordedToken ignores the record after the next
// start of the operating system, because a power failure may have left an older one. Errors
// are ignored: without a record, lacksWAL reports that messages may be missing, and
// comparePair can not detect that some are.
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

// recordedToken returns the token of the last transaction that was committed, or was about to
// be committed, and false if it is unknown.
func recordedToken(store string) (uint32, bool) {
	record, err := os.ReadFile(store + lastTokenSuffix)
	if err != nil || len(record) < 8 {
		return 0, false
	}
	token, err := strconv.ParseUint(string(record[:8]), 16, 32)
	if err != nil || string(record) != tokenRecord(uint32(token)) {
		return 0, false
	}
	return uint32(token), true
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
