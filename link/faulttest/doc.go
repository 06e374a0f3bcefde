// Package faulttest runs nodes as processes of their own, does to them and to
// the network between them what happens in years of operation, and checks that
//
//	every message accepted by the sender's broker reaches the receiver's
//	broker at least once, unchanged, and no queue stands still while its
//	peer is reachable.
//
// # The world
//
// An accounting authority, a creditors agent and a debtors agent are linked
// (world). Each is a process, the test binary started again (node), which a
// supervisor starts anew when it has ended, as systemd would (process). Whoever
// dials a node goes through its wire, a proxy that can be told to misbehave.
// Applications in the test process send numbered messages to each node's
// broker, as fast as is asked for, and take out what arrives; a ledger for each
// direction knows what was accepted and what came, how often and with what
// content. The creditors agent keeps its messages in RabbitMQ, if it is
// installed, the others in the embedded broker.
//
// All clocks are a month ahead of the machine's, so that certificates made at
// the beginning stay valid when a clock is put back.
//
// # Faults
//
// A scheduler with a seed picks faults, one or several at a time, each with a
// duration. When all of a round have ended, it waits until in each direction a
// message has arrived that was given to the broker after that, behind all that
// has gathered. How long this takes is the standstill; more than what follows
// from the settings of the nodes (bound) fails the test. In some rounds, the quiet
// ones, the applications stop sending in the middle, and what they have sent must
// arrive all the same. Between nodes that no fault of the round concerns, messages
// must go on meanwhile. The seed decides which
// faults come in which order and how long each lasts. What it can not decide is
// what the processes are doing at that moment.
//
//	go test ./link/faulttest                         a short run: every kind once, and some more
//	make soak SOAK=1h SEED=7                         a long one
//	make soak SOAK=5m FAULTS="silence,full disk"     only these kinds
//
// The package has nothing but tests, for Linux.
package faulttest
