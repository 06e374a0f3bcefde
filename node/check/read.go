package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/pki"
)

// Bounds on the size of files in bytes, far above the size of legitimate files.
const (
	maxFile  = 1 << 20
	maxIndex = 64 << 20 // db/index has a line for every certificate ever signed
)

// errNotRegular is returned for files that are not regular. For example, opening a
// named pipe would block.
var errNotRegular = errors.New("not a regular file")

// regularFiles are the patterns of the files of a node's directory that must be regular files,
// and that are searched for the marks of merge conflicts. They include files of which only the
// existence matters, and files that only OpenSSL reads. Private keys, and the other files in
// nodeinfo/, are not among them.
var regularFiles = []string{
	".gitignore", "root-ca.crt", "root-ca.conf", "creditors-subnet.txt", "debtors-subnet.txt",
	"db/nodetype", "db/nodeid", "db/index", "db/index.attr", "db/serial", "db/crlnumber", "db/root-ca.csr",
	"db/info-bundle.zip", node.DrillFile, "db/subnets/creditors/*", "db/subnets/debtors/*", "certs/*.pem",
	"db/removed/*/revoked-keys.txt", "db/removed/*/nodeinfo/updated-at.txt",
	"nodeinfo/stomp.toml", "nodeinfo/updated-at.txt",
	"peers/*/nodetype.txt", "peers/*/*.crt", "peers/*/subnet.txt", "peers/*/masq-subnet.txt", "peers/*/queues.txt",
	"peers/*/ACTIVE", "peers/*/DEACTIVATED", "peers/*/SUSPENDED", "peers/*/SUCCESSOR", "peers/*/revoked-keys.txt", "nodeinfo/revoked-keys.txt", "peers/*/nodeinfo/revoked-keys.txt", "peers/*/NOFOLLOW", "peers/*/nodeinfo/stomp.toml", "peers/*/nodeinfo/updated-at.txt",
}

// mustBeRegular reports whether name, relative to the directory, must be a regular file
// if it exists.
func mustBeRegular(name string) bool {
	return slices.ContainsFunc(regularFiles, func(pattern string) bool {
		matched, _ := path.Match(pattern, name)
		return matched
	})
}

// readPath reads a regular file of up to limit bytes.
func readPath(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %d bytes, which no file here should be", limit)
	}
	return data, err
}

// read returns the content of a file of the directory, and whether it could be read.
// If the file exists but can not be read, read adds a finding.
func (c *checker) read(file string) (data []byte, ok bool) { return c.readUpTo(file, maxFile) }

func (c *checker) readUpTo(file string, most int64) (data []byte, ok bool) {
	data, err := readPath(c.path(file), most)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.problem(file, RuleUnreadable, "can not be read: %v", reason(err))
		}
		return nil, false
	}
	return data, true
}

// text is like [checker.read] for text files, which may have a byte order mark. If the
// file is not text, text adds a finding with the given rule.
func (c *checker) text(file string, rule Rule) (data []byte, ok bool) {
	data, ok = c.read(file)
	if !ok {
		return nil, false
	}
	return c.decode(file, data, rule)
}

// decode returns the text in data, the content of a file. If data is not text, decode
// adds a finding with the given rule.
func (c *checker) decode(file string, data []byte, rule Rule) (text []byte, ok bool) {
	text, err := textfile.Decode(data)
	if err != nil {
		c.problem(file, rule, "%v", err)
		return nil, false
	}
	c.checkMark(file, data)
	return text, true
}

func (c *checker) checkMark(file string, data []byte) {
	if textfile.HasMark(data) {
		c.warning(file, RuleByteOrderMark, "begins with a byte order mark, which OpenSSL and the reference do not expect: save it as UTF-8 without one")
	}
}

// line reads a file that holds one line. If there are more lines, line returns all of
// them, and the check of the content refuses them.
func (c *checker) line(file string) (s string, ok bool) {
	data, ok := c.text(file, RuleUnreadable)
	return c.trimLineEnd(file, data), ok
}

