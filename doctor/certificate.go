package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"peerlink/link"
	"peerlink/node/pki"
)

// soonDays is how many days before its end a server certificate is reported.
const soonDays = 30

// checkCertificate loads the server certificate and its key as the service does.
func (e *examination) checkCertificate(context.Context) {
	const name = "certificate"
	if e.skip(name, e.cfg.ServerCert, "directory") {
		return
	}
	cert, err := link.LoadCertificate(e.dir, e.cfg.ServerCert, e.cfg.ServerKey)
	if err != nil && errors.Is(err, pki.RuleDates) && e.skip(name, e.cfg.ServerCert, "clock") {
		return
	}
	if err != nil {
		e.fail(name, e.cfg.ServerCert, err.Error(), e.certificateRemedy(err))
		return
	}
	e.cert = cert
	leaf := cert.Leaf()
	end := leaf.NotAfter.UTC().Format(time.DateOnly)
	if days, _ := pki.Expiry(leaf.NotAfter, e.now); days <= soonDays {
		e.warn(name, e.cfg.ServerCert, fmt.Sprintf("ends on %s, in %d days", end, days), e.renewCommand(""))
		return
	}
	e.pass(name, e.cfg.ServerCert, "until "+end)
}

func (e *examination) renewCommand(flags string) string {
	return fmt.Sprintf("where the root key is: peerlink server-cert renew %s %s%s", e.cfg.ServerKey, e.cfg.ServerCert, flags)
}

func (e *examination) certificateRemedy(err error) string {
	var refused *pki.VerifyError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "name the files with --server-cert and --server-key, or make both where the root key is: peerlink server-cert issue KEY CRT"
	case errors.Is(err, fs.ErrPermission):
		return "let the user of the service read the file, or run this command as that user"
	case errors.Is(err, link.ErrOwnKeyRevoked):
		return e.renewCommand(" --new-key")
	case errors.Is(err, pki.RuleDates) && errors.As(err, &refused) && refused.Cert != nil && e.now.Before(refused.Cert.NotBefore):
		return "compare the clock of this machine with that of the one where the certificate was made, and renew the certificate there"
	case errors.Is(err, pki.RuleDates):
		return e.renewCommand("")
	case errors.As(err, &refused):
		return "name a certificate of this node, or make one where the root key is: peerlink server-cert issue KEY CRT"
	}
	return "put the certificate and its key there, or make both anew where the root key is: peerlink server-cert issue KEY CRT"
}
