package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/outproxy"
	"peerlink/node/pki"
	"peerlink/stomp"
)

// peerFilesError is the error of a peer whose files in the node's directory cannot be used.
type peerFilesError struct{ error }

func (e *peerFilesError) Unwrap() error { return e.error }

// explain returns the state of sending to the peer with this ID after an error of a connection, or
// of an attempt to make one. now is the time by the clock for certificates.
func explain(err error, peer string, now time.Time) LinkState {
	var files *peerFilesError
	var own *brokerError
	var expired *certificateExpired
	var refused *stomp.ServerError
	var certificate *pki.VerifyError
	switch {
	case errors.As(err, &own):
		return LinkState{Verdict: VerdictBrokerUnavailable, Reason: own.Error(), Remedy: brokerRemedy}
	case errors.As(err, &files):
		return LinkState{Verdict: VerdictUnreadable, Reason: files.Error(), Remedy: "ask the owner of the peer for a new info-bundle, and run: peerlink peer sign BUNDLE.zip"}
	case errors.As(err, &expired):
		return LinkState{Verdict: VerdictCertificateExpired, Reason: expired.Error(), Remedy: advice(expired.role)}
	case errors.As(err, &refused):
		return explainRefusal(refused, peer)
	case errors.Is(err, errKeyRevoked):
		return LinkState{Verdict: VerdictWrongCertificate, Reason: err.Error(), Remedy: fmt.Sprintf("tell the owner of %s which address answers with it", peer)}
	case errors.As(err, &certificate):
		return explainCertificate(certificate, peer, now)
	}
	if alert, ok := certificateAlert(err); ok {
		return explainAlert(alert, peer)
	}
	return LinkState{Verdict: VerdictUnreachable, Reason: describeNetworkError(err), Remedy: "peerlink ping " + peer}
}

const brokerRemedy = "see the log of this service, and the broker's"

// The texts with which a node refuses another node that is no active peer there, or not any more:
// those of our own nodes and of the reference implementation. See also tooManyText.
var (
	unknownPeerText   = regexp.MustCompile(`^Unknown peer: this node has not registered a peer certificate from you\.$`)
	notRegisteredText = regexp.MustCompile(`^This node has no active link with you: its owner has not registered the peer certificate from you yet\.$`)
	suspendedText     = regexp.MustCompile(`^The owner of this node has suspended the link with you\. It will be resumed\.( Reason: .*)?$`)
	noActiveLinkText  = regexp.MustCompile(`^(This node has no active link with you\.|Unknown peer serial number\.)$`)
)

// explainRefusal returns the state after an ERROR from the peer.
func explainRefusal(refused *stomp.ServerError, peer string) LinkState {
	text := refused.Message
	reason := fmt.Sprintf("the peer answered: %s", excerpt.Limit(text, maxErrorText))
	register := fmt.Sprintf("send peers/%s/peercert.crt to the owner of %s, who has to run: peerlink peer register peercert.crt", peer, peer)
	switch {
	case notRegisteredText.MatchString(text):
		return LinkState{Verdict: VerdictNotRegistered, Remedy: register,
			Reason: "the peer has not registered the certificate that this node has issued to it"}
	case unknownPeerText.MatchString(text):
		return LinkState{Verdict: VerdictNotRegistered, Reason: "the peer's directory has no peer with the ID of this node; perhaps an older copy of it was put back",
			Remedy: fmt.Sprintf("ask the owner of %s to look (peerlink peer list), and to sign and register this node again if it is missing", peer)}
	case noActiveLinkText.MatchString(text):
		return LinkState{Verdict: VerdictNotRegistered, Remedy: register,
			Reason: "the peer has no active link with this node: most likely it has not registered the certificate that this node has issued to it, or else it has deactivated this node, or its service has not made its queues yet"}
	case suspendedText.MatchString(text):
		return LinkState{Verdict: VerdictSuspended, Reason: reason, Remedy: "wait, or ask the owner of " + peer}
	case isFromFuture(refused):
		return LinkState{Verdict: VerdictClockDiffers, Reason: "the clock of the peer is behind that of this node, or a message has a wrong timestamp; " + reason,
			Remedy: "compare the clocks of both machines, for example with: timedatectl"}
	}
	remedy := "ask the owner of the peer to look into its log"
	if refused.MessageNumber > 0 {
		remedy = "see which messages are refused: peerlink queue list"
	}
	return LinkState{Verdict: VerdictRefused, Reason: reason, Remedy: remedy}
}

