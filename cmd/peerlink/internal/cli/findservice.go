package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/internal/terminal"
	"peerlink/node"
)

// runningServices returns the records of the services that run for the node's directory. Records that
// another user could have written are not trusted, and a service that says that it is another node's is
// left out.
func runningServices(ctx context.Context, d *node.Dir) []serviceRecord {
	folder := recordFolder()
	dir, err := realPath(d)
	if err != nil || checkRecordFolder(folder) != nil {
		return nil
	}
	var found []serviceRecord
	for path, r := range readRecords(folder) {
		if r.Directory == dir && isRunning(path) && !isOfOther(ctx, d, r.Admin) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b serviceRecord) int {
		return cmp.Or(cmp.Compare(a.State, b.State), cmp.Compare(a.Admin, b.Admin))
	})
	return found
}

// isOfOther reports whether the service at an admin address says that it is another node's. A service
// that does not answer is not left out, so that the command that uses it shows the reason.
func isOfOther(ctx context.Context, d *node.Dir, address string) bool {
	where, err := admin.ParseAddress(address)
	if err != nil {
		return true
	}
	l, err := admin.NewClient(where).Links(ctx)
	own := d.Identity()
	return err == nil && (l.ID != own.ID || l.Type != own.Type.String())
}

// findAdmin returns the admin address of the service that runs for the node's directory, or "" if none
// is recorded.
func (a *app) findAdmin(ctx context.Context, d *node.Dir) (string, error) {
	found := runningServices(ctx, d)
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0].Admin, nil
	}
	return "", severalServicesError(found, func(r serviceRecord) string { return "--admin " + r.Admin })
}

// serviceState returns the state folder of the service that runs for the node's directory, if dir is ""
// and a service with a state folder is recorded. Otherwise it returns dir.
func serviceState(ctx context.Context, d *node.Dir, dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	found := slices.DeleteFunc(runningServices(ctx, d), func(r serviceRecord) bool { return r.State == "" })
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0].State, nil
	}
	return "", severalServicesError(found, func(r serviceRecord) string { return "--state " + r.State })
}

// serviceCertificate returns the files of the server certificate of the service that runs for the node's
// directory, if one is recorded and the files are not given by flags or environment variables, and cert and
// key otherwise.
func serviceCertificate(cmd *cobra.Command, d *node.Dir, cert, key string) (string, string) {
	if isGiven(cmd.Flags(), "server-cert") || isGiven(cmd.Flags(), "server-key") {
		return cert, key
	}
	for _, r := range runningServices(cmd.Context(), d) {
		if r.ServerCert != "" {
			return r.ServerCert, r.ServerKey
		}
	}
	return cert, key
}

func severalServicesError(found []serviceRecord, flag func(serviceRecord) string) error {
	var flags []string
	for _, r := range found {
		flags = append(flags, terminal.Line(flag(r)))
	}
	return fmt.Errorf("%d services run for this node's directory: name one of them, with %s", len(found), strings.Join(flags, " or "))
}
