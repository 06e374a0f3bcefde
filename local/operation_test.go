package local

import (
	"fmt"
	"syscall"
	"testing"

	"peerlink/broker/embedded"
)

// An application whose message is refused gets the error of the operating system. The
// ERROR says that the disk is full only if the disk, or a quota, is full.
func TestRefusalReason(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: 1 byte is free", embedded.ErrFull), "the disk is full: "},
		{fmt.Errorf("%w: %w", embedded.ErrFull, syscall.EDQUOT), "the disk is full (" + syscall.EDQUOT.Error() + "): "},
		{fmt.Errorf("%w: %w", embedded.ErrUnwritable, syscall.EIO), "the message store can not be written (" + syscall.EIO.Error() + "): "},
	} {
		want := test.want + "the message was not stored, send it again later"
		if got := explain(test.err).Message; got != want {
			t.Errorf("%v: got %q, want %q", test.err, got, want)
		}
	}
}
