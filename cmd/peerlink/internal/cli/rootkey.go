package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/node"
	"peerlink/node/pki"
)

// maxRootKey is the maximum size of a root key file in bytes.
const maxRootKey = 64 << 10

// checkRootKey returns an error if the node's directory, which a running service reads, contains a
// root key that other users can read or change. If allowExposed is set, it does so only if that key
// is also not encrypted. It logs a warning about any other root key there, because a service never
// needs it.
func checkRootKey(d *node.Dir, allowExposed bool, log *slog.Logger) error {
	path := d.DefaultKeyFile()
	switch fi, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil // there is no root key, or this process has no access to it, as recommended
	case err != nil:
		return fmt.Errorf("look for a root key: %w", err)
	case !fi.Mode().IsRegular():
		return nil // for example /dev/null, mounted over the key
	}
	exposedErr := guard.CheckKeyFile(path) // not nil if other users can read or change the key
	switch {
	case exposedErr == nil:
		log.Warn("the root key lies on the machine of a running service, which does not need it: an intruder can try its passphrase; keep it offline", "file", path)
		return nil
	case !allowExposed:
		return fmt.Errorf("a service must not run beside a root key like this: %w; --allow-root-key permits it if the key is encrypted", exposedErr)
	}
	if err := checkEncrypted(path); err != nil {
		return fmt.Errorf("a service must not run beside a root key that other users can read and that is not encrypted: %w", err)
	}
	log.Warn("other users can read the root key, on the machine of a running service, which does not need it: each of them can try its passphrase; keep it offline", "file", path, "err", exposedErr)
	return nil
}

// checkEncrypted fails if the file does not hold an encrypted key. It returns nil if this process cannot read
// the file, because the key is protected from this user then.
func checkEncrypted(path string) error {
	data, err := durable.Read(path, maxRootKey)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer clear(data)
	switch _, err = pki.DecodeKey(data, nil); {
	case errors.Is(err, pki.ErrPassphrase):
		return nil
	case err == nil:
		return fmt.Errorf("%s: expected a key that is encrypted with a passphrase; encrypt it with \"openssl pkcs8 -topk8 -scrypt\", and destroy every copy that is not encrypted", path)
	}
	return fmt.Errorf("%s: expected an encrypted key: %w", path, err)
}
