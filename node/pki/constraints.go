package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	errConstraints = errors.New("nameConstraints extension not understood")
	errAltName     = errors.New("malformed subjectAltName extension")
)

// The tags of the choices of GeneralName (RFC 5280, section 4.2.1.6). The tag of
// directoryName is explicit, because Name is itself a CHOICE.
const (
	tagOtherName     = cbasn1.Tag(0xa0)
	tagEmail         = cbasn1.Tag(0x81)
	tagDNSName       = cbasn1.Tag(0x82)
	tagX400Address   = cbasn1.Tag(0xa3)
	tagDirectoryName = cbasn1.Tag(0xa4)
	tagEDIPartyName  = cbasn1.Tag(0xa5)
	tagURI           = cbasn1.Tag(0x86)
	tagIPAddress     = cbasn1.Tag(0x87)
	tagRegisteredID  = cbasn1.Tag(0x88)
)

// nameConstraints is the content of the extension (RFC 5280, section 4.2.1.10). A value
// of this type exists only if every part of the extension is supported.
type nameConstraints struct {
	permitted, excluded []generalName
}

// A generalName is one name, or the base of a subtree.
type generalName struct {
	tag   cbasn1.Tag
	dir   name   // if tag is tagDirectoryName
	value []byte // for other tags: the encoded content
}

// parseNameConstraints parses the value of the extension. It fails for constraints that
// neither this package nor crypto/x509 enforces: malformed or empty parts, minimum or
// maximum distances other than the default, and unsupported forms of names.
func parseNameConstraints(der []byte) (*nameConstraints, error) {
	s := cryptobyte.String(der)
	var seq, permitted, excluded cryptobyte.String
	var hasPermitted, hasExcluded bool
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() ||
		!seq.ReadOptionalASN1(&permitted, &hasPermitted, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!seq.ReadOptionalASN1(&excluded, &hasExcluded, cbasn1.Tag(1).ContextSpecific().Constructed()) ||
		!seq.Empty() {
		return nil, fmt.Errorf("%w: malformed", errConstraints)
	}
	if !hasPermitted && !hasExcluded || hasPermitted && permitted.Empty() || hasExcluded && excluded.Empty() {
		return nil, fmt.Errorf("%w: empty list of subtrees", errConstraints)
	}
	var nc nameConstraints
	var err error
	if nc.permitted, err = readSubtrees(permitted); err != nil {
		return nil, err
	}
	if nc.excluded, err = readSubtrees(excluded); err != nil {
		return nil, err
	}
	return &nc, nil
}

func readSubtrees(s cryptobyte.String) ([]generalName, error) {
	var bases []generalName
	for !s.Empty() {
		var seq cryptobyte.String
		if !s.ReadASN1(&seq, cbasn1.SEQUENCE) {
			return nil, fmt.Errorf("%w: malformed subtree", errConstraints)
		}
		base, err := readGeneralName(&seq)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errConstraints, err)
		}
		switch base.tag {
		case tagDirectoryName:
		case tagDNSName, tagEmail, tagURI, tagIPAddress: // crypto/x509 enforces these
		default:
			return nil, fmt.Errorf("%w: constraint on a form of name (tag 0x%02x) that can not be enforced", errConstraints, uint8(base.tag))
		}
		// DER omits a minimum of 0. An explicit 0 is accepted, as by OpenSSL.
		if tag := cbasn1.Tag(0).ContextSpecific(); seq.PeekASN1Tag(tag) {
			var minimum cryptobyte.String
			if !seq.ReadASN1(&minimum, tag) || !bytes.Equal(minimum, []byte{0}) {
				return nil, fmt.Errorf("%w: subtree with a minimum distance other than 0", errConstraints)
			}
		}
		if !seq.Empty() {
			return nil, fmt.Errorf("%w: subtree with a maximum distance or unknown content", errConstraints)
		}
		bases = append(bases, base)
	}
	return bases, nil
}

func readGeneralName(s *cryptobyte.String) (generalName, error) {
	var g generalName
	var value cryptobyte.String
	if !s.ReadAnyASN1(&value, &g.tag) {
		return g, errors.New("malformed name")
	}
	switch g.tag {
	case tagDirectoryName:
		var err error
		if g.dir, err = parseName(value); err != nil {
			return g, err
		}
	case tagOtherName, tagEmail, tagDNSName, tagX400Address, tagEDIPartyName, tagURI, tagIPAddress, tagRegisteredID:
		g.value = value
	default:
		return g, fmt.Errorf("unknown form of name (tag 0x%02x)", uint8(g.tag))
	}
	return g, nil
}

// marshal returns the DER of the extension's value.
func (nc *nameConstraints) marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for i, bases := range [][]generalName{nc.permitted, nc.excluded} {
			if len(bases) == 0 {
				continue
			}
			b.AddASN1(cbasn1.Tag(i).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				for _, base := range bases {
					b.AddASN1(cbasn1.SEQUENCE, base.marshal)
				}
			})
		}
	})
	return b.Bytes()
}

