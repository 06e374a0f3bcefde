package kustomize

import (
	"fmt"
	"strconv"
)

// manifest returns the content of a peer's kustomization.yaml. Its patches depend on the base: the
// StatefulSet must be named stomp-client and have annotations; the first argument of its first container
// must be the program, and the first environment variable the date of the nodeinfo.
func manifest(p Peer, baseApp string) []byte {
	program := "swpt-client"
	if p.Deactivated {
		program = "swpt-drainer"
	}
	replicas := p.Queues
	if p.HandedOver {
		replicas = 0
	}
	base := "../../../../../base/" + baseApp + "/peer/"
	return fmt.Appendf(nil, `# Generated for this peer, and written again whenever the peer changes.
# What you want to change goes to resources-patch.yaml, or into the base.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization

resources:
- %s

patches:
- target:
    group: apps
    version: v1
    kind: StatefulSet
    name: stomp-client
  patch: |-
    - op: add
      path: /metadata/annotations/swpt-node-id
      value: %s
    - op: replace
      path: /spec/replicas
      value: %d
    - op: replace
      path: /spec/template/spec/containers/0/args/0
      value: %s
    - op: replace
      path: /spec/template/spec/containers/0/env/0/value
      value: %s
- target:
    group: apps
    version: v1
    kind: StatefulSet
    name: stomp-client
  path: resources-patch.yaml

replacements:
- path: %s
`, quote(base+"stomp-client.yaml"), quote(p.ID), replicas, program, quote(p.UpdatedAt),
		quote(base+"replacements/stomp-client-node-id.yaml"))
}

// resourcesPatch is the initial content of a peer's resources-patch.yaml.
var resourcesPatch = []byte(`# CPU and memory of the client that serves this peer. The file is yours: it is
# made once and never overwritten. Set what the traffic with the peer needs.
- op: replace
  path: /spec/template/spec/containers/0/resources
  value:
    requests:
      cpu: 1m
      memory: 32Mi
    limits:
      cpu: "1"
      memory: 1Gi
`)

// quote returns text as a double-quoted YAML scalar on one line. The escape sequences that Go uses for
// valid UTF-8 are also valid in YAML 1.2 (section 5.7), with the same meaning.
func quote(s string) string { return strconv.QuoteToASCII(s) }
