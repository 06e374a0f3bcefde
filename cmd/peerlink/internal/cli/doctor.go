package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/broker/rabbitmq"
	"peerlink/doctor"
	"peerlink/internal/durable"
	"peerlink/internal/terminal"
	"peerlink/link"
	"peerlink/node"
)

// doctorFlags are the flags of "doctor": those of "serve", so that it looks at what the service uses.
type doctorFlags struct {
	serveFlags
	json bool
}

// unusedByDoctor are the flags of "serve" that "doctor" accepts, so that it can be given the same ones, and
// has no use for.
var unusedByDoctor = []string{
	"proxy-from", "queue-type", "local-listen", "follow", "follow-local", "follow-after", "publish", "publish-file", "admin-exposed",
	"log-level", "log-format", "allow-root-key", "max-connections-per-peer", "peer-rate", "idle", "check-interval",
}

func (a *app) doctorCommand() *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor [PEER]",
		Short: "Find out why messages do not pass",
		Long: `Looks at everything on the path of a message, in the order in which one thing needs
the other, and says where it breaks, with one remedy for each fault. First the node:
the clock, the directory and who can change it, the server certificate and its key,
the address where the service listens and those that peers are told, the disk, the
broker, its objects, policies and quotas. Then each peer, or PEER: DNS, TCP to each of
its servers by IPv4 and IPv6, TLS, whose certificates are shown and which side refuses
them by which rule, the STOMP session, and whether the peer knows this node.

What needs something that has failed is skipped, so the first failure is the cause.

Nothing is changed, and no message is sent. No service has to run; if one does, it is
asked as well, also for the files of its certificate. The flags and environment
variables are those of "serve": without a running service, give the same ones.
docs/doctor.md explains each check.

The exit code is 1 if a check has failed; warnings alone give 0.`,
		Example: "  peerlink -C my-node doctor\n  peerlink -C my-node doctor \"Harbour Bank\" --json",
		Args:    someArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.readNodedataURL(cmd); err != nil {
				return err
			}
			return a.doctor(cmd, args, f)
		},
	}
	f.add(a, c)
	for _, name := range unusedByDoctor {
		_ = c.Flags().MarkHidden(name) // fails only for a flag that does not exist
	}
	jsonFlag(c, &f.json)
	return c
}

func (a *app) doctor(cmd *cobra.Command, args []string, f doctorFlags) error {
	cfg, err := a.doctorConfig(cmd, args, f)
	if err != nil {
		return err
	}
	p := a.startProgress("Looking")
	cfg.Progress = p.set
	report, err := doctor.Run(cmd.Context(), cfg)
	p.stop()
	if err != nil {
		return err
	}
	if f.json {
		err = a.json(report)
	} else {
		a.showDiagnosis(report)
	}
	if err == nil && !report.OK {
		err = errSilent
	}
	return err
}

// doctorConfig returns what is to be examined. A directory that can not be opened is examined, too.
func (a *app) doctorConfig(cmd *cobra.Command, args []string, f doctorFlags) (cfg doctor.Config, err error) {
	ctx := cmd.Context()
	cfg = doctor.Config{Dir: a.dir, ServerCert: f.serverCert, ServerKey: f.serverKey, Listen: string(f.listen)}
	if f.timeouts, err = timeoutsFromEnvironment(); err != nil {
		return cfg, err
	}
	cfg.HandshakeTimeout = f.timeouts.handshake
	if cfg.Proxy, err = f.proxy.config(ctx, func(text string) { a.warn("%s", text) }); err != nil {
		return cfg, err
	}
	d, err := a.open()
	if err != nil {
		d = nil // the first check shows the reason
	} else if len(args) > 0 {
		if cfg.Peer, err = d.FindPeer(args[0]); err != nil {
			return cfg, err
		}
	}
	service, err := f.service(ctx, d)
	if err != nil {
		return cfg, err
	}
	if d != nil {
		cfg.ServerCert, cfg.ServerKey = serviceCertificate(cmd, d, cfg.ServerCert, cfg.ServerKey)
	}
	a.serverFiles(&cfg.ServerCert, &cfg.ServerKey)
	if service.Admin != "" {
		cfg.Service, cfg.ServiceErr = linksAt(ctx, service.Admin)
		if errors.Is(cfg.ServiceErr, admin.ErrNoServer) {
			cfg.ServiceErr = fmt.Errorf("a service runs with this state folder or admin address, and does not answer: %w", cfg.ServiceErr)
		}
	}
	if service.RabbitMQ && !isGiven(cmd.Flags(), "broker") {
		cfg.Broker = doctor.UnknownBroker("the running service uses RabbitMQ: give its URL with --broker, or in PEERLINK_BROKER")
		return cfg, nil
	}
	cfg.Broker, err = f.examinedBroker(service)
	return cfg, err
}

