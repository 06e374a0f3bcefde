package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"

	"peerlink/node"
	"peerlink/node/registry"
)

// randomID is the value of --id with which an ID is chosen by lot.
const randomID = "random"

// reservedID is the ID that no accounting authority may choose: well-known currencies have the debtor IDs
// that begin with it.
const reservedID = "00000000"

// The range of IDs that new accounting authorities are asked to choose from.
const (
	firstRandomID  = 0x10000000
	countRandomIDs = 0x10000
)

// checkChosenID checks the value of --id.
func checkChosenID(id string) error {
	if id == randomID {
		return nil
	}
	return node.CheckID(id)
}

// chooseID returns the ID of a new node: for agents "", for accounting authorities the given one, or one
// chosen by lot. list, if it is not "", is a file or a URL with the IDs that others have.
func (a *app) chooseID(ctx context.Context, o node.InitOptions, list string) (id string, err error) {
	if o.Type.IDDerived() {
		if list != "" {
			return "", usagef("--list is for the ID of an accounting authority, and that of a %s is derived from its root key: leave it out", o.Type)
		}
		return "", nil
	}
	if err := checkChosenID(o.ID); err != nil {
		return "", &usageError{err.Error()}
	}
	used := make(map[string]bool)
	if list != "" {
		stop := a.working("Reading the list of accounting authorities")
		used, err = registry.UsedIDs(ctx, list)
		stop()
		if err != nil {
			return "", err
		}
	}
	if o.ID == randomID {
		return drawID(node.BegunID(a.dir), used)
	}
	if used[o.ID] {
		return "", fmt.Errorf("the ID %s is in %s already: choose another one, or --id random", o.ID, list)
	}
	if o.ID == reservedID {
		a.warn("the ID %s is reserved for the debtor IDs of well-known currencies, and no node may choose it: end this with Ctrl-C, or do not use\nthe result. \"--id random\" chooses one.", reservedID)
	}
	return o.ID, nil
}

// drawID draws an ID that is not used. begun is the ID that an interrupted init has drawn, or "".
func drawID(begun string, used map[string]bool) (string, error) {
	if node.CheckID(begun) == nil {
		return begun, nil
	}
	var free []string
	for n := range countRandomIDs {
		if id := fmt.Sprintf("%08x", firstRandomID+n); !used[id] {
			free = append(free, id)
		}
	}
	if len(free) == 0 {
		return "", fmt.Errorf("all IDs from %08x to %08x are used, according to the list: choose one with --id", firstRandomID, firstRandomID+countRandomIDs-1)
	}
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(free))))
	if err != nil {
		return "", err
	}
	return free[n.Int64()], nil
}
