package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"peerlink/broker/rabbitmq"
	"peerlink/link"
)

// embeddedBroker is the value of --broker for the embedded broker.
const embeddedBroker = "embedded"

// brokerVariables are the environment variables for --broker.
var brokerVariables = []string{"PEERLINK_BROKER", "PROTOCOL_BROKER_URL"}

// brokerFlag adds the flag --broker.
func brokerFlag(c *cobra.Command, v *string) {
	*v = embeddedBroker
	c.Flags().Var(&brokerURLs{text: v}, "broker", "where messages are kept: \"embedded\", or the `URL` of RabbitMQ; several for a cluster, with commas between them or as several flags")
	fromEnv(c.Flags(), "broker", brokerVariables...)
}

// brokerURLs is the value of a flag for URLs of RabbitMQ, which may be given several times.
type brokerURLs struct {
	text  *string
	given bool // Set has been called
}

// Set adds URLs. The first call replaces the default.
func (u *brokerURLs) Set(s string) error {
	if u.given {
		s = *u.text + "," + s
	}
	*u.text, u.given = s, true
	return nil
}

func (u *brokerURLs) String() string {
	if u.text == nil {
		return ""
	}
	return *u.text
}

// Type returns the type shown in the help.
func (*brokerURLs) Type() string { return "string" }

// defaultDeadLetterSuffix is the suffix of the reference's dead letter queues.
const defaultDeadLetterSuffix = ".XQ"

// deadLetterSuffixFlag adds the flag for the suffix of RabbitMQ's dead letter queues.
func deadLetterSuffixFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "dead-letter-suffix", defaultDeadLetterSuffix, "`SUFFIX` of the queues in RabbitMQ with the messages set aside; with another suffix than the default, such as .aside, policies for the reference's queues do not apply to them")
	fromEnv(c.Flags(), "dead-letter-suffix", "PEERLINK_DEAD_LETTER_SUFFIX")
}

// managementFlag adds the flag for the URL of RabbitMQ's management plugin.
func managementFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "management", "", "the `URL` of RabbitMQ's management plugin, which shows policies that drop messages, and types of queues; only \"doctor\" has a default, the usual port on the host of --broker")
	fromEnv(c.Flags(), "management", "PEERLINK_MANAGEMENT")
}

// queueTypeFlag adds the flag for the type of RabbitMQ's queues.
func queueTypeFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "queue-type", string(rabbitmq.Classic), "`TYPE` of the queues made in RabbitMQ: classic or quorum")
	fromEnv(c.Flags(), "queue-type", "PEERLINK_QUEUE_TYPE")
}

// openRabbitMQ returns a RabbitMQ broker, which does not connect yet. Its errors are those of the flags
// that the arguments come from.
func openRabbitMQ(url string, o rabbitmq.Options) (*rabbitmq.Broker, error) {
	if o.QueueType != rabbitmq.Classic && o.QueueType != rabbitmq.Quorum {
		return nil, usagef("--queue-type %q: expected %s or %s", o.QueueType, rabbitmq.Classic, rabbitmq.Quorum)
	}
	b, err := rabbitmq.Open(url, o)
	switch {
	case errors.Is(err, rabbitmq.ErrManagementURL):
		return nil, usagef("--management: %v", err)
	case errors.Is(err, rabbitmq.ErrInvalid):
		return nil, usagef("--dead-letter-suffix: %v", err)
	case err != nil:
		return nil, usagef("--broker is not %q, and as a URL: %v", embeddedBroker, err)
	}
	return b, nil
}

// queuePatternFlag adds the flag for the pattern of queue names.
func queuePatternFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "queue-pattern", string(link.DefaultQueuePattern), "`PATTERN` of the names of a peer's queues in RabbitMQ; {n} counts from 0; without {n}, it is the name of the peer's first queue, and the others end in .1, .2 and so on")
	fromEnv(c.Flags(), "queue-pattern", "PEERLINK_QUEUE_PATTERN")
}
