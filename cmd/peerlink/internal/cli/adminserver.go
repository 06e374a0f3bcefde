package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"

	"peerlink/admin"
	"peerlink/broker/rabbitmq"
	"peerlink/internal/socket"
	"peerlink/link"
)

// noAdmin is the value of --admin that disables the admin address.
const noAdmin = "none"

// adminSocket returns the default admin address for a state folder.
func adminSocket(state string) string {
	return admin.UnixAddress(filepath.Join(state, "admin.sock"))
}

// runLinks runs the links until ctx is done or the admin address fails. Meanwhile it serves the
// admin address and notifies the service manager. It closes listener. The default admin address is
// a Unix socket in the state folder, or none if state is "".
func runLinks(ctx context.Context, f serveFlags, cfg link.Config, listener net.Listener, state string, adminConfig admin.Config) error {
	log := cfg.Log
	cfg.Serving = func() { notifyServiceManager(log, daemon.SdNotifyReady) }
	service := link.New(cfg)
	stalled := stalledCheck(service, cfg.Broker)
	adminConfig.Stalled = stalled
	adminConfig.Status, adminConfig.BrokerTrouble, adminConfig.Log, adminConfig.Version = service.Status, cfg.Broker.Health, log, version
	if b, ok := cfg.Broker.(*rabbitmq.Broker); ok {
		adminConfig.BrokerWarnings = b.Warnings
	}
	server, err := openAdmin(f, state, adminConfig)
	if err != nil {
		listener.Close()
		return err
	}

	if server != nil {
		defer recordService(cfg.Dir, state, server.Address(), log)()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() { notifyServiceManager(log, daemon.SdNotifyStopping) })()
	go feedWatchdog(ctx, service, stalled, log)
	// The admin address is served until the links have ended, so that their shutdown can be observed.
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
	err = service.Run(ctx, listener)
	closeAdmin()
	return errors.Join(err, <-adminErr)
}

// checkAdmin checks the syntax of the --admin address, before anything is opened. openAdmin
// checks whether the address is allowed.
func (f *serveFlags) checkAdmin() error {
	if f.admin == "" || f.admin == noAdmin {
		return nil
	}
	if _, err := admin.ParseAddress(f.admin); err != nil {
		return usagef("--admin: %v", err)
	}
	return nil
}

// openAdmin opens the admin address. It returns nil if there is none, which it logs if the path of
// the default address is too long.
func openAdmin(f serveFlags, state string, cfg admin.Config) (*admin.Server, error) {
	cfg.Address, cfg.Exposed = f.admin, f.adminExposed
	byDefault := f.admin == ""
	switch {
	case f.admin == noAdmin, byDefault && state == "":
		return nil, nil
	case byDefault:
		cfg.Address = adminSocket(state)
	}
	server, err := admin.Open(cfg)
	switch {
	case byDefault && errors.Is(err, socket.ErrPathTooLong):
		cfg.Log.Warn("no admin address: choose one with --admin, or a state folder with a shorter path", "err", err)
		return nil, nil
	case errors.Is(err, admin.ErrAddress), errors.Is(err, admin.ErrExposed):
		return nil, usagef("--admin: %v", err)
	case err != nil:
		return nil, err
	}
	cfg.Log.Info("the admin address is open", "admin", server.Address())
	return server, nil
}
