package kustomize

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// Kustomize builds the peer's StatefulSet from the files. The node ID remains a
// string even if it looks like a number, and the text that comes from the peer is
// unchanged.
func TestBuild(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here: what Kustomize makes of the files was not tested")
	}
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(kubectl, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("kubectl %q: %v: %s", args, err, stderr.String())
		}
		return out
	}
	// The reference's files are in two directory trees, so the load restrictor must
	// be off.
	build := func(dir string) map[string]statefulSet {
		t.Helper()
		path := filepath.Join(t.TempDir(), "built.yaml")
		write(t, string(run("kustomize", "--load-restrictor=LoadRestrictionsNone", dir)), path)
		sets := map[string]statefulSet{}
		// This kubectl command works without a cluster, and converts YAML to JSON.
		dec := json.NewDecoder(bytes.NewReader(run("annotate", "--local", "-f", path, "-o", "json", "seen=yes")))
		for dec.More() {
			var s statefulSet
			if err := dec.Decode(&s); err != nil {
				t.Fatal(err)
			}
			sets[s.Metadata.Name] = s
		}
		return sets
	}
	const digits = "1234e567"
	peers := newPeers(t, aaID, digits, caID)
	base := filepath.Join(peers, "..", "..", "..", "..", "base", "swpt-x", "peer")
	write(t, baseStatefulSet, base, "stomp-client.yaml")
	write(t, baseReplacement, base, "replacements", "stomp-client-node-id.yaml")
	want := []Peer{
		{ID: aaID, Queues: 7, UpdatedAt: "2026-11-02"},
		{ID: digits, Queues: 1, Deactivated: true},
		{ID: caID, Queues: 99, UpdatedAt: "2026-11-02T10:00:00Z"},
	}
	for _, p := range want {
		if err := Update(peers, p, "swpt-x"); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "- op: replace\n  path: /spec/template/spec/containers/0/resources\n  value: {limits: {cpu: 7}}\n", peers, caID, "resources-patch.yaml")
	check := func(sets map[string]statefulSet, p Peer) {
		t.Helper()
		got, ok := sets["stomp-client-"+p.ID]
		if !ok {
			t.Errorf("no StatefulSet for %s in %v", p.ID, sets)
			return
		}
		program := map[bool]string{false: "swpt-client", true: "swpt-drainer"}[p.Deactivated]
		c := got.Spec.Template.Spec.Containers[0]
		if got.Metadata.Annotations["swpt-node-id"] != p.ID ||
			got.Spec.Replicas != p.Queues || c.Args[0] != program || c.Env[0].Value != p.UpdatedAt {
			t.Errorf("StatefulSet of %+v: got %+v", p, got)
		}
		cpu := "1"
		if p.ID == caID {
			cpu = "7"
		}
		if got := string(bytes.Trim(c.Resources.Limits["cpu"], `"`)); got != cpu {
			t.Errorf("%s: CPU limit is %s, want %s", p.ID, got, cpu)
		}
	}
	all := build(peers)
	if len(all) != len(want) {
		t.Fatalf("%d StatefulSets, want %d", len(all), len(want))
	}
	for _, p := range want {
		check(all, p)
	}
	for _, text := range hostile {
		p := Peer{ID: digits, Queues: 1, UpdatedAt: text}
		if err := Update(peers, p, "swpt-x"); err != nil {
			t.Fatal(err)
		}
		check(build(filepath.Join(peers, p.ID)), p)
	}
}

type statefulSet struct {
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	Spec struct {
		Replicas int
		Template struct {
			Spec struct {
				Containers []struct {
					Args      []string
					Env       []struct{ Name, Value string }
					Resources struct{ Limits map[string]json.RawMessage }
				}
			}
		}
	}
}

const baseStatefulSet = `apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: stomp-client
  annotations:
    swpt-node-id: none
spec:
  serviceName: stomp-client
  replicas: 1
  selector:
    matchLabels: {app: stomp-client}
  template:
    metadata:
      labels: {app: stomp-client}
    spec:
      containers:
      - name: stomp-client
        image: example
        args: [none]
        env:
        - name: NODEINFO_UPDATED_AT
          value: none
        resources: {}
`

const baseReplacement = `source:
  kind: StatefulSet
  fieldPath: metadata.annotations.swpt-node-id
targets:
- select:
    kind: StatefulSet
    name: stomp-client
  fieldPaths:
  - metadata.name
  options:
    delimiter: "-"
    index: 2
    create: true
`
