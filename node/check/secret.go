package check

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// maxKeyFile is the size, in bytes, of the largest file that is searched for keys.
const maxKeyFile = 64 << 10

// checkSecrets checks the protection of keys, as far as the files show it.
func (c *checker) checkSecrets() {
	if fi, err := os.Stat(c.path("private")); err == nil && fi.Mode().Perm()&0o077 != 0 && guard.CanRestrict(c.path("private"), 0o077) {
		c.problem("private", RulePrivateMode, "has mode %04o: expected 0700; \"chmod 700\" helps", fi.Mode().Perm())
	}
	c.checkOwners()
	c.checkRootKey()
	c.checkKeyLeftovers()
	c.checkGit()
	c.checkDrill()
	c.checkTree()
}

// checkOwners checks that the directory and the private folder belong to this user.
// It checks nothing for the superuser, who may check the nodes of other users.
func (c *checker) checkOwners() {
	if os.Geteuid() == 0 {
		return
	}
	for _, folder := range []string{".", "private"} {
		if err := guard.CheckOwner(c.path(folder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.warning(folder, RuleWritable, "%v", err)
		}
	}
}

// checkGit adds a finding if the directory is in a work tree of git, and its .gitignore file has no
// line for the private folder.
func (c *checker) checkGit() {
	if c.exists("private") && node.InGitWorkTree(c.dir) && !node.GitIgnoresPrivate(c.dir) {
		c.note("private", RuleGit, "is in a work tree of git, and the file .gitignore of the node's directory has no line private/: \"git add\" adds the root key unless another file prevents that; write the line, and if git has the key already, \"git rm -r --cached private\" removes it from the index, but not from earlier commits")
	}
}

// drillDays is the number of days after which the backup of the root key should be
// tested again.
const drillDays = 365

// checkDrill adds a finding if the last drill was more than drillDays ago, or has a date in the
// future.
func (c *checker) checkDrill() {
	last, err := node.LastDrill(c.dir)
	switch {
	case err != nil:
		c.note(node.DrillFile, RuleDrill, "%s", strings.TrimPrefix(err.Error(), node.DrillFile+": "))
	case last.Sub(c.now) > 24*time.Hour: // a date has no time zone
		c.warning(node.DrillFile, RuleDrill, "says that the backup of the root key was proved good on %s, which is in the future: do it again with \"peerlink key drill\"", last.Format(time.DateOnly))
	case !last.IsZero() && c.now.Sub(last) > drillDays*24*time.Hour:
		c.warning(node.DrillFile, RuleDrill, "the backup of the root key was last proved good on %s: do it again with \"peerlink key drill\"", last.Format(time.DateOnly))
	}
}

// checkRootKey checks the file of the root key, without decrypting it.
func (c *checker) checkRootKey() {
	path := c.options.KeyFile
	file := c.name(path)
	data, err := readPath(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) && !c.keyNamed {
		return
	}
	if err != nil {
		c.problem(file, RuleUnreadable, "can not be read: %v", reason(err))
		return
	}
	c.checkKeyMode(path, Problem)
	if err := guard.CheckOwner(path); err != nil && os.Geteuid() != 0 { // the superuser may check the nodes of other users
		c.add(Finding{Severity: Warning, Rule: RuleKeyMode, Subject: file, Text: err.Error()})
	}
	c.checkMark(file, data)
	key, err := pki.DecodeKey(data, nil)
	switch {
	case errors.Is(err, pki.ErrPassphrase): // encrypted, as required
	case err != nil:
		c.problem(file, RuleRootKey, "%v; %s", err, node.DamagedKeyRemedy)
	default:
		c.problem(file, RuleKeyEncrypted, "is not encrypted: anybody who gets this file is this node; encrypt it with \"openssl pkcs8 -topk8 -scrypt\", and destroy every copy of this one")
		if c.root != nil && !isKeyOf(key, c.root) {
			c.problem(file, RuleRootKey, "is not the key of root-ca.crt")
		}
	}
}

// checkKeyLeftovers reports temporary files of interrupted commands in the folder of
// the root key. Repair does not remove them, because they may be keys.
func (c *checker) checkKeyLeftovers() {
	path := c.options.KeyFile
	if file, err := durable.Target(path); err == nil {
		path = file // a command that replaces the key follows symbolic links
	}
	folder, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(folder))
	if err != nil {
		return // checkRootKey reports it if necessary
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+name+".tmp-") {
			c.note(c.name(filepath.Join(folder, e.Name())), RuleLeftover,
				"was left by an interrupted command, and may hold a root key with a passphrase of its own: destroy it once %s is known to open (\"peerlink key drill\")", c.name(c.options.KeyFile))
		}
	}
}

// checkKeyMode checks that a key is readable by its owner only.
func (c *checker) checkKeyMode(path string, severity Severity) {
	if c.modesSeen[absolute(path)] {
		return
	}
	c.modesSeen[absolute(path)] = true
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o077 != 0 && guard.CanRestrict(path, 0o077) {
		c.add(Finding{Severity: severity, Rule: RuleKeyMode, Subject: c.name(path),
			Text: "can be read by others: expected mode 0600; \"chmod 600\" helps"})
	}
}

