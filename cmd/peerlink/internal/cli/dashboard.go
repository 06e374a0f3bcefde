package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/internal/durable"
	"peerlink/internal/shell"
	"peerlink/internal/terminal"
	"peerlink/node"
)

const (
	// adminTokenName is the name of the file with the token of the dashboard, in the state folder.
	adminTokenName = "admin-token"
	// maxAdminToken is the maximum size of the file in bytes.
	maxAdminToken = 250
)

// adminTokenFile returns the path of the file with the token of the service's dashboard. A service without
// a state folder has it in the folder of records, under the same name at each start.
func (f *serveFlags) adminTokenFile(d *node.Dir, state string) string {
	if state != "" {
		return filepath.Join(state, adminTokenName)
	}
	dir, err := realPath(d)
	if err != nil {
		dir = d.Path()
	}
	sum := sha256.Sum256([]byte(dir + "\x00" + f.admin))
	return filepath.Join(recordFolder(), hex.EncodeToString(sum[:16])+".token")
}

// keepAdminToken writes the token to a file, until remove is called; see keepTrying. A failure is only logged.
func keepAdminToken(path, token string, log *slog.Logger) (remove func()) {
	return keepTrying(func() (func(), error) { return writeAdminToken(path, token) }, log, slog.LevelWarn,
		"messages that are set aside can not be seen on the dashboard until the file with its token is written", "the file with the token of the dashboard is written")
}

// writeAdminToken writes the token to a new file, which only this user can read, and replaces that of a service
// that was killed. remove removes the file.
func writeAdminToken(path, token string) (remove func(), err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := durable.Create(path, []byte(token+"\n"), 0o600); err != nil {
		return nil, err
	}
	return func() { os.Remove(path) }, nil
}

func (a *app) dashboardCommand() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "dashboard",
		Short: "Print the link to the running service's dashboard, with the token for its messages",
		Long: `Prints the link to the dashboard of the running "peerlink serve". It has the token
with which messages that are set aside can be seen there, sent again and dropped:
whoever has it can do that, so keep it for yourself. It is valid until the service
ends. A browser does not send it as a part of the address.

If the service has no port for the users of its machine, it prints the token alone,
and how to forward a port to the service's socket.

If several services run for the node's directory, it prints the link of each.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			records, err := a.dashboardServices(cmd.Context(), state)
			if err != nil {
				return err
			}
			lines := []dashboardLink{}
			for _, r := range records {
				line, err := findDashboard(cmd.Context(), r)
				if err != nil {
					return err
				}
				lines = append(lines, line)
			}
			if asJSON {
				return a.json(lines)
			}
			for _, l := range lines {
				a.showDashboard(l)
			}
			return nil
		},
	}
	a.stateFlag(c, &state)
	jsonFlag(c, &asJSON)
	return c
}

// dashboardLink is the place of a service's dashboard.
type dashboardLink struct {
	Admin string `json:"admin"`         // the admin address that was asked
	URL   string `json:"url,omitempty"` // empty if the dashboard has no port
	Token string `json:"token"`
}

// dashboardServices returns the services that run for the node's directory, or the one with the given
// state folder.
func (a *app) dashboardServices(ctx context.Context, state string) ([]serviceRecord, error) {
	if state == "" {
		d, err := a.open()
		if err != nil {
			return nil, err
		}
		if found := runningServices(ctx, d); len(found) > 0 {
			return found, nil
		}
		state = defaultState(d)
	}
	state, err := filepath.Abs(state)
	return []serviceRecord{{State: state, Admin: adminSocket(state), AdminToken: filepath.Join(state, adminTokenName)}}, err
}

// findDashboard asks a service for the URL of its dashboard, and reads the token.
func findDashboard(ctx context.Context, r serviceRecord) (dashboardLink, error) {
	line := dashboardLink{Admin: r.Admin}
	l, err := linksAt(ctx, r.Admin)
	if err != nil {
		return line, explainNoServer(err)
	}
	token, err := durable.Read(r.AdminToken, maxAdminToken)
	if err != nil {
		return line, fmt.Errorf("the token of the dashboard: %w; the log of the service says why if it has none, and when it is written", err)
	}
	line.URL, line.Token = l.Dashboard, strings.TrimSpace(string(token))
	return line, nil
}

// showDashboard prints a link with the token or, if the service has no port for local users, the token alone.
// Another user's program may listen on any port that is not the service's own: a link to it would give that
// program the token.
func (a *app) showDashboard(l dashboardLink) {
	if l.URL != "" {
		a.print("%s", terminal.Line(l.URL+"#token="+l.Token))
		return
	}
	socket := strings.TrimPrefix(l.Admin, admin.UnixAddress(""))
	a.printMessage("The dashboard has no port of its own for the users of this machine. From another machine, forward a port to its socket:")
	a.printMessage("    %s", terminal.Line(forwardCommand(socket)))
	a.printMessage("If that succeeds, open http://127.0.0.1:8122/ there, and give this token where the page asks for it:")
	a.print("%s", terminal.Line(l.Token))
}

// forwardCommand returns the command that forwards a port to a socket. It fails, and does not only warn, if another
// program has the port, and names the address, since a browser may use another one for localhost.
func forwardCommand(socket string) string {
	return "ssh -N -o ExitOnForwardFailure=yes -L " + shell.Quote("127.0.0.1:8122:"+socket) + " SERVER"
}
