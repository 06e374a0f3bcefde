package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/internal/terminal"
	"peerlink/internal/wait"
	"peerlink/link"
	"peerlink/node"
)

// watchInterval is how often "links --watch" asks the service.
const watchInterval = 2 * time.Second

// linksFlags are the flags of "links".
type linksFlags struct {
	admin  adminFlags
	maxAge time.Duration
	watch  bool
	json   bool
}

func (a *app) linksCommand() *cobra.Command {
	var f linksFlags
	c := &cobra.Command{
		Use:   "links [PEER]",
		Short: "Show the state of the running service's links",
		Long: `Asks the running "peerlink serve" for the state of the links with all peers, or with
one: whether messages pass, in each direction, since when, and why not; what waits to be
sent and what is set aside now; what was sent and received since the service started; how
long the peer takes to confirm; and the certificate that is the first to end. Links that
need you come first. docs/links.md explains each state.

The exit code is 1 if the service is not ready, or a link has been in a bad state for
longer than --max-age.

The service is found by the node's directory. If several run for it, name one with
--state or --admin.`,
		Example: "  peerlink links\n  peerlink links \"Harbour Bank\" --watch",
		Args:    someArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.maxAge < 0 {
				return usagef("--max-age %v: expected 0 or more", f.maxAge)
			}
			if f.watch && f.json {
				return usagef("--watch and --json exclude each other")
			}
			client, err := a.adminClient(cmd, f.admin)
			if err != nil {
				return err
			}
			if f.watch {
				return a.watchLinks(cmd.Context(), client, args)
			}
			l, err := linksOf(cmd.Context(), client, args)
			if err != nil {
				return err
			}
			if f.json {
				err = a.json(l)
			} else {
				a.showLinks(l)
			}
			if err == nil && !areHealthy(l, f.maxAge) {
				return errSilent
			}
			return err
		},
	}
	a.adminFlags(c, &f.admin)
	c.Flags().DurationVar(&f.maxAge, "max-age", 5*time.Minute, "exit with 1 if a link has been in a bad state for longer than `TIME`")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "show the state again every two seconds, until Ctrl-C")
	jsonFlag(c, &f.json)
	return c
}

// linksOf returns the state of the links with all peers or, if args has one, with that peer. The
// worst come first.
func linksOf(ctx context.Context, client *admin.Client, args []string) (*admin.Links, error) {
	l, err := client.Links(ctx)
	if err != nil {
		return nil, explainNoServer(err)
	}
	if len(args) > 0 {
		var known []node.KnownPeer
		for _, p := range l.Peers {
			known = append(known, node.KnownPeer{ID: p.ID, Name: p.Name})
		}
		id, err := node.FindPeer(known, args[0])
		if err != nil {
			return nil, err
		}
		l.Peers = slices.DeleteFunc(l.Peers, func(p link.PeerStatus) bool { return p.ID != id })
	}
	slices.SortStableFunc(l.Peers, func(p, q link.PeerStatus) int { return cmp.Compare(p.Severity(), q.Severity()) })
	return l, nil
}

// areHealthy reports whether the service is ready, and no link has been in a bad state for longer
// than maxAge.
func areHealthy(l *admin.Links, maxAge time.Duration) bool {
	for _, p := range l.Peers {
		for _, s := range []link.LinkState{p.Out, p.In} {
			if s.Verdict.Severity() == link.Bad && l.At.Sub(s.Since) > maxAge {
				return false
			}
		}
	}
	return l.Ready
}

// watchLinks shows the state of the links until ctx is done. A service that does not answer is
// shown, too: it may be restarting.
func (a *app) watchLinks(ctx context.Context, client *admin.Client, args []string) error {
	for ctx.Err() == nil {
		l, err := linksOf(ctx, client, args)
		if ctx.Err() != nil {
			break
		}
		if isTerminal(a.stdout) {
			fmt.Fprint(raw(a.stdout), "\x1b[H\x1b[2J") // clears the screen
		}
		if err != nil {
			a.print("%s: %s", time.Now().Format(time.TimeOnly), terminal.Line(err.Error()))
		} else {
			a.showLinks(l)
		}
		if err := wait.Sleep(ctx, watchInterval); err != nil {
			break
		}
	}
	return nil
}

// severityStyles are the colours of the severities of link states.
var severityStyles = map[link.Severity]style{link.Bad: styleBad, link.Warn: styleWarn, link.Idle: styleIdle, link.Good: styleGood}

