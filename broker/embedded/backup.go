package embedded

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"

	"peerlink/internal/durable"
)

// CopyOptions configure [Backup] and [Restore].
type CopyOptions struct {
	// Owner identifies the node, as [Options].Owner. A store of another owner, or of none, is
	// neither copied nor restored.
	Owner string
	// Replace allows Backup to replace an existing file that is a backup, damaged or not, or empty.
	Replace bool
	// Progress, unless nil, is called with the number of bytes copied so far, and the number of all bytes
	// to copy. When they are equal, all bytes are copied, and the copy is being checked.
	Progress func(done, total int64)
}

func (o CopyOptions) progress(done, total int64) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// Content describes what a store, or a copy of it, contains.
type Content struct {
	Bytes    int64     // size of the file
	Messages int64     // in queues and inboxes
	SetAside int64     // dead letters
	Newest   time.Time // arrival of the newest message in a queue or an inbox; zero if there is none
}

const (
	// backupStep is how many pages are copied between two checks of the context and of the write-ahead log.
	backupStep = 256
	// syncSteps is how many steps of backupStep pages are made between two syncs of the copy. With a single
	// sync at the end, the disk would write the whole copy at once, and delay the commits of the service.
	syncSteps = 8
	// maxBackupWAL is the size in bytes to which the write-ahead log may grow during a backup of a
	// smaller store: while the store is read, the log can not be truncated.
	maxBackupWAL = 512 << 20
	// ownerVersion is the first schema version with a recorded owner.
	ownerVersion = 3
	// leftoverAge is how old the temporary file of a backup must be, without having been written
	// since, to be regarded as left by one that was killed.
	leftoverAge = time.Hour
)

// Backup copies the store in the file at path to another file, as it is at one moment. Other processes may
// be using the store: they are not delayed, except that the write-ahead log grows until the copy is
// complete. Backup fails if the log becomes larger than both 512 MiB and the store, or if it has grown,
// since the copy began, by more than a quarter of the space that is still free on its disk.
//
// Backup returns [ErrOwner] if the store belongs to another owner or to none, and [ErrFull] if the target's
// disk has too little space for the copy.
//
// The copy has mode 0600, and is one file. Backup checks it for damage, and that it belongs to the
// owner, before it gets its name: after an error, or if the process is killed, there is no file, or an
// existing one is unchanged. (A process that is killed may leave a file whose name begins with a dot
// beside it, which a later Backup to the same file removes.)
func Backup(ctx context.Context, path, to string, o CopyOptions) (Content, error) {
	content, err := backup(ctx, path, to, o)
	if err != nil {
		return Content{}, fmt.Errorf("back up message store %s: %w", path, explain(err))
	}
	return content, nil
}

func backup(ctx context.Context, path, to string, o CopyOptions) (Content, error) {
	path, err := existingFile(path)
	if err != nil {
		return Content{}, err
	}
	if to, err = backupTarget(path, to, o.Replace); err != nil {
		return Content{}, err
	}
	if err := checkPair(path); err != nil {
		return Content{}, err
	}
	removeOldLeftovers(to)
	tmp, err := durable.PrepareEmpty(to)
	if err != nil {
		return Content{}, err
	}
	defer tmp.Discard()
	if err := copyStore(ctx, path, tmp.Path(), o); err != nil {
		return Content{}, err
	}
	if err := markBackup(tmp.Path()); err != nil {
		return Content{}, err
	}
	if err := tmp.Sync(); err != nil {
		return Content{}, err
	}
	content, err := checkCopy(ctx, tmp.Path(), o.Owner)
	if err != nil {
		return Content{}, fmt.Errorf("the copy: %w", err)
	}
	finish := tmp.Create
	if o.Replace {
		finish = tmp.Replace
	}
	return content, finish()
}