// service returns where the service of the node can be asked, and its state folder, as far as they are
// known.
func (f *doctorFlags) service(ctx context.Context, d *node.Dir) (s serviceRecord, err error) {
	if d != nil && f.admin == "" && f.state == "" {
		found := runningServices(ctx, d)
		if len(found) > 1 && f.broker == embeddedBroker {
			return s, severalServicesError(found, func(r serviceRecord) string { return "--state " + r.State })
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	s.State, s.Admin = f.state, f.admin
	if s.State == "" && d != nil {
		s.State = defaultState(d)
	}
	if s.State == "" {
		return s, nil
	}
	if s.State, err = filepath.Abs(s.State); err != nil {
		return s, err
	}
	if s.Admin == "" || s.Admin == noAdmin {
		s.Admin = ""
		if lockedState(s.State) {
			s.Admin = adminSocket(s.State)
		}
	}
	return s, nil
}

// lockedState reports whether a service holds the lock of the state folder.
func lockedState(state string) bool {
	path := filepath.Join(state, "serve.lock")
	if _, err := os.Lstat(path); err != nil {
		return false
	}
	l := durable.NewFlock(path)
	free, err := l.TryLock()
	l.Close()
	return err == nil && !free
}

// linksAt asks the service at an admin address.
func linksAt(ctx context.Context, address string) (*admin.Links, error) {
	where, err := admin.ParseAddress(address)
	if err != nil {
		return nil, usagef("--admin: %v", err)
	}
	return admin.NewClient(where).Links(ctx)
}

// examinedBroker returns the broker that the service uses. Nothing is opened.
func (f *doctorFlags) examinedBroker(service serviceRecord) (doctor.Broker, error) {
	if f.broker == embeddedBroker {
		if f.queuePattern != string(link.DefaultQueuePattern) || f.deadLetterSuffix != defaultDeadLetterSuffix || f.management != "" {
			return nil, usagef("--queue-pattern, --dead-letter-suffix and --management are for RabbitMQ, and the broker is the embedded one")
		}
		return &doctor.Embedded{State: service.State, Store: storePath(service.State), Owner: storeOwner, PeerQuota: int64(f.limits.quota), MinFree: minFree}, nil
	}
	pattern, err := link.ParseQueuePattern(f.queuePattern)
	if err != nil {
		return nil, usagef("--queue-pattern: %v", err)
	}
	if _, err := rabbitmq.OpenManagement(f.broker, f.management); err != nil {
		return nil, usagef("--broker is not %q, and as a URL, or --management: %v", embeddedBroker, err)
	}
	return &doctor.RabbitMQ{URL: f.broker, Pattern: pattern, DeadLetterSuffix: f.deadLetterSuffix, Management: f.management, Timeout: f.timeouts.connect}, nil
}

// stateWords are the words for the states of checks, and their colours.
var stateWords = map[doctor.State]cell{
	doctor.Passed:  {"ok", styleGood},
	doctor.Warning: {"warning", styleWarn},
	doctor.Failed:  {"FAILED", styleBad},
	doctor.Skipped: {"skipped", styleIdle},
}

// showDiagnosis prints the checks, those of the node and then those of each peer, and the first fault.
func (a *app) showDiagnosis(r *doctor.Report) {
	for i, check := range r.Checks {
		if i == 0 || check.Peer != r.Checks[i-1].Peer {
			a.showHeading(check.Peer, i == 0)
		}
		if i > 0 && slices.Contains(skippedWith(r.Checks[i-1:]), check.Name) {
			continue // shown with the one before
		}
		a.showCheck(check, skippedWith(r.Checks[i:]))
	}
	a.print("\n%d failed, %d warnings, %d skipped, %d passed.", r.Count(doctor.Failed), r.Count(doctor.Warning), r.Count(doctor.Skipped), r.Count(doctor.Passed))
	if first := r.First(); first != nil {
		a.print("Begin with %s: %s", first.Name, terminal.Line(about(*first)))
		a.print("  %s", terminal.Line(first.Remedy))
	}
}

// skippedWith returns the names of the checks after the first one that are skipped for the same subject.
func skippedWith(checks []doctor.Check) (names []string) {
	for _, c := range checks[1:] {
		if checks[0].State != doctor.Skipped || c.State != doctor.Skipped || c.Subject != checks[0].Subject || c.Peer != checks[0].Peer {
			break
		}
		names = append(names, c.Name)
	}
	return names
}

// showCheck prints a check, and the names of those that are skipped with it.
func (a *app) showCheck(c doctor.Check, others []string) {
	word := stateWords[c.State]
	text := about(c)
	if len(others) > 0 {
		text += "; so do " + strings.Join(others, ", ")
	}
	fmt.Fprintf(raw(a.stdout), "  %s%*s%-12s%s\n", a.colours(a.stdout).show(word.style, word.text), 9-len(word.text), "", c.Name, terminal.Line(text))
	if c.Remedy != "" {
		a.print("             what to do: %s", terminal.Line(c.Remedy))
	}
}

func (a *app) showHeading(peer string, first bool) {
	if !first {
		a.print("")
	}
	if peer == "" {
		a.print("This node")
		return
	}
	name := ""
	if d, err := a.open(); err == nil {
		name, _ = d.PeerName(peer)
	}
	a.print("%s", terminal.Line("Peer "+peer+" "+name))
}

// about returns the subject and the detail of a check.
func about(c doctor.Check) string {
	if c.Subject == "" {
		return c.Detail
	}
	return c.Subject + ": " + c.Detail
}
