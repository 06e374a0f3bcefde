package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"peerlink/internal/durable"
)

const (
	addressFile = "door.json"
	socketFile  = "door.sock"

	// maxAddressFile is the maximum size of the address file in bytes.
	maxAddressFile = 4 << 10
)

// errNotOpen means that no door is open on a state folder, as far as a client can determine:
// there is no address file or passcode, or no connection or no answer.
var errNotOpen = errors.New("local: door is not open")

// ErrOwner means that the state folder, and its door, belong to another node.
var ErrOwner = errors.New("local: the state folder is another node's")

// addresses are the addresses on which the door listens, as in the address file.
type addresses struct {
	Unix string `json:"unix,omitempty"` // path of the socket; relative to the state folder
	TCP  string `json:"tcp,omitempty"`  // IP address and port
	// Owner is [Config.Owner], or empty in a file of an earlier version.
	Owner string `json:"owner,omitempty"`
}

// writeAddresses replaces the address file atomically. A file that has the content
// already, because a door was not closed, is kept: that needs no disk space.
func writeAddresses(stateDir string, a addresses) (err error) {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if old, err := durable.Read(filepath.Join(stateDir, addressFile), maxAddressFile); err == nil && string(old) == string(text)+"\n" {
		return nil
	}
	f, err := os.CreateTemp(stateDir, "."+addressFile+"-*") // readable by the owner only
	if err != nil {
		return durable.ExplainFull(stateDir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(stateDir, addressFile))
}

// readAddresses reads the address file. If the file does not exist, possibly because the disk
// was full when the door was opened, readAddresses returns the path of the Unix socket, and no
// owner. If there is no Unix socket either, it returns errNotOpen.
func readAddresses(stateDir string) (addresses, error) {
	path := filepath.Join(stateDir, addressFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if sock := filepath.Join(stateDir, socketFile); isSocket(sock) {
			return addresses{Unix: sock}, nil
		}
		return addresses{}, fmt.Errorf("%w: there is no %s; start \"peerlink serve\" first", errNotOpen, path)
	}
	if err != nil {
		return addresses{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAddressFile))
	if err != nil {
		return addresses{}, err
	}
	var a addresses
	if err := json.Unmarshal(text, &a); err != nil {
		return addresses{}, fmt.Errorf("%s is not a list of addresses: %w; \"peerlink serve\" writes a new one when it starts", path, err)
	}
	if a.Unix != "" && !filepath.IsAbs(a.Unix) {
		a.Unix = filepath.Join(stateDir, a.Unix)
	}
	return a, nil
}

func isSocket(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode()&fs.ModeSocket != 0
}