// explainCertificate returns the state after this node has refused the chain of a peer's server.
func explainCertificate(refused *pki.VerifyError, peer string, now time.Time) LinkState {
	s := LinkState{Verdict: VerdictWrongCertificate, Reason: refused.Error(),
		Remedy: fmt.Sprintf("ask the owner of %s whether its address or its key has changed: another node, or another root key, answers there", peer)}
	if !errors.Is(refused, pki.RuleDates) || refused.Cert == nil {
		return s
	}
	if refused.Cert.NotAfter.Before(now) {
		s.Verdict, s.Remedy = VerdictCertificateExpired, advice("peer_server")
		return s
	}
	s.Verdict, s.Remedy = VerdictClockDiffers, "compare the clocks of both machines, for example with: timedatectl"
	s.Reason = fmt.Sprintf("the certificate of the peer begins %s from now, by the clock of this node", roughly(refused.Cert.NotBefore.Sub(now)))
	return s
}

// certificateAlerts are the alerts of TLS with which a server refuses a client's certificate:
// bad_certificate, unsupported_certificate, certificate_revoked, certificate_expired,
// certificate_unknown, unknown_ca and access_denied.
var certificateAlerts = []tls.AlertError{42, 43, 44, 45, 46, 48, 49}

const alertExpired tls.AlertError = 45

// certificateAlert reports whether err is an alert of the other side about this node's
// certificates. crypto/tls has no exported type for the alert inside of the error.
func certificateAlert(err error) (alert tls.AlertError, ok bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	for _, a := range certificateAlerts {
		if op.Err.Error() == a.Error() {
			return a, true
		}
	}
	return 0, false
}

// explainAlert returns the state after the peer's server has refused the chain of this node. The
// alert says no more: servers use the same one for different faults.
func explainAlert(alert tls.AlertError, peer string) LinkState {
	if alert == alertExpired {
		return LinkState{Verdict: VerdictClockDiffers, Reason: "a certificate of this node has expired by the clock of the peer, and not by that of this node",
			Remedy: "compare the clocks of both machines, for example with: timedatectl"}
	}
	return LinkState{Verdict: VerdictWrongCertificate,
		Reason: fmt.Sprintf("the peer does not accept the certificates of this node (%s): most likely its root key is not the one that has issued this node's peer certificate, or else its clock is wrong", alert.Error()),
		Remedy: fmt.Sprintf("ask the owner of %s to look into its log; if it has made its node anew, each node has to sign and register the other one again", peer)}
}

// describeNetworkError returns, in words, why no connection could be made, or why one has ended.
// Of an error that joins those of several servers it describes each.
func describeNetworkError(err error) string {
	var texts []string
	for _, err := range eachError(err) {
		texts = append(texts, describeOneError(err))
	}
	return strings.Join(texts, "; ")
}

// eachError returns the errors that err joins, or err itself. A [pki.VerifyError] is one error.
func eachError(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if _, refused := err.(*pki.VerifyError); !ok || refused {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, eachError(e)...)
	}
	return list
}

func describeOneError(err error) string {
	var name *net.DNSError
	var op *net.OpError
	var notTLS tls.RecordHeaderError
	var proxy *outproxy.Error
	switch {
	case errors.As(err, &proxy):
		return fmt.Sprintf("the proxy %s, for a connection to %s: %s", proxy.Proxy, excerpt.Of(proxy.Address), describeOneError(proxy.Err))
	case errors.As(err, &name) && name.IsNotFound:
		return fmt.Sprintf("the name %s does not exist", excerpt.Of(name.Name))
	case errors.As(err, &name):
		return fmt.Sprintf("the name %s can not be resolved: %s", excerpt.Of(name.Name), excerpt.Of(name.Err))
	case errors.As(err, &notTLS):
		return excerpt.Of(err.Error()) + ": another program may use the port"
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		return describeDial(op)
	}
	return excerpt.Limit(err.Error(), maxErrorText)
}

// describeDial describes the error of a TCP connection that could not be made.
func describeDial(op *net.OpError) string {
	switch {
	case errors.Is(op, syscall.ECONNREFUSED):
		return fmt.Sprintf("TCP connection refused by %s", op.Addr)
	case op.Timeout(), errors.Is(op, os.ErrDeadlineExceeded), errors.Is(op, syscall.ETIMEDOUT):
		return fmt.Sprintf("no answer from %s", op.Addr)
	case errors.Is(op, syscall.EHOSTUNREACH), errors.Is(op, syscall.ENETUNREACH):
		return fmt.Sprintf("no route to %s", op.Addr)
	}
	return excerpt.Of(op.Error())
}