// existingFile returns the path of a store's file with symbolic links resolved. It returns [errNotStore] if
// the file is empty or not regular.
func existingFile(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case info.Size() == 0 || !info.Mode().IsRegular():
		return "", fmt.Errorf("%w: it is empty, or no regular file", errNotStore)
	}
	if path, err = durable.Target(path); err != nil {
		return "", err
	}
	return path, checkAccess(path)
}

// backupTarget returns the path of the file to create or replace. It returns an error if that file exists and
// must not be replaced, is a file of the store itself, or no backup, or if to is a symbolic link that
// another user may have made.
func backupTarget(store, to string, replace bool) (string, error) {
	if isOfStore(store, to) {
		return "", fmt.Errorf("%s is a file of the message store itself: name another file for the backup", to)
	}
	if !replace {
		return to, durable.CheckAbsent(to)
	}
	if err := durable.CheckLink(to); err != nil {
		return "", err
	}
	to, err := durable.Target(to)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file: name another file for the backup", to)
	case isOfStore(store, to):
		return "", fmt.Errorf("%s is a file of the message store itself: name another file for the backup", to)
	case info.Size() > 0 && !isBackup(to):
		return "", fmt.Errorf("%s is no backup of a message store, and is not replaced: name another file for the backup, or remove this one", to)
	}
	return to, nil
}

// isBackup reports whether a file was made by Backup, and no store was opened in it since. It may be of any
// version and owner, and be damaged.
func isBackup(path string) bool {
	for _, suffix := range storeSuffixes[1:] {
		if _, err := os.Lstat(path + suffix); err == nil {
			return false // its token may be in the log
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, tokenAt+4)
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.HasPrefix(head, []byte("SQLite format 3\x00")) && binary.BigEndian.Uint32(head[tokenAt:]) == backupToken
}

// storeSuffixes are what the names of a store's files have after the name of the store itself.
var storeSuffixes = []string{"", "-wal", "-shm", "-journal", "-turn", "-reserve", lastTokenSuffix}

// isOfStore reports whether a path is, or would be, that of a file of the store.
func isOfStore(store, path string) bool {
	if sameFile(store, path) {
		return true
	}
	suffix, ok := strings.CutPrefix(filepath.Base(path), filepath.Base(store))
	return ok && slices.Contains(storeSuffixes, suffix) && sameFile(filepath.Dir(store), filepath.Dir(path))
}

// sameFile reports whether two paths lead to the same file or folder.
func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// removeOldLeftovers removes the temporary files of backups to the same file that were killed.
func removeOldLeftovers(to string) {
	found, err := durable.Leftovers(to)
	if err != nil {
		return
	}
	for _, name := range found {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > leftoverAge {
			_ = os.Remove(name)
		}
	}
}

// copyStore copies the pages of a store, as they are at one moment, to an empty file. It does not sync
// the file at the end.
func copyStore(ctx context.Context, path, to string, o CopyOptions) error {
	src, err := openSource(path, o.Owner)
	if err != nil {
		return err
	}
	defer src.close()
	size, err := src.beginCopy()
	if err != nil {
		return err
	}
	if err := checkSpace(filepath.Dir(to), size); err != nil {
		return err
	}
	if err := copyPages(ctx, src, path, to, size, o); err != nil {
		return err
	}
	o.progress(size, size)
	return nil
}

// openSource opens a connection to a store of this owner, to copy the store.
func openSource(path, owner string) (_ *conn, err error) {
	src, err := openConn(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			src.close()
		}
	}()
	version, err := fileVersion(src)
	if err != nil {
		return nil, err
	}
	if err := checkCopyable(src, version, owner); err != nil {
		return nil, err
	}
	if closed, err := src.number("SELECT closed FROM store"); err == nil && closed != 0 && !isSpaceScarce(path, Options{freeBytes: freeBytes}) {
		_ = src.keepWAL(false) // see releaseWALAtClose
	}
	return src, nil
}

// beginCopy begins the read transaction that fixes the moment of a copy, and returns its size in bytes.
func (c *conn) beginCopy() (int64, error) {
	if err := c.exec("PRAGMA query_only = ON; BEGIN"); err != nil {
		return 0, err
	}
	return c.number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size, store") // reads the file, which begins the transaction
}