// name returns the name of a file for findings: relative to the directory if the file
// is in the directory, and path otherwise.
func (c *checker) name(path string) string {
	rel, err := filepath.Rel(absolute(c.dir), absolute(path))
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.ToSlash(rel)
}

// checkTree searches the whole directory for keys in the wrong place and for files that
// are writable by everybody. It skips .git folders, and does not follow symbolic links
// to folders.
func (c *checker) checkTree() {
	writable, first := 0, ""
	// With the trailing separator, WalkDir follows c.dir itself if it is a symbolic link.
	err := filepath.WalkDir(c.dir+string(filepath.Separator), func(path string, e fs.DirEntry, err error) error {
		if c.ctx.Err() != nil {
			return fs.SkipAll
		}
		if errors.Is(err, fs.ErrNotExist) { // removed since its folder was read
			return nil
		}
		if err != nil {
			c.problem(c.name(path), RuleUnreadable, "can not be read: %v", reason(err))
			return nil
		}
		if e.IsDir() && e.Name() == ".git" {
			return fs.SkipDir
		}
		fi, err := os.Stat(path)
		if err != nil {
			return nil // a broken symbolic link
		}
		if e.Type()&fs.ModeSymlink == 0 && fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 {
			if writable++; writable == 1 {
				first = c.name(path)
			}
		}
		if !fi.Mode().IsRegular() && mustBeRegular(c.name(path)) {
			c.problem(c.name(path), RuleUnreadable, "can not be read: %v", errNotRegular)
		}
		if fi.Mode().IsRegular() && fi.Size() <= maxKeyFile && absolute(path) != absolute(c.options.KeyFile) {
			c.checkContent(path)
		}
		return nil
	})
	if err != nil {
		c.problem(".", RuleUnreadable, "can not be searched: %v", reason(err))
	}
	if writable > 0 && guard.CanRestrict(filepath.Join(c.dir, filepath.FromSlash(first)), 0o002) {
		others := ""
		if writable > 1 {
			others = fmt.Sprintf(", and so can others (%d in all)", writable)
		}
		c.problem(first, RuleWritable, "can be changed by anybody%s: expected that only the owner can; \"chmod -R o-w\" on the directory", others)
	}
}

// checkContent searches a file for keys that are not encrypted, a file of the node also for the
// marks of a merge conflict, and a file in nodeinfo/ also for what must not be public.
func (c *checker) checkContent(path string) {
	data, err := readPath(path, maxKeyFile)
	if err != nil {
		return // reported by the check of this file, if it is one of the node's
	}
	file := c.name(path)
	if mustBeRegular(file) {
		c.checkConflictMarks(file, data)
	}
	if name, ours := strings.CutPrefix(file, "nodeinfo/"); ours && !infobundle.Excluded(filepath.Base(path)) {
		if err := infobundle.CheckPublic(infobundle.File{Name: name, Data: data}); err != nil {
			c.problem(file, RuleKeyPlace, "%v; if an info-bundle was made with this file, its content is not secret any more", err)
		}
	}
	for _, key := range plainKeys(data) {
		isRoot := key != nil && c.root != nil && isKeyOf(key, c.root)
		switch {
		case isRoot:
			c.problem(file, RuleKeyEncrypted, "holds the root key, not encrypted: anybody who gets this file is this node; destroy it")
		case !strings.HasPrefix(file, "private/") && !strings.HasPrefix(file, "nodeinfo/"):
			c.warning(file, RuleKeyPlace, "holds a private key that is not encrypted: expected such keys in private/, or outside of this directory, which may be under version control and on servers")
		}
		c.checkKeyMode(path, Warning)
	}
}

// plainKeys returns the unencrypted private keys in a file, which may be PEM or a
// single key in DER. The entries for keys of unsupported kinds are nil.
func plainKeys(data []byte) (keys []crypto.Signer) {
	if text, err := textfile.Decode(data); err == nil { // fails for DER
		data = text
	}
	if key, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		signer, _ := key.(crypto.Signer)
		return []crypto.Signer{signer}
	}
	if key, err := x509.ParsePKCS1PrivateKey(data); err == nil {
		return []crypto.Signer{key}
	}
	if key, err := x509.ParseECPrivateKey(data); err == nil {
		return []crypto.Signer{key}
	}
	if !bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") || block.Type == "OPENSSH PRIVATE KEY" { // an OpenSSH key does not show whether it is encrypted
			continue
		}
		key, err := pki.DecodeKey(pem.EncodeToMemory(block), nil)
		if errors.Is(err, pki.ErrPassphrase) || block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// isKeyOf reports whether key is the private key of the certificate.
func isKeyOf(key crypto.Signer, cert *x509.Certificate) bool {
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	return err == nil && bytes.Equal(pub, cert.RawSubjectPublicKeyInfo)
}
