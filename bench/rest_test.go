package bench

import (
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

// BenchmarkUnreachablePeers measures the processor time and the memory of an authority at rest
// whose peers, 5,000 of them, can not be reached. An operation is a minute.
func BenchmarkUnreachablePeers(b *testing.B) {
	const count, settle, operation = 5000, time.Minute, time.Minute
	authority := linktest.New(b, nodetype.AccountingAuthority)
	authority.Config = link.Config{Broker: authority.Store} // the default configuration
	linktest.NewAgents(b, authority, count)
	authority.Start()
	time.Sleep(settle) // the pauses between attempts grow meanwhile
	before := processorTime()
	b.ResetTimer()
	for range b.N {
		time.Sleep(operation)
	}
	used := processorTime() - before
	b.ReportMetric(100*used.Seconds()/(float64(b.N)*operation.Seconds()), "%-of-a-core")
	b.ReportMetric(float64(memoryInUse())/(1<<20), "MiB")
	b.ReportMetric(0, "ns/op")
}