func (a *app) showLinks(l *admin.Links) {
	ready := "ready"
	if !l.Ready {
		ready = "NOT READY: " + strings.Join(l.Problems, "; ")
	}
	rows := [][2]string{
		{"node", l.Type + " " + l.ID},
		{"service", ready},
	}
	for _, warning := range l.Warnings {
		rows = append(rows, [2]string{"warning", warning})
	}
	a.table(append(rows, [][2]string{
		{"running for", admin.Age(l.At.Sub(l.Since))},
		{"certificate", firstToExpire(l.Certificates)},
	}...))
	if len(l.Peers) == 0 {
		return
	}
	a.print("")
	peers := &grid{columns: []column{
		{title: "PEER"}, nameColumn, {title: "LINK", cut: 18},
		{title: "WAITING", number: true}, {title: "OLDEST", number: true, drop: 3}, {title: "SET ASIDE", number: true, drop: 1},
		{title: "SENT", number: true, drop: 4}, {title: "RECEIVED", number: true, drop: 4},
		{title: "CONFIRM p50/p99", number: true, drop: 5},
		{title: "TYPE", drop: 7}, {title: "FIRST CERTIFICATE TO END", drop: 6},
	}}
	for i := range l.Peers {
		peers.rows = append(peers.rows, linkRow(l, &l.Peers[i]))
	}
	a.showGrid(peers)
	for i := range l.Peers {
		a.explainLink(l, &l.Peers[i])
	}
}

// linkRow returns the row of a peer in the table of links.
func linkRow(l *admin.Links, p *link.PeerStatus) []cell {
	waiting, oldest, aside := "-", "-", "-"
	if len(l.Queues) > 0 {
		q := l.QueueOf(*p)
		waiting, aside = fmt.Sprint(q.Messages), fmt.Sprint(q.SetAside)
		if q.Oldest != nil {
			oldest = admin.Age(l.At.Sub(*q.Oldest))
		}
	}
	confirm := "-"
	if p.Confirm.Count > 0 {
		confirm = fmt.Sprintf("%.0f/%.0f ms", 1000*p.Confirm.P50, 1000*p.Confirm.P99)
	}
	row := []cell{{text: p.ID}, {text: p.Name}, linkCell(l, p)}
	for _, text := range []string{waiting, oldest, aside, fmt.Sprint(p.Counts.Sent), fmt.Sprint(p.Counts.Received), confirm, orNone(p.Type), firstToExpire(p.Certificates)} {
		row = append(row, cell{text: text})
	}
	return row
}

// linkCell returns the verdict on a link, and for how long it has held: one if it is the same for
// both directions.
func linkCell(l *admin.Links, p *link.PeerStatus) cell {
	text := "out " + verdict(p.Out, l.At) + ", in " + verdict(p.In, l.At)
	if p.Out.Verdict == p.In.Verdict {
		text = verdict(p.Out, l.At)
	}
	return cell{text, severityStyles[p.Severity()]}
}

// verdict returns the verdict on one direction of a link, and for how long it has held.
func verdict(s link.LinkState, now time.Time) string {
	if s.Since.IsZero() {
		return s.Verdict.Words()
	}
	return s.Verdict.Words() + " " + admin.Age(now.Sub(s.Since))
}

// explainLink prints why messages do not pass through a link, and what can be done. If the
// verdict is the same for both directions, the reason is that of sending.
func (a *app) explainLink(l *admin.Links, p *link.PeerStatus) {
	name := terminal.Line(p.ID)
	if p.Name != "" {
		name += " (" + terminal.Line(p.Name) + ")"
	}
	if p.Out.Verdict == p.In.Verdict {
		a.explainState(l, p, name, p.Out)
	} else {
		a.explainState(l, p, name+", out", p.Out)
		a.explainState(l, p, name+", in", p.In)
	}
	if p.LastErrorAt != nil && p.Severity() == link.Idle {
		a.print("\n%s, last error, %s ago: %s", name, admin.Age(l.At.Sub(*p.LastErrorAt)), terminal.Line(p.LastError))
	}
}

// explainState prints the reason and the remedy of a bad state of a link. subject names the link.
func (a *app) explainState(l *admin.Links, p *link.PeerStatus, subject string, s link.LinkState) {
	if s.Verdict.Severity() >= link.Idle || s.Reason+s.Remedy == "" {
		return
	}
	a.print("\n%s: %s", subject, terminal.Line(s.Sentence(l.At, p.LastContact)))
	if s.Remedy != "" {
		a.print("  What to do: %s", terminal.Line(s.Remedy))
	}
	if s.NextAttempt != nil && s.NextAttempt.After(l.At) {
		a.print("  Next attempt in %s.", admin.Age(s.NextAttempt.Sub(l.At)))
	}
}

// firstToExpire describes the first certificate of a list that is sorted by expiry.
func firstToExpire(list []link.Expiry) string {
	if len(list) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s %s", list[0].Role, list[0].NotAfter.Format("2006-01-02"))
}
