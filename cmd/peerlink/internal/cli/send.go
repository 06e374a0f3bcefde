package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/internal/textfile"
	"peerlink/link"
	"peerlink/local"
	"peerlink/smp"
)

// maxSend is the maximum number of messages of one "peerlink send". All messages are checked before the first is
// queued.
const maxSend = 100_000

func (a *app) sendCommand() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "send PEER [FILE]",
		Short: "Put messages into a peer's queue by hand",
		Long: `Reads SMP messages in JSON, one on each line, from FILE or standard input, checks
all of them, and puts them into the peer's queue: all or none. A running service
sends them at once; without one they wait for it. The state folder must be that of
the node's service, which makes it when it starts for the first time.`,
		Example: "  peerlink send 1234abcd messages.jsonl",
		Args:    someArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, name, err := a.openInput(cmd.Context(), append(args, "-")[1])
			if err != nil {
				return err
			}
			defer in.Close()
			return a.send(cmd.Context(), args[0], state, name, in, asJSON)
		},
	}
	a.stateFlag(c, &state)
	jsonFlag(c, &asJSON)
	return c
}

// sentMessages are messages that were put into a queue, in JSON.
type sentMessages struct {
	Peer     string `json:"peer"`
	Queue    string `json:"queue"`
	Messages int    `json:"messages"`
}

// requireEmbedded returns an error if the environment configures RabbitMQ, because messages in the embedded broker would not
// be sent.
func requireEmbedded() error {
	if v := firstSet(brokerVariables...); v != "" && os.Getenv(v) != embeddedBroker {
		return errors.New("this node's broker is RabbitMQ (by the environment), and this command is for the embedded one: publish to RabbitMQ's exchanges instead, or look into its queues")
	}
	return nil
}

func (a *app) send(ctx context.Context, peer, state, name string, in io.Reader, asJSON bool) error {
	if err := requireEmbedded(); err != nil {
		return err
	}
	d, id, err := a.openPeer(peer)
	if err != nil {
		return err
	}
	p, err := d.Peer(id)
	if err != nil {
		return err
	}
	if p.Deactivated != "" {
		return fmt.Errorf("peer %s has been deactivated (%s): nothing can be sent to it any more", id, p.Deactivated)
	}
	view, err := link.View(d, p)
	if err != nil {
		return err
	}
	binding, err := link.BindingOf(d, p, view, link.DefaultQueuePattern)
	if err != nil {
		return err
	}
	messages, err := a.readMessages(in, name, view)
	if err != nil {
		return err
	}
	if len(messages) == 0 {
		return fmt.Errorf("%s holds no message", name)
	}
	path, err := existingStore(ctx, d, state)
	if err != nil {
		return fmt.Errorf("%w; nothing was queued", err)
	}
	closing, closed := a.limitStop(ctx, maxStop, errClosesLate)
	defer closed()
	store, err := openStore(d, path, embedded.Options{MinFree: minFree, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer store.Close()
	defer closing() // before the store is closed
	if err := bindInTime(ctx, store, binding); err != nil {
		return fmt.Errorf("%w; nothing was queued", err)
	}
	stop := a.working("Queuing " + messageCount(len(messages), "", ""))
	err = store.PutAll(ctx, binding.Queues[0], messages)
	stop()
	if err != nil {
		return fmt.Errorf("%w; nothing was queued", err)
	}
	a.printMessage("%s in the queue of %s, in %s.", messageCount(len(messages), "is", "are"), p.Identity, filepath.Dir(path))
	if asJSON {
		err = a.json(sentMessages{id, binding.Queues[0], len(messages)})
	}
	closing()
	return cmp.Or(store.Close(), err)
}

// maxBindTime bounds the wait for the transaction that binds a peer's queue. On a disk that is completely full, the
// store would try again until there is space.
const maxBindTime = 5 * time.Second

// bindInTime binds a peer's queue. If that takes longer than maxBindTime, it returns an error with the reason.
func bindInTime(ctx context.Context, store *embedded.Store, binding broker.PeerBinding) error {
	limited, cancel := context.WithTimeout(ctx, maxBindTime)
	defer cancel()
	err := store.Bind(limited, binding)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = cmp.Or(store.Health(), errors.New("the message store can not be written"))
		err = fmt.Errorf("not written within %v: %w", maxBindTime, err)
	}
	return err
}

// readMessages reads and checks messages, one on each line. name is that of the input, for error
// messages.
func (a *app) readMessages(in io.Reader, name string, view smp.View) ([]broker.Outgoing, error) {
	if !a.isTyped(in) {
		p := a.startProgress("Reading the messages")
		defer p.stop()
		return parseMessages(in, name, view, p.set)
	}
	return parseMessages(in, name, view, func(done, total int) {})
}

// isTyped reports whether an input is typed on a terminal, where nothing else may be written meanwhile.
func (a *app) isTyped(in io.Reader) bool {
	i, ok := in.(*input)
	return ok && isTerminal(i.file)
}

// parseMessages is readMessages. It calls progress with the number of messages read so far.
func parseMessages(in io.Reader, name string, view smp.View, progress func(done, total int)) ([]broker.Outgoing, error) {
	text := bufio.NewReader(in)
	if begin, _ := text.Peek(3); textfile.HasMark(begin) {
		if rest, err := textfile.Decode(begin); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("%s is in UTF-16: save it as UTF-8; nothing was queued", name)
		}
		text.Discard(len(begin)) // the mark of UTF-8
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 4*smp.MaxBody)
	var messages []broker.Outgoing
	n := 1
	for ; lines.Scan(); n++ {
		body := bytes.TrimSpace(lines.Bytes())
		if len(body) == 0 {
			continue
		}
		if len(messages) == maxSend {
			return nil, fmt.Errorf("%s holds more than %d messages: send them in parts", name, maxSend)
		}
		typ, _, _, err := smp.PeekIDs(body)
		if err == nil {
			_, err = view.Outgoing(typ, "application/json", body)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w; nothing was queued", name, n, err)
		}
		messages = append(messages, broker.Outgoing{Type: typ, ContentType: "application/json", Body: bytes.Clone(body)})
		progress(len(messages), 0)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s: line %d is longer than %d bytes: expected one message in JSON on each line; nothing was queued", name, n, 4*smp.MaxBody)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w; nothing was queued", name, err)
	}
	return messages, nil
}

