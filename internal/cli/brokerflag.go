package cli

import (
	"github.com/spf13/cobra"

	"peerlink/link"
)

// brokerFlag adds the flag that says where messages are kept.
func brokerFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "broker", brokerSetting(), "where messages are kept: \"embedded\", or the `URL` of RabbitMQ (env PEERLINK_BROKER, PROTOCOL_BROKER_URL)")
	c.Flags().Lookup("broker").DefValue = embeddedBroker // the help must not show a password
}

// queuePatternFlag adds the flag that says how queues are called.
func queuePatternFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "queue-pattern", env(string(link.DefaultQueuePattern), "PEERLINK_QUEUE_PATTERN"), "how the queues to a peer are called in RabbitMQ; {n} counts from 0 (env PEERLINK_QUEUE_PATTERN)")
}