// copyPages copies what the read transaction of src sees of the store at path, size bytes, to an empty
// file.
func copyPages(ctx context.Context, src *conn, path, to string, size int64, o CopyOptions) error {
	out, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	uri, err := uriOf(to, copyPragmas)
	if err != nil {
		return err
	}
	pageSize, err := src.number("PRAGMA page_size")
	if err != nil {
		return err
	}
	wal := newWALLimit(path, size)
	b, err := src.raw.(interface {
		NewBackup(uri string) (*sqlite.Backup, error)
	}).NewBackup(uri)
	if err != nil {
		return err
	}
	err = stepThrough(ctx, b, wal, out.Sync, func(done, total int) { o.progress(int64(done)*pageSize, int64(total)*pageSize) })
	return cmp.Or(err, b.Finish())
}

// stepThrough copies pages until all are copied. It calls progress with the number of pages copied so far, and
// of all pages.
func stepThrough(ctx context.Context, b *sqlite.Backup, wal walLimit, sync func() error, progress func(done, total int)) error {
	for n := 1; ; n++ {
		more, err := b.Step(backupStep)
		if err != nil || !more {
			return err
		}
		progress(b.PageCount()-b.Remaining(), b.PageCount())
		if n%syncSteps == 0 {
			err = sync()
		}
		if err = cmp.Or(err, ctx.Err(), wal.check()); err != nil {
			return err
		}
	}
}

// copyPragmas are the parameters of connections that write to a copy. There are no locks, no journal and no
// syncs, because no other process uses the copy, and it is discarded after an error.
const copyPragmas = "nolock=1&_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"

// checkCopyable returns an error unless the file, a store with this schema version, is of this owner.
func checkCopyable(c *conn, version int64, owner string) error {
	if version < ownerVersion {
		return fmt.Errorf("%w: its schema version is %d, which does not record the node that it belongs to: start the service of this version with it once, and then make the backup", errOlder, version)
	}
	recorded, err := storedOwner(c)
	switch {
	case err != nil:
		return err
	case recorded == "" || owner == "":
		return fmt.Errorf("%w: no service has ever opened it, so it is not known whose it is", ErrOwner)
	}
	return checkOwner(c, owner, false)
}

// checkSpace returns an error if a folder's disk is known to have less free space than size bytes.
func checkSpace(dir string, size int64) error {
	if free, err := freeBytes(dir); err == nil && free < size {
		return fmt.Errorf("%w: %d bytes are free in %s, and the copy needs %d", ErrFull, free, dir, size)
	}
	return nil
}

// walLimit bounds the write-ahead log of a store that is being copied.
type walLimit struct {
	path         string
	start, limit int64 // sizes in bytes
}

// newWALLimit returns the limit for a store of size bytes.
func newWALLimit(store string, size int64) walLimit {
	l := walLimit{path: store + "-wal", limit: max(size, maxBackupWAL)}
	l.start = sizeOf(l.path)
	return l
}

// check returns an error if the log is too large, or has grown too much since newWALLimit was called.
func (l walLimit) check() error {
	size := sizeOf(l.path)
	free, err := freeBytes(filepath.Dir(l.path))
	if size > l.limit || err == nil && size-l.start > free/4 {
		return fmt.Errorf("%s has grown to %d bytes while the store was copied, because copying is slower than what the service writes: try again when the service has less to do, or back up to a faster disk", l.path, size)
	}
	return nil
}

// markBackup changes a copy of a store's pages so that it is like a store that was closed, which needs no
// write-ahead log, and so that it can be told from a store.
func markBackup(path string) error {
	if err := endWAL(path); err != nil {
		return err
	}
	return changeCopy(path, fmt.Sprintf("UPDATE store SET closed = 1; PRAGMA application_id = %d", int32(backupToken)))
}

