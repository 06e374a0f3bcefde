// Package kustomize keeps the Kustomize files of a node whose operator deploys
// it on Kubernetes as the reference does: one StatefulSet for each peer, made
// of a common base and of what is special about the peer.
//
// # The model
//
// The node's directory is part of a tree like this, in which app is the name
// under which the node is deployed:
//
//	base/app/peer/stomp-client.yaml                   the StatefulSet, for any peer
//	base/app/peer/replacements/…-node-id.yaml         puts the node ID where it belongs
//	<environment>/app/<node directory>/peers/
//	    kustomization.yaml                            the aggregator: lists the peers
//	    <peer node ID>/kustomization.yaml             the manifest of one peer
//	    <peer node ID>/resources-patch.yaml           CPU and memory for this peer
//
// <environment> and base have one folder in common, which is five levels above
// the peer's. The base is the operator's; this package writes below peers/ only:
//
//   - The manifest is generated, and says how the StatefulSet of the peer
//     differs from the base: its node ID, one replica for each sending queue,
//     the drainer in place of the client once the peer is deactivated, and the
//     date of the peer's nodeinfo, which restarts the pods when it changes.
//     Nobody edits it, and it is written again whenever it would differ.
//   - The resources patch is made once, with small values, and belongs to the
//     operator from then on: it is never written again.
//   - The aggregator gets the peer as one more entry at the end of its resources.
//     Everything else that is in it stays as it is, entries of others included.
//     An aggregator in which that can not be done with certainty is left alone
//     ([ErrAggregator]). Only the placeholder that comes with the reference
//     scripts, which exists in order to be replaced, is replaced.
//
// [Update] brings the three files up to date, for a registered peer, each time
// something about it changes: after it was registered, its number of queues set,
// its newer nodeinfo taken over, or itself deactivated. Doing it again changes
// nothing. [Enabled] reports whether a node has such files.
//
// What the files say is what the files of the reference's create-peer-manifest
// say, and both programs can be used on one directory in any order. They differ
// in this:
//
//   - A node ID is written as a string. The reference writes it bare, and so an
//     ID like 12345678, or 1234e567, which is a number to YAML, ends up in the
//     cluster as "1.2345678e+07".
//   - A peer without a date is served, where the reference fails.
//   - The reference makes a new aggregator in place of one in which it does not
//     find its list, and adds peers at the end of the file, not of the list.
//
// Nothing strange gets into the YAML: node IDs are checked, and all other text,
// of printable characters only, is written in double quotes with everything
// escaped that needs it. So what a peer puts into its nodeinfo stays within its
// quotes.
package kustomize
