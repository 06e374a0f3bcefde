package cli

import (
	"context"
	"crypto"
	"fmt"
	"strings"

	"peerlink/internal/sshagent"
	"peerlink/node"
	"peerlink/node/pki"
)

// agentPrefix is the beginning of a --key flag that names a key in an ssh-agent, and not a file.
const agentPrefix = "agent:"

// keyInAgent reports whether --key names a key in an ssh-agent.
func (a *app) keyInAgent() bool { return strings.HasPrefix(a.keyFile, agentPrefix) }

// agentKey returns the root key that --key names in an ssh-agent.
func (a *app) agentKey(ctx context.Context) (crypto.Signer, error) {
	fingerprint := strings.TrimPrefix(a.keyFile, agentPrefix)
	if !strings.HasPrefix(fingerprint, "SHA256:") {
		return nil, usagef("--key %s: expected %sSHA256:…, with the fingerprint that \"ssh-add -l\" prints", a.keyFile, agentPrefix)
	}
	key, err := sshagent.Open(ctx, fingerprint, func() {
		a.printMessage("Waiting for the ssh-agent to sign: touch the token if it blinks, or confirm if the agent asks.")
	})
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", a.keyFile, err)
	}
	return key, nil
}

// refuseAgentKey fails if --key names a key in an ssh-agent. why says why the command can not use such a key.
func (a *app) refuseAgentKey(why string) error {
	if !a.keyInAgent() {
		return nil
	}
	return fmt.Errorf("--key %s: %s", a.keyFile, why)
}

// drillAgentKey proves that the ssh-agent signs with the node's root key. What is signed begins like nothing else that a
// root key signs.
func (a *app) drillAgentKey(ctx context.Context, d *node.Dir) error {
	key, err := a.checkedRootKey(ctx, d)
	if err != nil {
		return err
	}
	_, err = pki.SignData(key, []byte("peerlink key drill: this text means nothing\n"))
	return err
}
