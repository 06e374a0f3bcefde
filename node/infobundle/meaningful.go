package infobundle

import (
	"fmt"
	"strings"

	"peerlink/internal/excerpt"
)

// Maximum sizes in bytes of nodeinfo files that have a meaning. [Read] applies them to a bundle, and
// package node when it reads the files from a node's directory, so that nothing is taken over from a
// bundle that can not be read afterwards.
const (
	MaxStompTOML   = 64 << 10
	MaxUpdatedAt   = 1 << 10
	MaxRevokedKeys = 64 << 10
)

// meaningful maps the names of the nodeinfo files that have a meaning to their maximum sizes.
var meaningful = map[string]int{StompTOML: MaxStompTOML, UpdatedAt: MaxUpdatedAt, RevokedKeys: MaxRevokedKeys}

// checkMeaningful checks that what has the name of a nodeinfo file with a meaning is a file, and not
// too large. On some systems names that differ only in letter case are the same, so such a name must
// be spelled exactly.
func checkMeaningful(files []File) error {
	for _, f := range files {
		first, _, isFolder := strings.Cut(f.Name, "/")
		name := strings.ToLower(first)
		switch most, ok := meaningful[name]; {
		case !ok:
		case isFolder:
			return fmt.Errorf("%s is a folder: expected a file", name)
		case first != name:
			return fmt.Errorf("it has a file %q: expected the name in lower case, %s", excerpt.Of(first), name)
		case len(f.Data) > most:
			return fmt.Errorf("%s has %d bytes, more than %d", name, len(f.Data), most)
		}
	}
	return nil
}