// endWAL records in a copy of a database that it has no write-ahead log (SQLite's file format, 1.3). The
// copy must not be open.
func endWAL(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{1, 1}, 18)
	return cmp.Or(err, f.Close())
}

// changeCopy executes SQL in a copy.
func changeCopy(path, sql string) error {
	c, err := openConnURI(path, copyPragmas)
	if err != nil {
		return err
	}
	return cmp.Or(c.exec(sql), c.close())
}

// checkCopy checks a copy that is not open: that it is a store of this owner, was closed, and is not
// damaged. It returns what it contains.
func checkCopy(ctx context.Context, path, owner string) (Content, error) {
	c, err := openCopied(path)
	if err != nil {
		return Content{}, err
	}
	defer c.close()
	version, err := fileVersion(c)
	if err != nil {
		return Content{}, err
	}
	// Before anything is read from the tables: a definition can make reading a row run any computation.
	if err := checkTables(c); err != nil {
		return Content{}, err
	}
	if err := checkCopyable(c, version, owner); err != nil {
		return Content{}, err
	}
	if closed, err := c.number("SELECT closed FROM store"); err != nil || closed == 0 {
		return Content{}, cmp.Or(err, fmt.Errorf("%w: it was copied while a service had it open, so messages may be missing; a copy is made with \"peerlink state backup\", or of the whole state folder while no service runs", errMixed))
	}
	if err := runCheck(ctx, c, "integrity_check"); err != nil {
		return Content{}, err
	}
	content, err := contentOf(c)
	content.Bytes = sizeOf(path)
	return content, err
}

// openCopied opens a connection that reads a copy that no process changes, and trusts nothing in it.
func openCopied(path string) (*conn, error) {
	return openConnURI(path, "mode=ro&immutable=1&_pragma=trusted_schema(OFF)&_pragma=cell_size_check(ON)")
}

// checkTables returns [errNotStore] unless the file has the tables of a store, and nothing else that SQLite
// would use with them.
func checkTables(c *conn) error {
	strange, err := c.number("SELECT count(*) FROM sqlite_schema WHERE NOT (type = 'table' AND name IN" +
		" ('queues', 'bindings', 'messages', 'usage', 'set_aside', 'store') OR type = 'index' AND name LIKE 'sqlite\\_autoindex\\_%' ESCAPE '\\')")
	if err == nil && strange > 0 {
		err = fmt.Errorf("%w: it has tables, triggers or views of another program", errNotStore)
	}
	if err != nil {
		return err
	}
	strange, err = c.number("SELECT (SELECT count(*) FROM sqlite_schema WHERE " + strangeDefinition + ")" +
		" + (SELECT count(*) FROM sqlite_schema AS s, pragma_table_xinfo(s.name) WHERE s.type = 'table' AND (hidden <> 0 OR dflt_value LIKE '%(%'))")
	if err == nil && strange > 0 {
		err = fmt.Errorf("%w: a table has columns that are computed, or rules of another program", errNotStore)
	}
	return err
}

// strangeDefinition is an SQL condition for definitions of tables that this program does not make.
const strangeDefinition = "length(sql) > 4096 OR sql LIKE '%conflict%' OR sql LIKE '%generated%' OR sql LIKE '%check%' OR sql LIKE '%collate%' OR sql LIKE '%references%'"

// contentOf returns what a store contains, without Bytes.
func contentOf(c *conn) (content Content, err error) {
	var newest int64
	for _, n := range []struct {
		to  *int64
		sql string
	}{
		{&content.Messages, "SELECT coalesce(sum(depth), 0) FROM queues"},
		{&content.SetAside, "SELECT count(*) FROM set_aside"},
		{&newest, "SELECT max((SELECT arrived FROM messages WHERE queue = queues.id ORDER BY seq DESC LIMIT 1)) FROM queues"},
	} {
		if *n.to, err = c.number(n.sql); err != nil {
			return content, err
		}
	}
	if newest > 0 {
		content.Newest = time.UnixMilli(newest)
	}
	return content, nil
}
