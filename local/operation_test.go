package local

import (
	"fmt"
	"syscall"
	"testing"

	"peerlink/broker/embedded"
)

// An application whose frame is refused gets the error of the operating system, and what was not done. The
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
		for command, notDone := range map[string]string{
			"SEND":   "the message was not stored, send it again later",
			"COMMIT": "nothing of the transaction was done, send all of it again later",
			"ACK":    "what was acknowledged was not removed, and may be delivered again",
		} {
			op := &operation{command: command}
			if got, want := op.errorToClient(test.err).Message, test.want+notDone; got != want {
				t.Errorf("%s, %v: got %q, want %q", command, test.err, got, want)
			}
		}
	}
}
