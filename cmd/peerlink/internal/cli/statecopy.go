package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/internal/shell"
	"peerlink/node"
)

func (a *app) stateCommand() *cobra.Command {
	c := group("state", "Back up, restore and hand over the messages of the embedded broker, or move them to RabbitMQ",
		a.stateBackupCommand(), a.stateRestoreCommand(), a.stateExportCommand(), a.stateAdoptCommand())
	c.Long = `With the embedded broker, the messages of a node are in its state folder. These
commands copy them while the service runs, put a copy back, move what waits to
RabbitMQ, and give it to a node with the same ID and a new root key. Use them as the
user of the service.

  peerlink state backup /backup/messages.db
  peerlink state restore /backup/messages.db    # while no service runs
  peerlink state export --broker amqp://…       # while no service runs
  peerlink state adopt                          # while no service runs

See docs/operations.md, "Backup".`
	return c
}

// storeContent is what a message store contains, in JSON.
type storeContent struct {
	Bytes    int64     `json:"bytes"` // size of the file
	Messages int64     `json:"messages"`
	SetAside int64     `json:"set_aside"`
	Newest   time.Time `json:"newest,omitzero"` // arrival of the newest message
}

func storeContentOf(c embedded.Content) storeContent {
	return storeContent{c.Bytes, c.Messages, c.SetAside, c.Newest.UTC()}
}

// String returns the content as a part of a sentence.
func (c storeContent) String() string {
	text := fmt.Sprintf("%s and %d set aside, %.1f MiB", messageCount(int(c.Messages), "", ""), c.SetAside, float64(c.Bytes)/(1<<20))
	if !c.Newest.IsZero() {
		text += "; the newest is of " + formatTime(c.Newest)
	}
	return text
}

// copyOptions returns options for copying the node's store with a display of the progress, in MiB after text.
// stop ends the display.
func (a *app) copyOptions(owner, text string) (o embedded.CopyOptions, stop func()) {
	p := a.startProgress(text)
	p.setUnit(" MiB")
	return embedded.CopyOptions{Owner: owner, Progress: func(done, total int64) { p.set(int(done>>20), int(total>>20)) }}, p.stop
}

// backupResult is the output of "state backup".
type backupResult struct {
	File string `json:"file"`
	storeContent
}

func (a *app) stateBackupCommand() *cobra.Command {
	var state string
	var force, asJSON bool
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the messages to a file, also while the service runs",
		Long: `Copies the message store of the embedded broker to FILE, as it is at one moment:
what waits to be sent, what applications have not taken out, and what is set aside.
The service may be running, and is not delayed. The copy is checked before FILE
is made, which only its owner can read. FILE can not be in the state folder, whose files
the service uses.

Not in it are the node's directory, keys and certificates. It contains the messages
as they are, unencrypted.`,
		Example: "  peerlink -C my-node state backup /backup/messages.db\n  peerlink -C my-node state backup /backup/messages.db --force --json",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			path, err := existingStore(cmd.Context(), d, state)
			if err != nil {
				return err
			}
			if err := checkBackupPlace(d, filepath.Dir(path), args[0]); err != nil {
				return err
			}
			o, stop := a.copyOptions(storeOwner(d), "Copying the messages")
			o.Replace = force
			content, err := embedded.Backup(cmd.Context(), path, args[0], o)
			stop()
			if err != nil {
				return adviseOnStore(err)
			}
			result := backupResult{args[0], storeContentOf(content)}
			return a.result(asJSON, result, fmt.Sprintf("%s: %s", result.File, result.storeContent))
		},
	}
	a.stateFlag(c, &state)
	c.Flags().BoolVar(&force, "force", false, "replace FILE if it is a backup or empty, once the new copy is complete")
	jsonFlag(c, &asJSON)
	return c
}

// checkBackupPlace returns an error if a backup would be a file among those of a service, or take the place of an empty
// file in the node's directory: a lock, for example, is empty, and may be missing.
func checkBackupPlace(d *node.Dir, state, file string) error {
	type place struct{ name, folder string }
	used := []place{{"the state folder", state}, {"the folder of the records of services", recordFolder()}}
	if info, err := os.Stat(file); err == nil && info.Size() == 0 {
		used = append(used, place{"the node's directory", d.Path()})
	}
	target, err := filepath.EvalSymlinks(file)
	for _, u := range used {
		if isInside(u.folder, file) || err == nil && isInside(u.folder, target) {
			return fmt.Errorf("%s is in %s, %s, whose files the service uses: name a file elsewhere for the backup", file, u.name, u.folder)
		}
	}
	return nil
}

