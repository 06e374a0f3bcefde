package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/node"
)

// The files of the server certificate and its key in the container of the reference implementation.
const (
	containerServerCert = "/etc/swpt/server.crt"
	containerServerKey  = "/secrets/swpt-server.key"
)

// serverCertFlags adds the flags for the server certificate and its key. For those that are not
// given, serverFiles sets the default files.
func serverCertFlags(c *cobra.Command, cert, key *string) {
	flags := c.Flags()
	const otherwise = "that of \"peerlink init\" beside the node's directory, or else "
	flags.StringVar(cert, "server-cert", "", "the server certificate `FILE`; default "+otherwise+containerServerCert)
	fromEnv(flags, "server-cert", "PEERLINK_SERVER_CERT", "SWPT_SERVER_CERT")
	flags.StringVar(key, "server-key", "", "its key `FILE`; default "+otherwise+containerServerKey)
	fromEnv(flags, "server-key", "PEERLINK_SERVER_KEY", "SWPT_SERVER_KEY")
}

// serverFiles sets the files of the server certificate and its key that are not given to the default
// ones: those that "peerlink init" has made, if they exist, or else those of the reference's container.
func (a *app) serverFiles(cert, key *string) {
	made := filesBeside(a.dir)
	if *cert == "" {
		*cert = existingOr(made.cert, containerServerCert)
	}
	if *key == "" {
		*key = existingOr(made.key, containerServerKey)
	}
}

// existingOr returns path if the file exists, or might exist, and otherwise the other path.
func existingOr(path, other string) string {
	if _, err := os.Stat(path); path == "" || errors.Is(err, fs.ErrNotExist) {
		return other
	}
	return path
}

// loadCertificate reads the service's certificate and key. If other users can read or change the
// key, it only logs a warning: in a container, the modes of mounted secrets may not be
// configurable, and server keys are easy to replace.
func loadCertificate(d *node.Dir, certFile, keyFile string, log *slog.Logger) (*link.Certificate, error) {
	// The check comes before the key is loaded, because the check may change the file's metadata,
	// and changes after loading cause a reload.
	exposedErr := guard.CheckKeyFile(keyFile) // not nil if other users can read or change the key
	c, err := link.LoadCertificate(d, certFile, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w%s; --server-cert and --server-key say where they are, and \"peerlink server-cert issue KEY CRT\" makes both, where the root key is", err, besideToo(d, certFile, keyFile))
	}
	if err != nil {
		return nil, err
	}
	if exposedErr != nil {
		log.Warn("other users can read or change the server key", "err", exposedErr)
	} else if err := guard.CheckOwner(keyFile); err != nil {
		log.Warn("the file of the server key belongs to another user", "err", err)
	}
	return c, nil
}

// besideToo names the files of "peerlink init" beside a node's directory that do not exist, if those of the
// reference's container are missing, which are used in their place.
func besideToo(d *node.Dir, certFile, keyFile string) string {
	made := filesBeside(d.Path())
	var missing []string
	if certFile == containerServerCert && made.cert != "" {
		missing = append(missing, made.cert)
	}
	if keyFile == containerServerKey && made.key != "" {
		missing = append(missing, made.key)
	}
	if len(missing) == 0 {
		return ""
	}
	return ", and there is no " + strings.Join(missing, " and no ") + " of \"peerlink init\" either"
}
