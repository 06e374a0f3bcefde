package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"peerlink/node"
	"peerlink/node/pki"
)

// selfProbeTimeout bounds each of the two steps of [ProbeSelf]. Addresses of the node itself are near.
const selfProbeTimeout = 3 * time.Second

// ErrOther is wrapped by the errors of [ProbeSelf] if something else answers than a service of the node.
var ErrOther = errors.New("another node or another program answers")

// ProbeSelf connects to an address, as host:port, and returns an error unless a service of the node d
// answers there. It shows no certificate, so the service ends the connection.
func ProbeSelf(ctx context.Context, d *node.Dir, address string) error {
	conn, err := (&net.Dialer{Timeout: selfProbeTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return errors.New(describeNetworkError(err))
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, selfProbeTimeout)
	defer cancel()
	err = tls.Client(conn, selfTLS(d)).HandshakeContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return errTLSTimeout
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrOther, describeNetworkError(err))
	}
	return nil
}

// selfTLS returns the configuration for a connection to a server of the node itself.
func selfTLS(d *node.Dir) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := pki.VerifyServer(rawCertificates(cs), d.Root(), d.Identity(), time.Now())
			return err
		},
	}
}
