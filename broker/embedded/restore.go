package embedded

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/broker"
	"peerlink/internal/durable"
)

// Restored is what [Restore] has done.
type Restored struct {
	Content // of the restored store
	// KeptIn is the folder in which the store that was there before is kept, in a file of the same name;
	// "" if there was none.
	KeptIn string
	// Replaced is what the store in KeptIn contains. It is nil if there was none, or if it could not be
	// opened.
	Replaced *Content
}

// Restore puts a copy of a store, made by [Backup], in the place of the store at path, whose folder must
// exist. The store that is there is kept in a new folder beside it, also if it is damaged. Restore
// returns [ErrOwner] if the copy or the store belongs to another owner, and [broker.ErrInUse] if another
// process has the store open. The caller must ensure that no service opens it meanwhile.
//
// The old store is complete, and in its place, until the new one is, also if the process is killed. (If
// the old one could not be opened, it may be refused as before, with files of both, until
// Restore is repeated; the folder beside it has its files then.)
//
// Messages are assigned IDs that no message had before: each time that a store is opened, these begin
// with a new number.
func Restore(ctx context.Context, path, from string, o CopyOptions) (Restored, error) {
	r, err := restore(ctx, path, from, o)
	if err != nil {
		return Restored{}, fmt.Errorf("restore message store %s: %w", path, explain(err))
	}
	return r, nil
}

func restore(ctx context.Context, path, from string, o CopyOptions) (done Restored, err error) {
	if path, err = durable.Target(path); err != nil {
		return done, err
	}
	if isOfStore(path, from) {
		return done, fmt.Errorf("%s is a file of the message store itself, expected a backup of it", from)
	}
	removeLeftovers(path)
	tmp, err := durable.PrepareEmpty(path)
	if err != nil {
		return done, err
	}
	defer tmp.Discard()
	if done.Content, err = prepareRestored(ctx, tmp, from, o); err != nil {
		return done, fmt.Errorf("%s: %w", from, err)
	}
	a := keptStore{store: path, owner: o.Owner}
	defer a.end()
	if err := a.keep(ctx); err != nil {
		return done, err
	}
	if err := a.replaceBy(tmp); err != nil {
		return done, err
	}
	done.KeptIn, done.Replaced = a.folder, a.content
	return done, nil
}

// removeLeftovers removes what calls of Restore that were killed have left: copies that have no name yet,
// and second names of the store's file, through which it must not be opened.
func removeLeftovers(path string) {
	if found, err := durable.Leftovers(path); err == nil {
		for _, name := range found {
			_ = os.Remove(name)
		}
	}
	removeSecondNames(path)
}

// removeSecondNames removes the second names of a store's file that killed calls of Restore have left. The
// caller has the store open, so that no Restore is in progress, or is Restore.
func removeSecondNames(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		a := keptStore{store: path, folder: filepath.Join(filepath.Dir(path), e.Name())}
		if strings.HasPrefix(e.Name(), keptPrefix) && sameFile(a.nameOf(path), path) {
			a.discard()
		}
	}
}

// checkNotSecondName returns an error if path is a second name of the store in the folder above, left by a
// Restore that was killed: two programs that use the two names would not see each other's write-ahead log.
func checkNotSecondName(path string) error {
	folder := filepath.Dir(path)
	store := filepath.Join(filepath.Dir(folder), filepath.Base(path))
	if !strings.HasPrefix(filepath.Base(folder), keptPrefix) || !sameFile(path, store) {
		return nil
	}
	return fmt.Errorf("%w: it is a second name of %s, which is in use: a restore that was killed has left it; use that one. The next start of the service removes this name", broker.ErrInUse, store)
}

// prepareRestored copies a backup, and checks the copy.
func prepareRestored(ctx context.Context, tmp *durable.Prepared, from string, o CopyOptions) (Content, error) {
	if err := copyBackup(ctx, tmp.Path(), from, o); err != nil {
		return Content{}, err
	}
	content, err := checkCopy(ctx, tmp.Path(), o.Owner)
	if err != nil {
		return Content{}, err
	}
	if err := endWAL(tmp.Path()); err != nil { // the copy may be that of a closed store
		return Content{}, err
	}
	return content, nil
}

