// Package sshagent signs with keys that an ssh-agent holds: in its memory, on a PKCS #11 token,
// in a TPM, or on another machine whose agent is forwarded. The signatures are those of
// X.509: RSA PKCS #1 v1.5 and ECDSA, with SHA-256.
//
// An agent signs messages and not digests, so [Key] implements [crypto.MessageSigner]. It
// chooses the hash by the kind of key: SHA-256 for RSA keys, if it is asked to, and for ECDSA
// keys on P-256. For the other ECDSA keys it uses SHA-384 and SHA-512, so they are refused.
package sshagent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"peerlink/internal/excerpt"
)

const (
	// signTimeout is how long an agent may take for a signature. Somebody may have to touch a
	// token, or to confirm the use of the key.
	signTimeout = time.Minute
	// listTimeout is how long an agent may take to list its keys.
	listTimeout = 15 * time.Second
	// waitingAfter is how long an agent may take for a signature before the caller is told.
	waitingAfter = time.Second
	// maxMessage is the maximum size of a message in bytes. OpenSSH's agent accepts requests
	// of 256 KiB, of which the key and the framing need less than 8 KiB.
	maxMessage = 248 << 10
	// maxAnswer is the maximum size of what an agent may send for a request, in bytes. OpenSSH's agent
	// sends at most 256 KiB.
	maxAnswer = 300 << 10
	// maxListed is the maximum number of keys that an error names.
	maxListed = 8
)

// Key is a key that an agent holds. It implements [crypto.MessageSigner] for SHA-256 only.
type Key struct {
	ctx     context.Context
	socket  string
	name    string
	waiting func()
	ssh     ssh.PublicKey
	public  crypto.PublicKey
}

// Open returns the key with a fingerprint as printed by "ssh-add -l": "SHA256:" and 43 characters
// in base64. The agent is that of the environment variable SSH_AUTH_SOCK.
//
// When ctx is done, signing fails. If the agent does not sign within a second, waiting is called
// from another goroutine; after a minute, signing fails.
func Open(ctx context.Context, fingerprint string, waiting func()) (*Key, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("SSH_AUTH_SOCK is not set, so no ssh-agent is known here: start one (eval \"$(ssh-agent)\") and add the key to it (\"ssh-add FILE\", or \"ssh-add -s LIBRARY\" for a PKCS #11 token)")
	}
	var keys []*agent.Key
	err := call(ctx, socket, listTimeout, func(c agent.ExtendedAgent) (err error) {
		keys, err = c.List()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the keys of the ssh-agent at %s: %w", socket, err)
	}
	for _, k := range keys {
		if ssh.FingerprintSHA256(k) != fingerprint {
			continue
		}
		key, err := parse(k)
		if err != nil {
			return nil, err
		}
		key.ctx, key.socket, key.name, key.waiting = ctx, socket, fingerprint, waiting
		return key, nil
	}
	return nil, fmt.Errorf("the ssh-agent at %s has no key with the fingerprint %q; %s", socket, excerpt.Of(fingerprint), describe(keys))
}

// parse returns a listed key, or an error if it can not make the signatures that X.509 needs.
func parse(k *agent.Key) (*Key, error) {
	parsed, err := ssh.ParsePublicKey(k.Blob)
	if err != nil {
		return nil, fmt.Errorf("the key in the ssh-agent is not understood: %w", err)
	}
	const usable = "expected an RSA key, or an ECDSA key on P-256"
	public, ok := parsed.(ssh.CryptoPublicKey)
	if !ok || strings.HasPrefix(parsed.Type(), "sk-") {
		return nil, fmt.Errorf("the key in the ssh-agent is of the type %s, which can not sign certificates: %s", excerpt.Of(parsed.Type()), usable)
	}
	switch pub := public.CryptoPublicKey().(type) {
	case *rsa.PublicKey:
		return &Key{ssh: parsed, public: pub}, nil
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return &Key{ssh: parsed, public: pub}, nil
		}
		return nil, fmt.Errorf("the key in the ssh-agent is on the curve %s, with which an agent does not sign with SHA-256, as info-bundles require: %s", pub.Curve.Params().Name, usable)
	}
	return nil, fmt.Errorf("the key in the ssh-agent is of the type %s, which Swaptacular nodes do not use: %s", excerpt.Of(parsed.Type()), usable)
}