func (g generalName) marshal(b *cryptobyte.Builder) {
	b.AddASN1(g.tag, func(b *cryptobyte.Builder) {
		if g.tag == tagDirectoryName {
			g.dir.marshal(b)
		} else {
			b.AddBytes(g.value)
		}
	})
}

// check checks that the constraints on directory names allow a certificate with these names.
// A name within a subtree begins with the attributes of its base. If it cannot be decided
// whether it does, the name is refused. check also refuses an emailAddress attribute if there
// are constraints on e-mail addresses.
func (nc *nameConstraints) check(names *certNames) error {
	for _, n := range names.directory() {
		within, constrained := false, false
		for _, base := range nc.permitted {
			if base.tag == tagDirectoryName {
				constrained = true
				within = within || base.dir.contains(n) == equals
			}
		}
		if constrained && !within {
			return fmt.Errorf("the name %v is not permitted by the name constraints of a CA certificate", n)
		}
		for _, base := range nc.excluded {
			if base.tag == tagDirectoryName && base.dir.contains(n) != differs {
				return fmt.Errorf("the name %v is excluded by the name constraints of a CA certificate", n)
			}
		}
	}
	// RFC 5280 applies e-mail constraints also to emailAddress attributes in the
	// subject, but crypto/x509 does not.
	if names.subject.has(oidEmailAddress) {
		isEmail := func(g generalName) bool { return g.tag == tagEmail }
		if slices.ContainsFunc(nc.permitted, isEmail) || slices.ContainsFunc(nc.excluded, isEmail) {
			return errors.New("an emailAddress attribute in the subject, under a constraint on e-mail addresses, is not supported")
		}
	}
	return nil
}

// certNames are the properties of a certificate that matter for name constraints.
type certNames struct {
	subject     name
	alt         []generalName    // subjectAltName
	selfIssued  bool             // issuer and subject are the same name
	constraints *nameConstraints // nil if the certificate has none
}

// directory returns the names to which directoryName constraints apply: the subject, if
// it is not empty, and the directory names in subjectAltName.
func (c *certNames) directory() []name {
	var names []name
	if len(c.subject) > 0 {
		names = append(names, c.subject)
	}
	for _, g := range c.alt {
		if g.tag == tagDirectoryName {
			names = append(names, g.dir)
		}
	}
	return names
}

// size returns the number of names and subtrees, which determines the cost of checking
// constraints.
func (c *certNames) size() int {
	n := 1 + len(c.alt)
	if c.constraints != nil {
		n += len(c.constraints.permitted) + len(c.constraints.excluded)
	}
	return n
}

func namesOf(cert *x509.Certificate) (*certNames, error) {
	var c certNames
	var err error
	if c.subject, err = parseName(cert.RawSubject); err != nil {
		return nil, err
	}
	issuer, err := parseName(cert.RawIssuer)
	if err != nil {
		return nil, err
	}
	c.selfIssued = c.subject.compare(issuer) == equals
	for _, ext := range cert.Extensions {
		switch {
		case ext.Id.Equal(oidNameConstraints):
			// A second extension would replace the first. The parser of crypto/x509
			// refuses that, but a Certificate may have been made without the parser.
			if c.constraints != nil {
				return nil, fmt.Errorf("%w: two of them", errConstraints)
			}
			c.constraints, err = parseNameConstraints(ext.Value)
		case ext.Id.Equal(oidSubjectAltName):
			if c.alt != nil {
				return nil, fmt.Errorf("%w: two of them", errAltName)
			}
			c.alt, err = parseAltName(ext.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func parseAltName(der []byte) ([]generalName, error) {
	s := cryptobyte.String(der)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() || seq.Empty() {
		return nil, errAltName
	}
	var names []generalName
	for !seq.Empty() {
		g, err := readGeneralName(&seq)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errAltName, err)
		}
		names = append(names, g)
	}
	return names, nil
}

// checkConstraints applies every constraint in the chain, which begins with the leaf, to
// the certificates below the one with the constraint, except self-issued intermediates
// (RFC 5280, section 6.1). The leaf is checked even if it is self-issued. Applying
// all constraints one after the other is equivalent to the intersection of the permitted
// and the union of the excluded subtrees. If a certificate violates a constraint,
// checkConstraints returns an error, and the index of the certificate in the chain.
func checkConstraints(chain []*certNames) (int, error) {
	for i, c := range chain {
		if i > 0 && c.selfIssued {
			continue
		}
		for _, above := range chain[i+1:] {
			if above.constraints == nil {
				continue
			}
			if err := above.constraints.check(c); err != nil {
				return i, err
			}
		}
	}
	return 0, nil
}
