package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node"
	"peerlink/node/publish"
)

// checkServe implements "serve --check": it prints every setting in effect and where it comes from,
// and checks what the service needs. It changes nothing, but opens the ports for a moment.
func (a *app) checkServe(cmd *cobra.Command, f serveFlags) error {
	log, level, err := a.newLogger(&a.stderr, f.logLevel, f.logFormat, false)
	if err != nil {
		return err
	}
	level.Set(max(level.Level(), slog.LevelWarn))
	if err := f.checkAddresses(); err != nil {
		return err
	}
	cfg, err := a.serviceConfig(cmd.Context(), &f, log)
	if cfg.Broker != nil {
		defer cfg.Broker.Close()
	}
	if err != nil {
		a.showSettings(cmd, f, nil)
		return err
	}
	problems := a.checkResources(cmd.Context(), &f, cfg)
	a.showSettings(cmd, f, cfg.Dir)
	if err := errors.Join(problems...); err != nil {
		return err
	}
	a.printMessage("\nEverything is in order: %s can be served.", cfg.Dir.Identity())
	return nil
}

// checkResources returns what is wrong with the files and ports that the service uses besides those that
// serviceConfig checks. It sets defaults in f.
func (a *app) checkResources(ctx context.Context, f *serveFlags, cfg link.Config) (problems []error) {
	d := cfg.Dir
	if cfg.Broker == nil {
		state, err := stateFolder(d, f.state)
		f.state = cmp.Or(state, f.state)
		if err == nil { // otherwise other users could replace what is read there
			err = checkState(d, f.state)
		}
		problems = append(problems, err)
	}
	problems = append(problems, a.checkOwnServers(d, f), checkPublished(d, f.publish))
	if running := runningServices(ctx, d); len(running) > 0 {
		a.printMessage("A service runs for this directory (state %s), so the ports were not tried.", cmp.Or(running[0].State, "none"))
		return problems
	}
	for _, port := range f.ports(cfg) {
		if f.sockets[socketOf[port.flag]] != nil {
			continue
		}
		if err := tryListen(port.address); err != nil {
			problems = append(problems, fmt.Errorf("--%s %s: %w", port.flag, port.address, err))
		}
	}
	return problems
}

// checkState returns what keeps the service from using the state folder and what is in it. A folder that
// does not exist is made when the service starts.
func checkState(d *node.Dir, state string) error {
	fi, err := os.Stat(state)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the state folder: %w", err)
	case !fi.IsDir():
		return fmt.Errorf("the state folder: %s is no folder; name another with --state", state)
	}
	if err := guard.CheckPrivateFolder(state); err != nil {
		return fmt.Errorf("the state folder: %w", err)
	}
	return errors.Join(adviseOnOwner(d, embedded.Check(storePath(state), storeOwner(d))), local.CheckPasscode(state))
}

type port struct{ flag, address string }

// ports returns the TCP addresses on which the service must be able to listen, or systemd for it.
func (f *serveFlags) ports(cfg link.Config) []port {
	list := []port{{"listen", string(f.listen)}}
	if cfg.Broker == nil && f.localListen != "none" {
		list = append(list, port{"local-listen", f.localListen})
	}
	if f.publish.listen != noPublish {
		list = append(list, port{"publish", f.publish.listen})
	}
	if f.admin != "" && f.admin != noAdmin && !strings.HasPrefix(f.admin, "unix:") {
		list = append(list, port{"admin", f.admin})
	}
	return list
}

func tryListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkOwnServers checks the node's own stomp.toml. It warns, without failing, if peers are told other
// ports than the one on which the service listens, which is right if something in between forwards them.
func (a *app) checkOwnServers(d *node.Dir, f *serveFlags) error {
	if err := d.CheckStompTOML(); errors.Is(err, node.ErrUnpublished) {
		a.warn("%v: make a new info-bundle (\"peerlink bundle create\")", err)
	} else if err != nil {
		return fmt.Errorf("nodeinfo: %w", err)
	}
	_, own, err := net.SplitHostPort(string(f.listen))
	if err != nil {
		return err
	}
	servers := d.OwnServers()
	for _, s := range servers {
		if _, p, err := net.SplitHostPort(s); err == nil && p == own {
			return nil
		}
	}
	a.warn("peers are told to connect to %s, and --listen is %s: expected the same port, unless something forwards it", strings.Join(servers, ", "), f.listen)
	return nil
}

// checkPublished checks the info-bundle that --publish offers.
func checkPublished(d *node.Dir, s publishSettings) error {
	if s.listen == noPublish {
		if s.file != "" {
			return usagef("--publish-file is for --publish, which is not given")
		}
		return nil
	}
	return publish.Check(cmp.Or(s.file, d.PublishedBundle()), d.Root())
}

// showSettings prints every setting of the service, with its value and where that comes from. d may be nil.
func (a *app) showSettings(cmd *cobra.Command, f serveFlags, d *node.Dir) {
	effective := map[string]string{"server-cert": f.serverCert, "server-key": f.serverKey, "state": f.state}
	if path, err := filepath.Abs(a.dir); err == nil {
		effective["dir"] = path
	}
	if f.broker != embeddedBroker {
		effective["broker"] = rabbitmq.WithoutPasswords(f.broker)
		effective["state"] = "none"
	}
	if f.admin == "" {
		effective["admin"] = defaultDashboard + " if it is free, and " + adminSocketName + " in the state folder"
	}
	if f.publish.listen != noPublish && f.publish.file == "" && d != nil {
		effective["publish-file"] = d.PublishedBundle()
	}
	g := &grid{columns: []column{{title: "SETTING"}, {title: "VALUE"}, {title: "FROM"}}}
	if d != nil {
		g.add("node", d.Identity().String(), "directory")
		g.add("servers", strings.Join(d.OwnServers(), ", "), "nodeinfo/stomp.toml")
		if cert, err := link.LoadCertificate(d, f.serverCert, f.serverKey); err == nil {
			g.add("certificate", "until "+cert.NotAfter().UTC().Format(time.DateOnly), "server-cert")
		}
	}
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if notSettings[flag.Name] {
			return
		}
		value, origin := cmp.Or(effective[flag.Name], flag.Value.String()), originOf(flag)
		if sockets := f.sockets[socketOf[flag.Name]]; sockets != nil {
			value, origin = addressesOf(sockets), "systemd, socket "+socketOf[flag.Name]
		}
		g.add(flag.Name, orNone(value), origin)
	})
	a.showGrid(g)
}

// notSettings are the flags of "serve" that are no settings of the service.
var notSettings = map[string]bool{"check": true, "help": true, "color": true}

// originOf returns where the value of a flag comes from.
func originOf(f *pflag.Flag) string {
	if f.Changed {
		return "command line"
	}
	return cmp.Or(firstSet(f.Annotations[environment]...), "default")
}
