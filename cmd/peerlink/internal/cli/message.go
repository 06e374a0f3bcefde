package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/textfile"
	"peerlink/link"
	"peerlink/node"
	"peerlink/smp"
)

func (a *app) messageCommand() *cobra.Command {
	return group("message", "Look at single messages", a.messageCheckCommand())
}

// messageFlags are the flags for the properties of a message other than its body.
type messageFlags struct {
	peer, direction  string
	typ, contentType string
}

func (a *app) messageCheckCommand() *cobra.Command {
	var f messageFlags
	c := &cobra.Command{
		Use:   "check --peer PEER --direction in|out --type TYPE [FILE]",
		Short: "Show how a message would be handled",
		Long: `Reads the body of one SMP message from FILE or standard input, and does with it
what the links would: checks it, and translates its IDs between this node and
the peer. Nothing is sent or stored, and neither broker nor service is needed.

With --direction out, the message is one that this node's application publishes:
the result holds the body that would go to the peer, and the exchange and routing
key under which the application has to publish it. With --direction in, it is one
that the peer has sent: the result holds the body, headers and routing key that
this node's application would get, and the exchange that brings it there.

The result is one line of JSON. Its body is written byte for byte as it would be
in the message. A message that would be refused gives the reason and exit code 1.`,
		Example: `  peerlink message check --peer 1234abcd --direction out --type PrepareTransfer transfer.json
  echo '{"type": "AccountPurge", …}' | peerlink message check --peer 1234abcd --direction in --type AccountPurge`,
		Args: someArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.direction != "in" && f.direction != "out" {
				return usagef("--direction %q: expected in or out", f.direction)
			}
			file := "-"
			if len(args) == 1 {
				file = args[0]
			}
			return a.messageCheck(cmd.Context(), f, file)
		},
	}
	var asJSON bool // the result is always JSON
	jsonFlag(c, &asJSON)
	c.Flags().StringVar(&f.peer, "peer", "", "the `PEER`: its node ID, the beginning of it, or its name")
	c.Flags().StringVar(&f.direction, "direction", "", "\"out\" if it is for the peer, \"in\" if it is from the peer")
	c.Flags().StringVar(&f.typ, "type", "", "the message's `TYPE`, as its header would say")
	c.Flags().StringVar(&f.contentType, "content-type", smp.ContentType, "the content `TYPE`, as its header would say")
	for _, name := range []string{"peer", "direction", "type"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	return c
}

// checkedMessage describes how a message would be handled, in JSON.
type checkedMessage struct {
	Peer        string `json:"peer"`
	Direction   string `json:"direction"`
	Type        string `json:"type"`
	ContentType string `json:"content_type"`
	// Exchange is the exchange to which the message is published: by this node's application
	// if it is outgoing, by the link if it is incoming.
	Exchange   string          `json:"exchange"`
	RoutingKey string          `json:"routing_key"`
	Headers    map[string]any  `json:"headers,omitempty"` // of an incoming message
	Note       string          `json:"note,omitempty"`    // reason why no messages are exchanged with the peer
	Body       json.RawMessage `json:"body"`
}

func (a *app) messageCheck(ctx context.Context, f messageFlags, file string) error {
	d, id, err := a.openPeer(f.peer)
	if err != nil {
		return err
	}
	p, err := d.Peer(id)
	if err != nil {
		return err
	}
	view, err := link.View(d, p)
	if err != nil {
		return err
	}
	body, err := a.readMessage(ctx, file)
	if err != nil {
		return err
	}
	m := checkedMessage{Peer: id, Direction: f.direction, Note: noTrafficReason(p)}
	if f.direction == "out" {
		err = m.out(view, f, body)
	} else {
		err = m.in(view, f, body)
	}
	if err != nil && file != "-" {
		err = fmt.Errorf("%s: %w", file, err)
	}
	if err != nil {
		return err
	}
	// Without indentation, which would change the body.
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(m)
}

// out fills in the handling of an outgoing message.
func (m *checkedMessage) out(view smp.View, f messageFlags, body []byte) error {
	sent, err := view.Outgoing(f.typ, f.contentType, body)
	if err != nil {
		return err
	}
	// The application routes by the IDs before translation.
	_, debtorID, creditorID, err := smp.PeekIDs(body)
	if err != nil {
		return err
	}
	m.Type, m.ContentType, m.Body = f.typ, smp.ContentType, sent
	m.Exchange = view.Owner.Outbox(view.Peer)
	m.RoutingKey = smp.OutgoingRoutingKey(view.Owner, view.Peer, debtorID, creditorID)
	return nil
}

// in fills in the handling of an incoming message.
func (m *checkedMessage) in(view smp.View, f messageFlags, body []byte) error {
	r, err := view.Incoming(f.typ, f.contentType, body, time.Now())
	if err != nil {
		return err
	}
	m.Type, m.ContentType, m.Body = r.Type, smp.ContentType, r.Body
	m.Exchange, m.RoutingKey = view.Owner.Inbox(), r.RoutingKey
	m.Headers = maps.Collect(r.Headers.All())
	return nil
}

// noTrafficReason returns the reason why no messages are exchanged with a peer at present, or "" if there is
// no such reason.
func noTrafficReason(p *node.Peer) string {
	switch {
	case p.Deactivated != "":
		return fmt.Sprintf("the peer has been deactivated (%s): no message goes to it or comes from it any more", p.Deactivated)
	case p.Suspended != nil:
		return "the link with the peer is suspended: messages to it wait in their queue, and none comes from it, until \"peerlink peer resume\""
	case p.SubCA == nil:
		return "the peer is not registered yet: no message goes to it or comes from it before \"peerlink peer register\""
	}
	return ""
}

// readMessage reads the body of a message from a file, or from standard input
// if that is "-".
func (a *app) readMessage(ctx context.Context, file string) ([]byte, error) {
	in, name, err := a.openInput(ctx, file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	body, err := io.ReadAll(io.LimitReader(in, smp.MaxApplicationBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(body) > smp.MaxApplicationBody:
		return nil, fmt.Errorf("%s is longer than %d bytes, which no message may be", name, smp.MaxApplicationBody)
	}
	if body, err = textfile.Decode(body); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(body) == 0 {
		return nil, errors.New(name + " is empty: expected the body of a message, in JSON")
	}
	return body, nil
}
