package link_test

import (
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// A service of the node itself is told from that of another node, from another program, and from none.
func TestProbeSelf(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	if err := link.ProbeSelf(t.Context(), authority.Dir, authority.Addr); err != nil {
		t.Error(err)
	}
	for address, want := range map[string]string{
		other.Addr:                              "certificate of creditors-agent",
		answering(t, "SSH-2.0-OpenSSH_9.9\r\n"): "another program",
		linktest.FreeAddress(t):                 "TCP connection refused",
	} {
		if err := link.ProbeSelf(t.Context(), authority.Dir, address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", address, err, want)
		}
	}
	if st := authority.Service.Status(); st.Listen != authority.Addr {
		t.Errorf("the service says that it listens at %q, expected %s", st.Listen, authority.Addr)
	}
}