// describe lists keys for an error.
func describe(keys []*agent.Key) string {
	if len(keys) == 0 {
		return "it has none: add the key (\"ssh-add\"), or unlock the agent (\"ssh-add -X\")"
	}
	var list []string
	for i, k := range keys {
		if i == maxListed {
			list = append(list, fmt.Sprintf("and %d more", len(keys)-i))
			break
		}
		list = append(list, fmt.Sprintf("%s (%s, %q)", ssh.FingerprintSHA256(k), excerpt.Of(k.Format), excerpt.Of(k.Comment)))
	}
	return "it has " + strings.Join(list, ", ")
}

// Public returns the public key, a *rsa.PublicKey or *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign fails, because an agent does not sign digests.
func (k *Key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("an ssh-agent signs messages only, and not digests")
}

// SignMessage returns the signature over a message, with SHA-256: PKCS #1 v1.5 for RSA, ASN.1 for
// ECDSA. The signature has been verified. The message may have 248 KiB.
func (k *Key) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts.HashFunc() != crypto.SHA256 {
		return nil, errors.New("with an ssh-agent only PKCS #1 v1.5 and ECDSA signatures with SHA-256 are supported")
	}
	if len(message) > maxMessage {
		return nil, fmt.Errorf("%d bytes are to be signed, and an ssh-agent signs at most %d", len(message), maxMessage)
	}
	var flags agent.SignatureFlags
	if _, ok := k.public.(*rsa.PublicKey); ok {
		flags = agent.SignatureFlagRsaSha256
	}
	timer := time.AfterFunc(waitingAfter, k.waiting)
	defer timer.Stop()
	var sig *ssh.Signature
	err := call(k.ctx, k.socket, signTimeout, func(c agent.ExtendedAgent) (err error) {
		sig, err = c.SignWithFlags(k.ssh, message, flags)
		return err
	})
	var encoded []byte
	if err == nil {
		encoded, err = k.encode(sig, message)
	}
	if err != nil {
		return nil, fmt.Errorf("sign with %s of the ssh-agent at %s: %w", k.name, k.socket, err)
	}
	return encoded, nil
}

// call connects with the agent, and calls f. When ctx is done, and after the timeout, the
// connection is closed, so that f fails.
func call(ctx context.Context, socket string, timeout time.Duration, f func(agent.ExtendedAgent) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := callWith(ctx, socket, f)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: if the key is on a token, touch it when it blinks; if the agent asks for confirmation, confirm", timeout)
	case ctx.Err() != nil:
		return errors.New("interrupted")
	}
	return err
}

func callWith(ctx context.Context, socket string, f func(agent.ExtendedAgent) error) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	return f(agent.NewClient(&limitedConn{Conn: conn, left: maxAnswer}))
}

// limitedConn is a connection from which no more than left bytes of one answer can be read. An answer
// begins with its length, for which the library allocates memory as soon as it has read it.
type limitedConn struct {
	net.Conn
	left   int
	length []byte // what has been read of the length
}

const lengthBytes = 4

// Read implements [io.Reader].
func (c *limitedConn) Read(p []byte) (int, error) {
	limit := c.left
	if missing := lengthBytes - len(c.length); missing > 0 {
		limit = missing
	}
	if limit == 0 {
		return 0, errAnswerTooLong
	}
	n, err := c.Conn.Read(p[:min(len(p), limit)])
	c.left -= n
	if len(c.length) < lengthBytes {
		c.length = append(c.length, p[:n]...)
		if len(c.length) == lengthBytes && binary.BigEndian.Uint32(c.length) > maxAnswer-lengthBytes {
			return 0, errAnswerTooLong
		}
	}
	return n, err
}

var errAnswerTooLong = fmt.Errorf("the agent answers with more than %d bytes", maxAnswer)

// encode returns a signature of the agent in the encoding of X.509, after it has verified it.
func (k *Key) encode(sig *ssh.Signature, message []byte) ([]byte, error) {
	want := k.ssh.Type() // ecdsa-sha2-nistp256
	if _, ok := k.public.(*rsa.PublicKey); ok {
		want = ssh.KeyAlgoRSASHA256
	}
	if sig.Format != want {
		return nil, fmt.Errorf("the agent made a signature of the type %q: expected %s; another agent, or a newer version, is needed", excerpt.Of(sig.Format), want)
	}
	if err := k.ssh.Verify(message, sig); err != nil {
		return nil, errors.New("the agent's signature is not valid")
	}
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		// Some agents leave out leading zeros, which the SSH protocol permits.
		return append(bytes.Repeat([]byte{0}, pub.Size()-len(sig.Blob)), sig.Blob...), nil
	case *ecdsa.PublicKey:
		return encodeECDSA(sig.Blob)
	}
	return nil, errors.New("not an RSA or ECDSA key")
}
