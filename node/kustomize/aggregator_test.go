package kustomize

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const (
	aaID = "12345678"
	caID = "00112233445566778899aabbccddeeff"
)

// referencePlaceholder has the same content as the reference's file, except for
// comments.
const referencePlaceholder = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization

# Any comment.
#
configMapGenerator:
- name: dummy-configmap
  literals:
  - foo=bar
`

// addPeer adds exactly one entry, at the end of the list and in the form of the
// list, and keeps every other byte of the file.
func TestAddPeer(t *testing.T) {
	const head = "kind: Kustomization\n"
	fresh := strings.Replace(newAggregator, "%s", aaID, 1)
	for _, c := range []struct{ name, old, want string }{
		{"no file", "", fresh},
		{"nothing but comments", "# here will be peers\n\n", fresh},
		{"placeholder", referencePlaceholder, fresh},
		{"placeholder with CRLF", strings.ReplaceAll(referencePlaceholder, "\n", "\r\n"), fresh},
		{"placeholder with more in it", referencePlaceholder + "namespace: x\n", referencePlaceholder + "namespace: x\nresources:\n- 12345678/\n"},
		{"the last", head + "resources:\n- bbbbbbbb/\n- aaaaaaaa/\n", head + "resources:\n- bbbbbbbb/\n- aaaaaaaa/\n- 12345678/\n"},
		{"the first", head + "resources:\n", head + "resources:\n- 12345678/\n"},
		{"empty list", head + "resources: []  # none yet\nnamespace: x\n", head + "resources:\n- 12345678/\nnamespace: x\n"},
		{"no list", "---\n" + head + "namespace: x", "---\n" + head + "namespace: x\nresources:\n- 12345678/\n"},
		{"foreign entries and comments",
			"# mine\nresources: # all\n- ../monitoring # ours\n\n# peers\n- bbbbbbbb/\n# end\nnamespace: x\npatches:\n- path: y\n",
			"# mine\nresources: # all\n- ../monitoring # ours\n\n# peers\n- bbbbbbbb/\n- 12345678/\n# end\nnamespace: x\npatches:\n- path: y\n"},
		{"indented", "resources:\n  - bbbbbbbb/\nnamespace: x\n", "resources:\n  - bbbbbbbb/\n  - 12345678/\nnamespace: x\n"},
		{"no newline at the end", "resources:\n- bbbbbbbb/", "resources:\n- bbbbbbbb/\n- 12345678/\n"},
		{"CRLF", "resources:\r\n- bbbbbbbb/\r\n", "resources:\r\n- bbbbbbbb/\r\n- 12345678/\r\n"},
		{"named elsewhere only", "resources:\n- bbbbbbbb/\ncomponents:\n- 12345678/\n", "resources:\n- bbbbbbbb/\n- 12345678/\ncomponents:\n- 12345678/\n"},
		{"name begins alike", "resources:\n- 12345678aa/\n#- 12345678/\n", "resources:\n- 12345678aa/\n- 12345678/\n#- 12345678/\n"},
		{"text that looks like a list", "a: |-\n  resources:\n  - 12345678/\nresources:\n- b/\n", "a: |-\n  resources:\n  - 12345678/\nresources:\n- b/\n- 12345678/\n"},
	} {
		got, err := addPeer([]byte(c.old), aaID)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

// A peer that is listed already, in whatever spelling, is not added again: Kustomize
// refuses to build if a resource is listed twice.
func TestAddPeerPresent(t *testing.T) {
	for _, item := range []string{"- 12345678/", "- 12345678", "- ./12345678/", "-  \"12345678/\"", "- '12345678' # a bank", "  - 12345678/  "} {
		list := "resources:\n" + item + "\nnamespace: x\n"
		got, err := addPeer([]byte(list), aaID)
		if err != nil || string(got) != list {
			t.Errorf("%q: got %q, %v", list, got, err)
		}
	}
}

// addPeer refuses files that it cannot edit reliably.
func TestAddPeerRefuses(t *testing.T) {
	for _, list := range []string{
		"resources: [a/, b/]\n",
		"resources: a/\n",
		"resources: &x\n- a/\n",
		"{resources: [a/]}\n",
		"\"resources\":\n- a/\n",
		"- a/\n",
		"  kind: x\n",
		"kind: x\n---\nkind: y\n",
		"kind: x\n...\n",
		"resources:\n- a/\nresources:\n- b/\n",
		"resources:\n- a/\n  - b/\n",
		"resources:\n\t- a/\n",
		"resources:\n- >-\n  a/\n",
		"resources: []\n- a/\n",
		"resources:\n- - a/\n- \n",
		"\x00\xff",
	} {
		if got, err := addPeer([]byte(list), aaID); !errors.Is(err, errAggregator) {
			t.Errorf("%q: got %q, %v, want %v", list, got, err, errAggregator)
		}
	}
}

// For any file, addPeer does not panic and keeps every line (unless the file was the
// placeholder, or empty), and adding a peer a second time changes nothing.
func FuzzAddPeer(f *testing.F) {
	for _, s := range []string{"", referencePlaceholder, "resources:\n- a/\nkind: x\n", "resources: []\n", "kind: x", "resources:\r\n  - a\r\n", "a: |\n b\n#\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		got, err := addPeer(list, caID)
		if err != nil {
			if !errors.Is(err, errAggregator) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Contains(got, []byte(caID)) {
			t.Fatalf("%q: the peer is not in %q", list, got)
		}
		if again, err := addPeer(got, caID); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q: adding the peer again: got %q, %v, want no change", got, again, err)
		}
		if string(got) == strings.Replace(newAggregator, "%s", caID, 1) {
			return
		}
		rest := got
		for line := range bytes.Lines(list) {
			line = bytes.TrimRight(line, "\r\n")
			if bytes.Contains(line, []byte("[]")) {
				continue
			}
			i := bytes.Index(rest, line)
			if i < 0 {
				t.Fatalf("%q: line %q is missing in %q", list, line, got)
			}
			rest = rest[i+len(line):]
		}
	})
}