// copyBackup copies the bytes of a backup.
func copyBackup(ctx context.Context, to, from string, o CopyOptions) error {
	info, err := os.Stat(from) // before it is opened, which would block for a pipe
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() == 0:
		return fmt.Errorf("%w: it is empty, or no regular file", errNotStore)
	}
	if log := sizeOf(from + "-wal"); log > 0 {
		return fmt.Errorf("%w: there is %s-wal beside it, so it is no backup but a store that is open, or was not closed: copy its whole state folder, or make a backup with \"peerlink state backup\"", errMixed, from)
	}
	if err := checkSpace(filepath.Dir(to), info.Size()); err != nil {
		return err
	}
	return copyBytes(ctx, to, from, info.Size(), o.progress)
}

// copyBytes copies size bytes to a file that exists. It does not sync it.
func copyBytes(ctx context.Context, to, from string, size int64, progress func(done, total int64)) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	const step = 1 << 20
	for copied := int64(0); copied < size && err == nil; {
		var n int64
		n, err = io.CopyN(out, in, min(step, size-copied))
		copied += n
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it has become shorter than %d bytes while it was copied", size)
		}
		err = cmp.Or(err, ctx.Err())
		progress(copied, size)
	}
	return cmp.Or(err, out.Close())
}

// keptStore keeps the files of a store that is replaced, in a new folder.
type keptStore struct {
	store, owner string
	folder       string   // "" if there is no store
	content      *Content // of a store that could be opened
	locked       *conn    // keeps other processes from opening the store; nil if it could not be opened
	replaced     bool     // the store has been replaced
}

// keptPrefix is the beginning of the name of a folder with a replaced store.
const keptPrefix = "before-restore-"

// keptSuffixes are those of [storeSuffixes] whose files are kept. SQLite and this program create the other files
// when they need them.
var keptSuffixes = []string{"", "-wal", lastTokenSuffix}

// keep gives the files of the store a second name in the folder.
func (a *keptStore) keep(ctx context.Context) error {
	if files, err := a.files(); err != nil || len(files) == 0 {
		return err
	}
	if err := a.settle(); err != nil {
		return err
	}
	files, err := a.files() // settle may have removed some
	if err != nil {
		return err
	}
	if a.folder, err = makeAsideFolder(filepath.Dir(a.store)); err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Link(file, a.nameOf(file)); err != nil {
			// Some file systems have no hard links.
			if err := a.copyFile(ctx, file); err != nil {
				return err
			}
		}
	}
	return durable.SyncDir(a.folder)
}

// copyFile copies a file of the store to the folder.
func (a *keptStore) copyFile(ctx context.Context, file string) error {
	a.unlock() // as closing the file would do
	tmp, err := durable.PrepareEmpty(a.nameOf(file))
	if err != nil {
		return err
	}
	defer tmp.Discard()
	if err := copyBytes(ctx, tmp.Path(), file, sizeOf(file), func(int64, int64) {}); err != nil {
		return err
	}
	return cmp.Or(tmp.Sync(), tmp.Create())
}

