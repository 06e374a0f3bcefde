// Package kustomize maintains the Kustomize files of a node that is deployed on Kubernetes in the same
// way as the reference: with one StatefulSet for each peer, made of a common base and the properties
// of the peer.
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
// <environment> and base are in the same folder, which is five levels above the peer's folder.
// The base belongs to the operator; this package writes below peers/ only:
//
//   - The manifest is generated, and has the differences between the peer's StatefulSet and the
//     base: the node ID, one replica for each sending queue, the drainer instead of the client
//     once the peer is deactivated, and the date of the peer's nodeinfo, which restarts the pods
//     when it changes. It must not be edited; it is written again whenever its content changes.
//   - The resources patch is made once, with small values. It is never written again, so that the
//     operator can edit it.
//   - The peer is added at the end of the aggregator's resources. All other content of the
//     aggregator is unchanged, including other entries. If the peer cannot be added reliably,
//     [Update] fails, and the aggregator is not changed. Only the placeholder of the reference
//     scripts, and a file with nothing but comments, are replaced as a whole.
//
// [Update] updates the three files of a registered peer. It has to be called whenever the peer changes:
// after the peer was registered, its number of queues set, its nodeinfo updated, or the peer
// deactivated. Calling Update again changes nothing. [Enabled] reports whether a node has such files.
//
// The content of the files is equivalent to that of the reference's create-peer-manifest, and both
// programs can be used on one directory in any order, with these differences:
//
//   - A node ID is written as a quoted string. The reference writes it without quotes, so that an
//     ID like 12345678 or 1234e567, which is a number in YAML, becomes "1.2345678e+07" in the
//     cluster.
//   - A peer without a date is supported, whereas the reference fails.
//   - The reference replaces an aggregator in which it does not find its list, and adds peers at the
//     end of the file instead of the end of the list.
//
// Values of peers cannot inject YAML: node IDs are checked, and all other text must be printable, and
// is written as an escaped string in double quotes.
package kustomize