// isInside reports whether a file, which need not exist, is in a folder or in a folder below it.
func isInside(folder, file string) bool {
	want, err := os.Stat(folder)
	if err != nil {
		return false
	}
	at, err := filepath.Abs(filepath.Dir(file))
	if err == nil {
		at, err = filepath.EvalSymlinks(at)
	}
	for err == nil {
		if info, e := os.Stat(at); e == nil && os.SameFile(info, want) {
			return true
		}
		above := filepath.Dir(at)
		if above == at {
			break
		}
		at = above
	}
	return false
}

// restoreResult is the output of "state restore".
type restoreResult struct {
	State string `json:"state"` // the state folder
	storeContent
	Aside    string        `json:"aside,omitempty"`    // the folder with the store that was replaced
	Replaced *storeContent `json:"replaced,omitempty"` // what that contains, if it could be read
}

func (a *app) stateRestoreCommand() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put the messages of a backup in the place of the present ones",
		Long: `Puts a backup of "peerlink state backup" in the place of the node's message store, or
into a new state folder on another machine. No service may be running. A backup of
another node is refused. The present messages are kept, in a folder that is named
at the end; that is a state folder too:

  peerlink queue list --state /var/lib/peerlink/state/before-restore-…

The backup is an older state. What was sent since it was made is sent again, and what
applications have taken out since is delivered again, with the same message-id. What was
received, or given by applications, since then is not in it: as far as it was neither
sent nor taken out, it is only in that folder. What comes after the restore has
message-ids that no message has had before.`,
		Example: "  peerlink -C my-node state restore /backup/messages.db",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			d, err := a.open()
			if err != nil {
				return err
			}
			dir, err := serviceState(cmd.Context(), d, state)
			if err != nil {
				return err
			}
			if dir, err = stateFolder(d, dir); err != nil {
				return err
			}
			_, statErr := os.Stat(dir)
			if _, err = openState(d, dir); err != nil {
				return err
			}
			defer func() {
				if err != nil && statErr != nil { // the folder was made here
					os.Remove(filepath.Join(dir, lockName))
					os.Remove(dir)
				}
			}()
			unlock, err := lockState(dir)
			if err != nil {
				return err
			}
			defer unlock()
			o, stop := a.copyOptions(storeOwner(d), "Copying the messages")
			restored, err := embedded.Restore(cmd.Context(), storePath(dir), args[0], o)
			stop()
			if err != nil {
				return adviseOnStore(err)
			}
			return a.showRestored(dir, restored, asJSON)
		},
	}
	a.stateFlag(c, &state)
	jsonFlag(c, &asJSON)
	return c
}

// showRestored prints what "state restore" has done, and what it means for messages.
func (a *app) showRestored(state string, r embedded.Restored, asJSON bool) error {
	result := restoreResult{State: state, storeContent: storeContentOf(r.Content), Aside: r.KeptIn}
	line := fmt.Sprintf("%s: %s", storePath(state), result.storeContent)
	if r.KeptIn != "" {
		kept := "what it contains could not be read"
		if r.Replaced != nil {
			content := storeContentOf(*r.Replaced)
			result.Replaced, kept = &content, content.String()
		}
		line += fmt.Sprintf("\nThe store that was there is kept in %s: %s", r.KeptIn, kept)
	}
	if err := a.result(asJSON, result, line); err != nil {
		return err
	}
	a.printMessage(`Messages that were sent since the backup was made will be sent again, and those that
applications have taken out since then will be delivered again, with the same message-id.
Messages that were received, or given by applications, since then are missing.`)
	if r.KeptIn != "" {
		a.printMessage(`Those of the missing ones that were neither sent nor taken out are in the old store:
"peerlink queue list --state %s" counts them.`, shell.Quote(r.KeptIn))
	}
	return nil
}

// adviseOnStore adds advice to an error of a store of another node.
func adviseOnStore(err error) error {
	if errors.Is(err, embedded.ErrOwner) {
		return fmt.Errorf("%w; name this node's directory with -C, its own state folder with --state, and a backup of it", err)
	}
	return err
}
