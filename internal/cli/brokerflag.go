package cli

import (
	"github.com/spf13/cobra"

	"peerlink/link"
)

// embeddedBroker is the --broker that is no URL.
const embeddedBroker = "embedded"

// brokerVariables are those that name the broker.
var brokerVariables = []string{"PEERLINK_BROKER", "PROTOCOL_BROKER_URL"}

// brokerFlag adds the flag that says where messages are kept.
func brokerFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "broker", embeddedBroker, "where messages are kept: \"embedded\", or the `URL` of RabbitMQ")
	fromEnv(c.Flags(), "broker", brokerVariables...)
}

// queuePatternFlag adds the flag that says how queues are called.
func queuePatternFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "queue-pattern", string(link.DefaultQueuePattern), "`PATTERN` by which the queues to a peer are called in RabbitMQ; {n} counts from 0; without it, each peer's first queue is called so")
	fromEnv(c.Flags(), "queue-pattern", "PEERLINK_QUEUE_PATTERN")
}
