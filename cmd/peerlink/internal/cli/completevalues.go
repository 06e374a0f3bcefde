package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/internal/terminal"
	"peerlink/link"
	"peerlink/node/offline"
)

// maxAsideIDs is the maximum number of messages of which a completion reads the IDs.
const maxAsideIDs = 10_000

// peers completes the IDs and names of the peers.
func peers(a *app, _ *cobra.Command, _ []string) []string {
	d, err := a.open()
	if err != nil {
		return nil
	}
	known, err := d.KnownPeers()
	if err != nil {
		return nil
	}
	var values []string
	for _, p := range known {
		values = append(values, described(p.ID, p.Name))
	}
	for _, p := range known {
		if p.Name != "" {
			values = append(values, described(p.Name, p.ID))
		}
	}
	return values
}

// described returns a value with its description, which may be empty.
func described(value, description string) string {
	if description == "" {
		return value
	}
	return value + "\t" + terminal.Line(description)
}

// peersAndQueues completes peers, and the queues with messages that are set aside in the embedded broker.
func peersAndQueues(a *app, cmd *cobra.Command, args []string) []string {
	values := peers(a, cmd, args)
	for _, m := range a.readAside(cmd) {
		if !slices.Contains(values, m.Queue) {
			values = append(values, m.Queue)
		}
	}
	return values
}

// asideIDs completes the IDs of messages that are set aside in the embedded broker, for the peer or the
// queue in the first argument. Those that are given already are left out.
func asideIDs(a *app, cmd *cobra.Command, args []string) []string {
	d, err := a.open()
	if err != nil {
		return nil
	}
	queue := args[0]
	if id, err := d.FindPeer(queue); err == nil {
		queue = link.DefaultQueuePattern.Name(id, 0)
	}
	var values []string
	for _, m := range a.readAside(cmd) {
		if m.Queue == queue && !slices.Contains(args[1:], m.ID) {
			values = append(values, described(m.ID, m.Type))
		}
	}
	return values
}

// readAside reads the IDs of messages that are set aside in the embedded broker. It changes nothing, and
// returns nothing if they can not be read, or if the command is for RabbitMQ.
func (a *app) readAside(cmd *cobra.Command) []embedded.AsideID {
	if broker := cmd.Flag("broker"); broker == nil || broker.Value.String() != embeddedBroker {
		return nil
	}
	d, err := a.open()
	if err != nil {
		return nil
	}
	path, err := existingStore(cmd.Context(), d, cmd.Flag("state").Value.String())
	if err != nil {
		return nil
	}
	ids, _ := embedded.ReadAsideIDs(path, maxAsideIDs)
	return ids
}

// requests completes the IDs of the requests that wait for an answer.
func requests(a *app, _ *cobra.Command, _ []string) []string {
	d, err := a.open()
	if err != nil {
		return nil
	}
	waiting, _ := offline.WaitingRequests(d, time.Now()) // those that can be read
	var values []string
	for _, r := range waiting {
		values = append(values, described(r.ID, r.Created.Local().Format(time.DateTime)))
	}
	return values
}
