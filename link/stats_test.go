package link

import (
	"testing"
	"time"
)

// A TLS handshake alone is a contact with the peer: without data on any connection, the status
// would say that the peer was not there.
func TestHandshakeIsContact(t *testing.T) {
	var s peerStats
	before := time.Now()
	s.madeContact()
	if last := s.lastContact(); last.Before(before) || last.After(time.Now()) {
		t.Errorf("the last contact is %v, want now", last)
	}
}