func (a *app) tailCommand() *cobra.Command {
	var state string
	var asJSON bool
	var count int
	c := &cobra.Command{
		Use:   "tail",
		Short: "Print the messages that come in, without consuming them",
		Long: `Prints each message that arrives for the node's applications from now on, until
it is interrupted. The messages stay in the inbox. A service must be running.

On a terminal, control characters are shown escaped; a pipe or a file gets the
exact bytes.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.tail(cmd.Context(), state, count, asJSON)
		},
	}
	a.stateFlag(c, &state)
	c.Flags().IntVarP(&count, "count", "n", 0, "stop after this number of messages")
	c.Flags().BoolVar(&asJSON, "json", false, "print each message with its headers as one line of JSON")
	return c
}

func (a *app) tail(ctx context.Context, state string, count int, asJSON bool) error {
	if err := requireEmbedded(); err != nil {
		return err
	}
	d, err := a.open()
	if err != nil {
		return err
	}
	if state, err = serviceState(ctx, d, state); err != nil {
		return err
	}
	if state, err = stateFolder(d, state); err != nil {
		return err
	}
	client, err := local.DialNode(ctx, state, storeOwner(d))
	if errors.Is(err, local.ErrOwner) {
		return fmt.Errorf("%w; name this node's own state folder with --state", err)
	}
	if err != nil {
		return fmt.Errorf("can not connect to a service with the state folder %s: %w", state, err)
	}
	defer client.Close()
	sub, err := client.Subscribe(ctx, "/exchange/"+d.Identity().Type.Inbox()+"/#", 0, local.AckAuto)
	if err != nil {
		return err
	}
	a.printMessage("Showing the messages that come in from now on.")
	to := a.stdout
	if !asJSON && !isTerminal(a.stdout) {
		to = raw(a.stdout) // not escaped, because another program reads it
	}
	out := bufio.NewWriter(to)
	defer out.Flush()
	for n := 0; count == 0 || n < count; n++ {
		m, err := sub.Next(ctx)
		if ctx.Err() != nil {
			return nil // an interrupt is the normal end
		}
		if err != nil {
			return err
		}
		if m.Missed > 0 {
			a.printMessage("(%d messages came in too fast to be shown)", m.Missed)
		}
		if err := printMessage(out, m, asJSON); err != nil {
			return err
		}
	}
	return nil
}

func printMessage(out *bufio.Writer, m local.Message, asJSON bool) error {
	if asJSON {
		headers := make(map[string]string, len(m.Headers))
		for _, h := range m.Headers {
			headers[h.Name] = h.Value
		}
		line, err := json.Marshal(map[string]any{"type": m.Type, "headers": headers, "body": json.RawMessage(bytes.ToValidUTF8(m.Body, []byte("\ufffd")))})
		if err != nil {
			return err
		}
		out.Write(line)
	} else {
		out.Write(m.Body)
	}
	return errors.Join(out.WriteByte('\n'), out.Flush())
}
