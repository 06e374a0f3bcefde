package embedded

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
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
	// Replace allows Backup to replace an existing file.
	Replace bool
	// Progress, unless nil, is called with the number of bytes that are copied, and that will be. When
	// they are equal, the copy is being checked.
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
	// backupStep is how many pages are copied until the context and the write-ahead log are looked at.
	backupStep = 256
	// syncSteps is how many steps are made until the copy is synced. Otherwise the disk would have to write
	// all of it at the end, and a commit of the service would have to wait for that.
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
// complete. Backup gives up if it grows to 512 MiB and to the size of the store, or if it would take more
// than a quarter of the free space of the disk.
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
	if err := closeCopy(tmp.Path()); err != nil {
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

// existingFile returns the file that a path of a store leads to. It returns [errNotStore] for one that can
// be no store.
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

// backupTarget returns the file to create or replace. It returns an error if that must not be done.
func backupTarget(store, to string, replace bool) (string, error) {
	if isOfStore(store, to) {
		return "", fmt.Errorf("%s is a file of the message store itself: name another file for the backup", to)
	}
	if !replace {
		return to, durable.CheckAbsent(to)
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
	}
	return to, nil
}

// storeSuffixes are those of the names of a store's files.
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

// copyStore copies the pages of a store, as they are at one moment, to an empty file. It does not sync that.
func copyStore(ctx context.Context, path, to string, o CopyOptions) (err error) {
	src, err := openConn(path)
	if err != nil {
		return err
	}
	defer src.close()
	if err := checkCopyable(src, o.Owner); err != nil {
		return err
	}
	if closed, err := src.number("SELECT closed FROM store"); err == nil && closed != 0 {
		_ = src.keepWAL(false) // see removeWALAtClose
	}
	if err := src.exec("PRAGMA query_only = ON; BEGIN"); err != nil {
		return err
	}
	pages, err := src.number("SELECT page_count FROM pragma_page_count, store") // begins to read
	if err != nil {
		return err
	}
	size, err := src.number("PRAGMA page_size")
	if err != nil {
		return err
	}
	if err := checkSpace(filepath.Dir(to), pages*size); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	log := newLogLimit(path, pages*size)
	uri, err := uriOf(to, copyPragmas)
	if err != nil {
		return err
	}
	b, err := src.raw.(interface {
		NewBackup(uri string) (*sqlite.Backup, error)
	}).NewBackup(uri)
	if err != nil {
		return err
	}
	err = stepThrough(ctx, b, log, out.Sync, func(done, total int) { o.progress(int64(done)*size, int64(total)*size) })
	if err = cmp.Or(err, b.Finish()); err == nil {
		o.progress(pages*size, pages*size)
	}
	return err
}

// stepThrough copies pages until all are copied. It calls progress with the number of pages that are copied,
// and of all.
func stepThrough(ctx context.Context, b *sqlite.Backup, log logLimit, sync func() error, progress func(done, total int)) error {
	for n := 1; ; n++ {
		more, err := b.Step(backupStep)
		if err != nil || !more {
			return err
		}
		progress(b.PageCount()-b.Remaining(), b.PageCount())
		if n%syncSteps == 0 {
			err = sync()
		}
		if err = cmp.Or(err, ctx.Err(), log.check()); err != nil {
			return err
		}
	}
}

// copyPragmas are for connections that write to a copy, which only this process knows, and which is
// discarded after an error: without a journal beside it.
const copyPragmas = "nolock=1&_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"

// checkCopyable returns an error unless the file is a store of this owner that this program can read.
func checkCopyable(c *conn, owner string) error {
	version, err := fileVersion(c)
	switch {
	case err != nil:
		return err
	case version < ownerVersion:
		return fmt.Errorf("%w: its schema version is %d, which does not record whose it is: let the service of this program open it first", errOlder, version)
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

// logLimit bounds the write-ahead log of a store that is being copied.
type logLimit struct {
	path         string
	start, limit int64 // sizes in bytes
}

func newLogLimit(store string, size int64) logLimit {
	l := logLimit{path: store + "-wal", limit: max(size, maxBackupWAL)}
	l.start = sizeOf(l.path)
	return l
}

func (l logLimit) check() error {
	size := sizeOf(l.path)
	free, err := freeBytes(filepath.Dir(l.path))
	if size > l.limit || err == nil && size-l.start > free/4 {
		return fmt.Errorf("%s has grown to %d bytes while the store was copied, which is slower than it is written to: try again when there is less to do, or to a faster disk", l.path, size)
	}
	return nil
}

// closeCopy makes a copy of a store's pages like a store that was closed: it needs no write-ahead log.
func closeCopy(path string) error {
	if err := endWAL(path); err != nil {
		return err
	}
	return changeCopy(path, "UPDATE store SET closed = 1")
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
	c, err := openConnURI(path, "mode=ro&immutable=1&_pragma=trusted_schema(OFF)&_pragma=cell_size_check(ON)")
	if err != nil {
		return Content{}, err
	}
	defer c.close()
	if err := checkCopyable(c, owner); err != nil {
		return Content{}, err
	}
	if err := checkTables(c); err != nil {
		return Content{}, err
	}
	if closed, err := c.number("SELECT closed FROM store"); err != nil || closed == 0 {
		return Content{}, cmp.Or(err, fmt.Errorf("%w: it was copied while a service had it open, so messages may be missing; a copy is made with \"peerlink state backup\", or of the whole state folder while no service runs", errMixed))
	}
	if err := checkIntegrity(ctx, c); err != nil {
		return Content{}, err
	}
	content, err := contentOf(c)
	content.Bytes = sizeOf(path)
	return content, err
}

// checkTables returns [errNotStore] unless the file has the tables of a store, and nothing else that SQLite
// would use with them.
func checkTables(c *conn) error {
	strange, err := c.number("SELECT count(*) FROM sqlite_schema WHERE NOT (type = 'table' AND name IN" +
		" ('queues', 'bindings', 'messages', 'usage', 'set_aside', 'store') OR type = 'index' AND name LIKE 'sqlite\\_autoindex\\_%' ESCAPE '\\')")
	if err == nil && strange > 0 {
		err = fmt.Errorf("%w: it has tables, triggers or views of another program", errNotStore)
	}
	return err
}

// checkIntegrity looks through the whole file, and returns [errDamaged] if it is damaged.
func checkIntegrity(ctx context.Context, c *conn) error {
	s, err := c.prepare("PRAGMA integrity_check(1)")
	if err != nil {
		return err
	}
	defer s.close()
	found := ""
	err = s.queryContext(ctx, func(cols []driver.Value) bool {
		found = text(cols[0])
		return false
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s", errDamaged, found)
	}
	return nil
}

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
