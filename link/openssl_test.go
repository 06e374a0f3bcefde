package link_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: handshakes with OpenSSL are not tested")
	}
}

// write writes PEM data into a file of the test.
func write(t *testing.T, data ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, bytes.Join(data, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// With OpenSSL as a client, every handshake with our server has the same result as with
// our own client: it accepts our certificate only under the right root, and is accepted
// only with the right chain.
func TestOpenSSLClient(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	authority, friend := linktest.Pair(t, ca)
	stranger := linktest.New(t, ca)
	p, err := friend.Peer(authority.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	subCA := write(t, pki.EncodeCertificatePEM(p.SubCA))
	authorityRoot := filepath.Join(authority.Path(), "root-ca.crt")
	friendRoot := filepath.Join(friend.Path(), "root-ca.crt")
	for _, tt := range []struct {
		name      string
		cert, key string
		chain     string
		root      string
		accepted  bool
	}{
		{"a peer", friend.CertFile, friend.KeyFile, subCA, authorityRoot, true},
		{"a peer that trusts another root", friend.CertFile, friend.KeyFile, subCA, friendRoot, false},
		{"a peer without its peer certificate", friend.CertFile, friend.KeyFile, "", authorityRoot, false},
		{"a stranger", stranger.CertFile, stranger.KeyFile, "", authorityRoot, false},
		{"a stranger with a peer's certificate", stranger.CertFile, stranger.KeyFile, subCA, authorityRoot, false},
		{"the node itself", authority.CertFile, authority.KeyFile, "", authorityRoot, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"s_client", "-connect", authority.Addr, "-tls1_3", "-quiet", "-verify_return_error", "-CAfile", tt.root,
				"-cert", tt.cert, "-key", tt.key}
			if tt.chain != "" {
				args = append(args, "-cert_chain", tt.chain)
			}
			ctx, cancel := context.WithTimeout(context.Background(), linktest.Timeout)
			defer cancel()
			c := exec.CommandContext(ctx, "openssl", args...)
			c.Stdin = strings.NewReader("STOMP\naccept-version:1.2\nhost:/\n\n\x00DISCONNECT\nreceipt:bye\n\n\x00")
			var out, errOut bytes.Buffer
			c.Stdout, c.Stderr = &out, &errOut
			err := c.Run()
			if ctx.Err() != nil {
				t.Fatalf("openssl does not end\n%s", errOut.String())
			}
			if got := strings.Contains(out.String(), "CONNECTED\n"); got != tt.accepted {
				t.Errorf("accepted: %v, want %v (%v)\n%s%s", got, tt.accepted, err, out.String(), errOut.String())
			}
		})
	}
}

// OpenSSL as a server, which verifies the client only with its own root certificate, accepts
// our client whenever our own server does, and our client accepts only the server of the peer
// that it has dialed.
func TestOpenSSLServer(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	for _, tt := range []struct {
		name string
		as   func(authority, stranger *linktest.Node) *linktest.Node // whose certificate the server shows
		want string
	}{
		{"the peer", func(authority, _ *linktest.Node) *linktest.Node { return authority }, "accept-version:1.2"},
		{"somebody else", func(_, stranger *linktest.Node) *linktest.Node { return stranger }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			authority, friend, stranger := linktest.New(t, aa), linktest.New(t, ca), linktest.New(t, ca)
			authority.WriteStompTOML(authority.Addr)
			nodetest.Peer(t, authority.Node, friend.Node)

			shows := tt.as(authority, stranger)
			ctx, cancel := context.WithTimeout(context.Background(), linktest.Timeout)
			defer cancel()
			c := exec.CommandContext(ctx, "openssl", "s_server", "-accept", authority.Addr, "-tls1_3", "-Verify", "3", "-verify_return_error",
				"-CAfile", filepath.Join(authority.Path(), "root-ca.crt"), "-cert", shows.CertFile, "-key", shows.KeyFile)
			stdin, err := c.StdinPipe() // s_server ends at the end of its input
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			out := new(linktest.Log)
			c.Stdout, c.Stderr = out, out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { cancel(); c.Wait() }()
			linktest.Eventually(t, "openssl s_server", func() error {
				if !strings.Contains(out.String(), "ACCEPT") {
					return fmt.Errorf("not ready: %s", out)
				}
				return nil
			})
			friend.Start()
			if tt.want == "" {
				linktest.Eventually(t, "our refusal", func() error {
					if !strings.Contains(friend.Log.String(), "certificate") {
						return fmt.Errorf("log: %s", friend.Log)
					}
					return nil
				})
				if strings.Contains(out.String(), "accept-version") {
					t.Errorf("this node has sent data to a stranger:\n%s", out)
				}
				return
			}
			linktest.Eventually(t, "our CONNECT frame", func() error {
				if !strings.Contains(out.String(), tt.want) {
					return fmt.Errorf("openssl says: %s\nwe say: %s", out, friend.Log)
				}
				return nil
			})
			if strings.Contains(out.String(), "verify error") || !strings.Contains(out.String(), "verify return:1") {
				t.Errorf("openssl has not verified us:\n%s", out)
			}
		})
	}
}