// files returns the files of the store that exist.
func (a *keptStore) files() (found []string, err error) {
	for _, suffix := range keptSuffixes {
		_, err := os.Lstat(a.store + suffix)
		switch {
		case err == nil:
			found = append(found, a.store+suffix)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return found, nil
}

// nameOf returns the name of a file of the store in the folder.
func (a *keptStore) nameOf(file string) string { return filepath.Join(a.folder, filepath.Base(file)) }

// settle moves everything that is in the write-ahead log into the file, and removes the log, so that a
// single rename replaces the store. The file stays locked. A store that can not be opened stays as it is.
// settle returns [ErrOwner] if the store belongs to another owner, and [broker.ErrInUse] if another
// process has it open.
func (a *keptStore) settle() error {
	if info, err := os.Stat(a.store); err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return nil
	}
	// SQLite deletes the log of a file that it takes for an empty database.
	if checkReadable(a.store) != nil || checkPair(a.store) != nil {
		return nil
	}
	c, err := openConnURI(a.store, "")
	if err != nil {
		return nil
	}
	err = a.settleOn(c)
	if err == nil {
		a.locked = c
		return nil
	}
	c.close()
	switch {
	case errors.Is(err, broker.ErrInUse), errors.Is(err, ErrOwner):
		return err
	case code(err)&0xff == sqlite3.SQLITE_BUSY:
		return fmt.Errorf("%w: another process has it open: end it first (%w)", broker.ErrInUse, err)
	}
	a.content = nil
	return nil
}

// checkReadable returns an error unless the file alone, without its log, is a store that this program can
// read.
func checkReadable(path string) error {
	c, err := openConnURI(path, "immutable=1")
	if err != nil {
		return err
	}
	defer c.close()
	_, err = fileVersion(c)
	return err
}

func (a *keptStore) settleOn(c *conn) error {
	if _, err := fileVersion(c); err != nil {
		return err
	}
	closed, err := c.number("SELECT closed FROM store")
	recorded := err == nil // the schema version is at least ownerVersion
	if recorded {
		if err := checkOwner(c, a.owner, false); err != nil {
			return err
		}
	}
	content, err := contentOf(c)
	if err != nil {
		return err
	}
	content.Bytes = sizeOf(a.store)
	a.content = &content
	if recorded && closed == 0 {
		// Without its log, the store would be refused if it were not closed.
		if err := c.exec("UPDATE store SET closed = 1"); err != nil {
			return err
		}
	}
	// The first transaction after this keeps its locks. It fails while another process has the store open. A
	// process that opens it later waits; then it has to turn the log on again, which fails because the file
	// was replaced.
	mode := ""
	if err := c.exec("PRAGMA locking_mode = EXCLUSIVE"); err != nil {
		return err
	}
	if err := c.rows("PRAGMA journal_mode = DELETE", func(cols []driver.Value) { mode = text(cols[0]) }); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("%w: another process has it open: end it first", broker.ErrInUse)
	}
	return c.exec("BEGIN EXCLUSIVE")
}

// makeAsideFolder creates a folder for a replaced store, named after the present time.
func makeAsideFolder(parent string) (string, error) {
	name := filepath.Join(parent, keptPrefix+time.Now().UTC().Format("20060102T150405Z"))
	for n := 1; ; n++ {
		folder := name
		if n > 1 {
			folder = fmt.Sprintf("%s-%d", name, n)
		}
		if err := os.Mkdir(folder, 0o700); !errors.Is(err, fs.ErrExist) {
			return folder, err
		}
	}
}

// replaceBy puts the prepared store in the place of the old one.
func (a *keptStore) replaceBy(next *durable.Prepared) error {
	// The write-ahead log of a store that could not be opened is still there. SQLite must not take it for that
	// of the new file.
	token := newToken(rand.Uint32())
	if log, err := readWAL(a.store + "-wal"); err == nil {
		for log.continues(token) && len(log.tokens) > 0 {
			token = newToken(rand.Uint32())
		}
	}
	if err := changeCopy(next.Path(), fmt.Sprintf("PRAGMA application_id = %d", int32(token))); err != nil {
		return err
	}
	if err := next.Sync(); err != nil {
		return err
	}
	if runtime.GOOS == "windows" { // where an open file can not be replaced
		a.unlock()
	}
	err := next.Replace()
	if a.replaced = err == nil || errors.Is(err, durable.ErrUnsynced); !a.replaced {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm", lastTokenSuffix} {
		if removeErr := os.Remove(a.store + suffix); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = cmp.Or(err, removeErr)
		}
	}
	return cmp.Or(err, durable.SyncDir(filepath.Dir(a.store)))
}

// unlock unlocks the file of the old store.
func (a *keptStore) unlock() {
	if a.locked != nil {
		_ = a.locked.close()
		a.locked = nil
	}
}

// end unlocks the old store, and removes the folder unless the store was replaced.
func (a *keptStore) end() {
	a.unlock()
	if !a.replaced && a.folder != "" {
		a.discard()
	}
}

// discard removes the second names of the files, and the folder.
func (a *keptStore) discard() {
	for _, suffix := range keptSuffixes {
		_ = os.Remove(a.nameOf(a.store + suffix))
	}
	_ = os.Remove(a.folder)
}
