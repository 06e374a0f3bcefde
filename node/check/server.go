package check

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"peerlink/node/pki"
)

// checkServers checks the server certificates. Certificates in use are checked
// completely; of the others in certs/, only those that are valid now are checked, without
// their private keys.
func (c *checker) checkServers() {
	var given []*x509.Certificate
	for _, files := range c.options.Servers {
		if cert := c.checkServerFiles(files); cert != nil {
			given = append(given, cert)
		}
	}
	var newest *x509.Certificate
	if len(c.options.Servers) == 0 && len(c.serverCerts) > 0 {
		newest = slices.MaxFunc(c.serverCerts, func(a, b issued) int { return a.cert.NotAfter.Compare(b.cert.NotAfter) }).cert
	}
	for _, s := range c.serverCerts {
		if slices.ContainsFunc(given, s.cert.Equal) {
			continue
		}
		if valid := c.checkServer(s.file, s.cert, s.cert == newest); valid && s.cert == newest {
			c.checkChains(s.file, s.cert)
		}
	}
}

// checkServerFiles checks a server's certificate and key. It returns the certificate,
// or nil if that is missing or cannot be parsed.
func (c *checker) checkServerFiles(files ServerFiles) (cert *x509.Certificate) {
	data, err := readPath(files.Cert, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.problem(files.Cert, RuleCertMissing, "does not exist: \"peerlink server-cert issue\" makes a server certificate")
	case err != nil:
		c.problem(files.Cert, RuleUnreadable, "can not be read: %v", reason(err))
	default:
		if text, ok := c.decode(files.Cert, data, RuleCertPEM); ok {
			cert = c.parse(files.Cert, text)
		}
	}
	if cert != nil && c.checkServer(files.Cert, cert, true) {
		c.issued = append(c.issued, issued{files.Cert, cert})
		c.checkChains(files.Cert, cert)
	}
	if files.Key != "" {
		c.checkServerKey(files, cert)
	}
	return cert
}

// checkServerKey checks a server's private key, which must not need a passphrase. cert
// may be nil.
func (c *checker) checkServerKey(files ServerFiles, cert *x509.Certificate) {
	data, err := readPath(files.Key, maxFile)
	if err != nil {
		c.problem(files.Key, RuleServerKey, "can not be read: %v", reason(err))
		return
	}
	defer clear(data)
	c.checkKeyMode(files.Key, Warning)
	c.checkMark(files.Key, data)
	key, err := pki.DecodeKey(data, nil)
	switch {
	case errors.Is(err, pki.ErrPassphrase):
		c.problem(files.Key, RuleServerKey, "is encrypted: expected an unencrypted key, because nobody can type a passphrase when the service starts")
	case err != nil:
		c.problem(files.Key, RuleServerKey, "%v", err)
	case cert != nil && !isKeyOf(key, cert):
		c.problem(files.Key, RuleServerKey, "is not the key of %s", files.Cert)
	}
}

// absolute returns the absolute form of path, for comparisons.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
