// Package faulttest runs nodes as separate processes, simulates the faults of years of
// operation in them and in the network between them, and checks that
//
//	every message accepted by the sender's broker reaches the receiver's
//	broker at least once, unchanged, and no queue stands still while its
//	peer is reachable.
//
// # The world
//
// An accounting authority, a creditors agent and a debtors agent are linked (world).
// Each is a process, the test binary started again (node), which a supervisor restarts
// when it has ended, as systemd would (process). Connections to a node go through its
// wire, a proxy that can simulate network faults. Applications in the test process send
// numbered messages to each node's broker, at a configured rate, and receive messages;
// a ledger for each direction records which messages were accepted and which arrived,
// how often and with what content. The creditors agent keeps its messages in RabbitMQ,
// if it is installed, the others in the embedded broker.
//
// All clocks are a month ahead of the machine's, so that certificates made at the
// beginning stay valid when a clock is set back.
//
// # Faults
//
// A scheduler with a seed picks faults, one or several at a time, each with a duration.
// When all faults of a round have ended, it waits until, in each direction, a message has
// arrived that was sent to the broker after that and was queued behind all others. The
// duration of this wait is the standstill; if it exceeds the bound that follows from
// the settings of the nodes (bound), the test fails. In some rounds, the quiet ones,
// the applications stop sending in the middle, and the messages sent until then must
// arrive all the same. Meanwhile, messages must be delivered between nodes without a
// fault. The seed determines the order and the durations of the faults, but not what
// the processes are doing at that moment.
//
//	go test ./link/faulttest                         a short run: every kind once, and some random faults
//	make soak SOAK=1h SEED=7                         a long one
//	make soak SOAK=5m FAULTS="silence,full disk"     only these kinds
//
// The package consists of tests, for Linux.
package faulttest