// trimLineEnd removes the line end of the only line of a file. It adds a finding for CR LF unless
// the programs that read the file ignore the CR.
func (c *checker) trimLineEnd(file string, data []byte) string {
	line, hasCR := strings.CutSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if hasCR && !ignoresCR[path.Base(file)] {
		c.warning(file, RuleLineEnds, "ends with CR LF, as files of Windows do: the reference's scripts take the CR for a part of the value, and fail or pass it on; make it LF, for example with \"dos2unix\"")
	}
	return line
}

// ignoresCR has the names of those files with one line that only openssl reads, which ignores the
// CR, or nobody.
var ignoresCR = map[string]bool{"serial": true, "index.attr": true, "DEACTIVATED": true}

// certificate returns the certificate in a file, or nil if the file is missing or
// invalid. It adds a finding if the file is invalid, but not if it is missing: the
// caller decides whether the file is required.
func (c *checker) certificate(file string) *x509.Certificate {
	return c.certificateOr(file, "")
}

// certificateOr is like [checker.certificate]. The finding about a damaged file ends with the
// given remedy.
func (c *checker) certificateOr(file, remedy string) *x509.Certificate {
	data, ok := c.read(file)
	if !ok {
		return nil
	}
	if remedy != "" {
		remedy = "; " + remedy
	}
	text, err := textfile.Decode(data)
	if err != nil {
		c.problem(file, RuleCertPEM, "%v%s", err, remedy)
		return nil
	}
	c.checkMark(file, data)
	cert, err := pki.ParseCertificatePEM(text)
	if err != nil {
		c.problem(file, RuleCertPEM, "%v%s", err, remedy)
		return nil
	}
	return cert
}

func (c *checker) parse(file string, data []byte) *x509.Certificate {
	cert, err := pki.ParseCertificatePEM(data)
	if err != nil {
		c.problem(file, RuleCertPEM, "%v", err)
		return nil
	}
	return cert
}

// exists reports whether a file or folder exists. It returns true if that can not be
// determined.
func (c *checker) exists(file string) bool {
	_, err := os.Stat(c.path(file))
	return !errors.Is(err, fs.ErrNotExist)
}

// list returns the names in a folder, without those that begin with a dot. If the
// folder does not exist, the result is empty.
func (c *checker) list(folder string) []string {
	entries, err := os.ReadDir(c.path(folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.problem(folder, RuleUnreadable, "can not be read: %v", reason(err))
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, ".") })
}

func (c *checker) isDir(file string) bool {
	fi, err := os.Stat(c.path(file))
	return err == nil && fi.IsDir()
}

// conflictMark matches the marks that git writes into a file around the two versions of a merge
// conflict.
var conflictMark = regexp.MustCompile(`(?m)^(<<<<<<<|>>>>>>>)( |\r?$)`)

// checkConflictMarks adds a finding if a file has the marks of a merge conflict.
func (c *checker) checkConflictMarks(file string, data []byte) {
	if !conflictMark.Match(data) {
		return
	}
	remedy := "keep one of the two versions, and remove the marks (\"git checkout --ours\" and \"--theirs\" take one as a whole)"
	if file == "db/index" {
		remedy = "keep the lines of both versions, and remove the marks"
	}
	c.problem(file, RuleConflict, "has the marks of a merge conflict in git (<<<<<<<, =======, >>>>>>>): %s", remedy)
}

// reason returns the error without the path, which is part of the finding already.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// firstLine returns the beginning of the first line of s, for quoting the content of a
// file. More must not be quoted: the file may even be a key in the wrong place.
func firstLine(s string) string {
	const most = 64
	line, _, more := strings.Cut(s, "\n")
	if more && len(line) <= most {
		return line + "…"
	}
	return excerpt.Limit(line, most)
}
