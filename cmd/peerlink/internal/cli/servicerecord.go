package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/wait"
	"peerlink/node"
)

// A serviceRecord says where a running service can be asked, so that commands for the same node's
// directory find it. The service holds a lock on a file beside the record as long as it runs.
type serviceRecord struct {
	Directory  string `json:"directory"`             // the node's directory, see realPath
	State      string `json:"state,omitempty"`       // the state folder; empty with RabbitMQ
	Admin      string `json:"admin"`                 // the admin address
	AdminToken string `json:"admin_token,omitempty"` // the file with the token of the dashboard; empty if there is none
	// The files of the server certificate, absolute; empty in the record of an older version.
	ServerCert string `json:"server_cert,omitempty"`
	ServerKey  string `json:"server_key,omitempty"`
	RabbitMQ   bool   `json:"rabbitmq,omitempty"` // the broker is RabbitMQ, whose URL is not recorded because it has a password
}

// Bounds of the folder of records.
const (
	maxRecords    = 256
	maxRecordSize = 16 << 10
	recordWait    = time.Second // for the lock, which a command may hold for a moment
)

// recordFolder returns the folder of the records of this user's services.
func recordFolder() string { return filepath.Join(stateBase(), "running") }

// checkRecordFolder returns an error if another user could have written records.
func checkRecordFolder(folder string) error {
	if err := guard.CheckFolderPath(folder); err != nil {
		return err
	}
	if guard.OpenToGroup(folder) {
		return errors.New(folder + " can be changed by a group")
	}
	return nil
}

// realPath returns the absolute path of the node's directory, without symbolic links.
func realPath(d *node.Dir) (string, error) {
	path, err := filepath.Abs(d.Path())
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// recordService records a service of the node, until forget is called. A failure is only logged, because the
// operator can name the place; see keepTrying.
func recordService(d *node.Dir, r serviceRecord, log *slog.Logger) (forget func()) {
	return keepTrying(func() (func(), error) { return r.write(d) }, log, slog.LevelInfo,
		"commands find this service only with --state or --admin until its record is written", "the record of this service is written")
}

// rewritePause is the time between attempts to write a file that helps commands to find the service.
const rewritePause = 5 * time.Second

// keepTrying calls write and, while it fails, as on a full disk, again after every rewritePause. It logs the first
// error with the text missing at this level, and then the success with the text written. undo ends the attempts, and calls the
// function that write has returned.
func keepTrying(write func() (undo func(), err error), log *slog.Logger, level slog.Level, missing, written string) (undo func()) {
	undo, err := write()
	if err == nil {
		return undo
	}
	ctx, cancel := context.WithCancel(context.Background())
	log.Log(ctx, level, missing, "err", err, "tried_again_every", rewritePause)
	result := make(chan func(), 1)
	go func() {
		undo := func() {}
		defer func() { result <- undo }()
		for wait.Sleep(ctx, rewritePause) == nil {
			if u, err := write(); err == nil {
				log.Info(written)
				undo = u
				return
			}
		}
	}()
	return func() {
		cancel()
		(<-result)()
	}
}

// write writes the record of a service of the node.
func (r serviceRecord) write(d *node.Dir) (forget func(), err error) {
	if r.Directory, err = realPath(d); err != nil {
		return nil, err
	}
	folder := recordFolder()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := checkRecordFolder(folder); err != nil {
		return nil, err
	}
	removeOldRecords(folder)
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// A service that is started again has the same name, so that records do not pile up.
	sum := sha256.Sum256([]byte(r.Directory + "\x00" + r.State + "\x00" + r.Admin))
	path := filepath.Join(folder, hex.EncodeToString(sum[:16]))
	lock := durable.NewFlock(path + ".lock")
	ctx, cancel := context.WithTimeout(context.Background(), recordWait)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return nil, err
	}
	if err := durable.ReplaceName(path+".json", data, 0o600); err != nil {
		lock.Close()
		return nil, err
	}
	return func() {
		os.Remove(path + ".json")
		lock.Close()
		os.Remove(path + ".lock")
	}, nil
}

// warnOtherStores warns of services of this node that have other message stores. They are not refused: a store that was
// kept may be emptied beside the present one, and records of services do not prove much.
func warnOtherStores(ctx context.Context, d *node.Dir, state string, log *slog.Logger) {
	for _, r := range runningServices(ctx, d) {
		if r.State == "" || r.State == state {
			continue
		}
		log.Warn("another service runs for this node's directory with a message store of its own: messages of a peer come to the one to which the peer connects, and each sends only what its own applications have sent; end one of them, or let both use RabbitMQ (--broker)", "other_state", r.State, "state", state)
	}
}

// removeOldRecords removes the records of services that have ended without removing them, if their
// node's directories do not exist any more.
func removeOldRecords(folder string) {
	for path, r := range readRecords(folder) {
		if _, err := os.Stat(r.Directory); errors.Is(err, fs.ErrNotExist) && !isRunning(path) {
			os.Remove(path + ".json")
			os.Remove(path + ".lock")
		}
	}
}

// readRecords returns the records in a folder by their paths without the extension. Files that are not
// records are skipped.
func readRecords(folder string) map[string]serviceRecord {
	records := make(map[string]serviceRecord)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return records
	}
	for _, e := range entries {
		path, ok := strings.CutSuffix(filepath.Join(folder, e.Name()), ".json")
		if !ok || !e.Type().IsRegular() || len(records) == maxRecords {
			continue
		}
		data, err := durable.Read(path+".json", maxRecordSize)
		var r serviceRecord
		if err == nil && json.Unmarshal(data, &r) == nil && r.Admin != "" {
			records[path] = r
		}
	}
	return records
}

// isRunning reports whether the service of a record holds its lock.
func isRunning(path string) bool {
	if fi, err := os.Lstat(path + ".lock"); err != nil || !fi.Mode().IsRegular() {
		return false
	}
	lock := durable.NewFlock(path + ".lock")
	free, err := lock.TryLock()
	lock.Close()
	return err == nil && !free
}
