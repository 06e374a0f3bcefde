package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"

	"peerlink/admin"
	"peerlink/broker"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/socket"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node"
	"peerlink/node/check"
)

// noAdmin is the value of --admin that disables the admin address.
const noAdmin = "none"

// defaultDashboard is the address of the dashboard if the operator chooses none. If it is taken, the
// service goes on without it.
const defaultDashboard = "127.0.0.1:8122"

// adminSocketName is the name of the socket in the state folder.
const adminSocketName = "admin.sock"

// adminSocket returns the default admin address for a state folder.
func adminSocket(state string) string {
	return admin.UnixAddress(filepath.Join(state, adminSocketName))
}

// runLinks runs the links until ctx is done or an admin address fails. Meanwhile it serves the
// admin addresses and notifies the service manager. It closes the listeners. state is the state folder,
// or "" if there is none.
func runLinks(ctx context.Context, f serveFlags, cfg link.Config, listeners []net.Listener, state string, adminConfig admin.Config) error {
	log := cfg.Log
	serving := cfg.Serving
	cfg.Serving = func() {
		if serving != nil {
			serving()
		}
		notifyServiceManager(log, daemon.SdNotifyReady)
	}
	service := link.New(cfg)
	stalled := stalledCheck(service, cfg.Broker)
	adminConfig.Stalled = stalled
	adminConfig.Status, adminConfig.BrokerHealth, adminConfig.Log, adminConfig.Version = service.Status, cfg.Broker.Health, log, version
	adminConfig.Peer, adminConfig.Check, adminConfig.Broker = service.PeerDetails, f.checkDirectory(cfg.Dir), f.describeBroker(state)
	if b, ok := cfg.Broker.(*rabbitmq.Broker); ok {
		adminConfig.BrokerWarnings = b.Warnings
	}
	adminConfig.DeadLetters, _ = cfg.Broker.(broker.DeadLetters)
	adminConfig.Token = rand.Text()
	server, err := openAdmin(f, state, adminConfig)
	if err != nil {
		closeListeners(listeners)
		return err
	}

	if server != nil {
		tokenFile := f.adminTokenFile(cfg.Dir, state)
		defer keepAdminToken(tokenFile, adminConfig.Token, log)()
		defer recordService(cfg.Dir, f.record(state, server.Addresses()[0], tokenFile), log)()
	}
	store := slog.String("state", state)
	if state == "" {
		store = slog.String("broker", "RabbitMQ")
	}
	// From here on, commands find the service, and its addresses accept connections.
	log.Info("serving", "node", cfg.Dir.Identity().String(), "listen", addressesOf(listeners), store)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	notified := make(chan struct{})
	cancelNotify := context.AfterFunc(ctx, func() {
		defer close(notified)
		notifyServiceManager(log, daemon.SdNotifyStopping)
	})
	defer func() {
		if !cancelNotify() {
			<-notified // the service may stop sooner than it is sent
		}
	}()
	go feedWatchdog(ctx, service, stalled, log)
	// The admin addresses are served until the links have ended, so that their shutdown can be observed.
	adminCtx, closeAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer closeAdmin()
	adminErr := make(chan error, 1)
	go func() {
		if server == nil {
			adminErr <- nil
			return
		}
		err := server.Serve(adminCtx)
		if err != nil {
			stop()
		}
		adminErr <- err
	}()
	err = service.Run(ctx, listeners...)
	closeAdmin()
	return errors.Join(err, <-adminErr)
}

// checkDirectory returns a function that checks the node's directory, with the server certificate in use.
func (f *serveFlags) checkDirectory(d *node.Dir) func(context.Context) (*check.Report, error) {
	o := check.Options{Servers: []check.ServerFiles{{Cert: f.serverCert, Key: f.serverKey}}}
	return func(ctx context.Context) (*check.Report, error) { return check.Run(ctx, d.Path(), o) }
}

// describeBroker returns where the service keeps the messages, without a password.
func (f *serveFlags) describeBroker(state string) string {
	if state == "" {
		return "RabbitMQ, " + rabbitmq.WithoutPasswords(f.broker)
	}
	return "the embedded broker, " + storePath(state)
}

// record returns the record of the service with this state folder, which can be asked at an admin address.
func (f *serveFlags) record(state, adminAddress, tokenFile string) serviceRecord {
	return serviceRecord{
		State: state, Admin: adminAddress, AdminToken: tokenFile, ServerCert: absolutePath(f.serverCert), ServerKey: absolutePath(f.serverKey),
		RabbitMQ: f.broker != embeddedBroker,
	}
}

// absolutePath returns the absolute form of a path, or "" if there is none.
func absolutePath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	return abs
}

// checkAddresses checks the addresses for administration, for local applications and for the info-bundle, before
// anything is opened.
func (f *serveFlags) checkAddresses() error {
	if f.broker == embeddedBroker {
		if err := local.CheckListen(f.localListen); err != nil {
			return usagef("--local-listen: %v", err)
		}
	}
	if f.publish.listen != noPublish && checkHostPort(f.publish.listen) != nil {
		return usagef("--publish is %q: expected an address like :8080 or 192.0.2.1:8080, or %s", f.publish.listen, noPublish)
	}
	if f.admin == "" || f.admin == noAdmin {
		return nil
	}
	if err := admin.CheckListen(f.admin, f.adminExposed); err != nil {
		return usagef("--admin: %v", err)
	}
	return nil
}

// openAdmin opens the admin addresses. It returns nil if there are none.
func openAdmin(f serveFlags, state string, cfg admin.Config) (*admin.Server, error) {
	cfg.Listen = f.adminAddresses(state)
	if len(cfg.Listen) == 0 {
		return nil, nil
	}
	server, err := admin.Open(cfg)
	switch {
	case errors.Is(err, admin.ErrAddress), errors.Is(err, admin.ErrExposed):
		return nil, usagef("--admin: %v", err)
	case err != nil:
		return nil, err
	}
	addresses := server.Addresses()
	for _, address := range addresses {
		cfg.Log.Info("the admin address is open", "admin", address)
	}
	if len(addresses) == 0 {
		return nil, server.Close()
	}
	return server, nil
}

// adminAddresses returns the socket in the state folder, and the address that the operator has
// chosen or the default one.
func (f *serveFlags) adminAddresses(state string) (list []admin.Listen) {
	if f.admin == noAdmin {
		return nil
	}
	path := filepath.Join(state, adminSocketName)
	if state != "" && f.admin != admin.UnixAddress(path) {
		list = append(list, admin.Listen{Address: admin.UnixAddress(path), Optional: f.admin != "" || len(path) > socket.MaxPath})
	}
	if f.admin != "" {
		return append(list, admin.Listen{Address: f.admin, Listener: f.inherited(socketAdmin), Exposed: f.adminExposed})
	}
	// All users of the machine can reach the port, so the log level is changed elsewhere.
	return append(list, admin.Listen{Address: defaultDashboard, Optional: true, FixedLevel: true})
}
