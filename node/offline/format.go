package offline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"unicode"

	"peerlink/internal/excerpt"
	"peerlink/node/pki"
)

// Bounds on requests and answers.
const (
	// MaxSize is the maximum size of a request or an answer in bytes. An item has about 10
	// KiB. With this and the following bounds, reading a file needs less than 32 MiB and
	// half a second.
	MaxSize = 2 << 20
	// maxItems is the maximum number of certificates in one request. [Collect] counts the
	// info-bundle too.
	maxItems = 25
	// maxUnpacked is the maximum total size, in bytes, of the unpacked info-bundles in a
	// request.
	maxUnpacked = 512 << 10
	// maxCommas is the maximum number of commas in a file, which bounds the number of JSON
	// values. Certificates and info-bundles are encoded without commas.
	maxCommas = 10_000
	// maxPath is the maximum length, in bytes, of the path of an output file.
	maxPath = 4096
	// maxJSONError is the maximum length, in bytes, of the displayed part of an error of
	// encoding/json, which may quote long numbers of the file.
	maxJSONError = 200
)

const (
	requestFormat = "peerlink signing request"
	answerFormat  = "peerlink signing answer"
	version       = 1
)

var (
	// errFormat means that a file is not a request, or not an answer, has been damaged, or
	// has invalid content, such as an expired certificate.
	errFormat = errors.New("not a usable file")
	// errClock means that this machine's clock is behind that of the machine that made
	// the request.
	errClock = errors.New("the clock is wrong")
	// errNotWaiting means that the directory has no waiting request with this ID.
	errNotWaiting = errors.New("no such request is waiting")
	// errMismatch means that an answer does not match its request.
	errMismatch = errors.New("the answer does not match the request")
)

// header is the beginning of both files.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	ID      string `json:"id"` // of the request: 32 random hex digits
}

// requestFile is the file of a request. Certificates and signing requests are in PEM, without other text.
type requestFile struct {
	header
	Created     string           `json:"created"` // RFC 3339, UTC, whole seconds
	NodeType    string           `json:"node_type"`
	NodeID      string           `json:"node_id"`
	Root        []byte           `json:"root_certificate"`
	RootCSR     []byte           `json:"root_csr,omitempty"` // for an info-bundle; if missing, the offline machine makes it
	ServerCerts []serverCertFile `json:"server_certs,omitempty"`
	PeerCerts   []peerCertFile   `json:"peer_certs,omitempty"`
	InfoBundle  *infoBundleFile  `json:"info_bundle,omitempty"`
}

type serverCertFile struct {
	Serial string `json:"serial"` // in the format of db/serial
	CSR    string `json:"csr"`    // PEM
	Days   int    `json:"days"`
	File   string `json:"file"` // output file on the online machine
}

type peerCertFile struct {
	Serial string `json:"serial"`
	Bundle []byte `json:"bundle"`           // the peer's info-bundle
	Subnet string `json:"subnet,omitempty"` // if the node is an accounting authority

	Replaces *replacedFile `json:"replaces,omitempty"` // the peer whose place the new one takes
}

type replacedFile struct {
	Root       []byte `json:"root_certificate"` // PEM
	KeepSubnet bool   `json:"keep_subnet,omitempty"`
}

type infoBundleFile struct {
	File     string         `json:"file"` // output file on the online machine
	Nodeinfo []nodeinfoFile `json:"nodeinfo"`
}

type nodeinfoFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// answerFile is the file of an answer. Its items are in the order of the request.
type answerFile struct {
	header
	Request     string   `json:"request_sha256"` // of the request's bytes, in hex
	RootCSR     string   `json:"root_csr,omitempty"`
	ServerCerts []string `json:"server_certs,omitempty"` // PEM
	PeerCerts   []string `json:"peer_certs,omitempty"`   // PEM
	Nodeinfo    []byte   `json:"nodeinfo_zip,omitempty"`
	Signature   []byte   `json:"nodeinfo_signature,omitempty"`
}

// encode returns the encoding of v, the only one that decode accepts.
func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	if data = append(data, '\n'); len(data) > MaxSize {
		return nil, fmt.Errorf("the file would have %d bytes, more than %d: collect in several requests", len(data), MaxSize)
	}
	return data, nil
}

// decode decodes a file of the given format into v. h points to the header in v.
func decode(data []byte, format string, v any, h *header) error {
	if len(data) > MaxSize {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), MaxSize)
	}
	if n := bytes.Count(data, []byte(",")); n > maxCommas {
		return fmt.Errorf("it has %d commas, more than %d", n, maxCommas)
	}
	var first header
	if err := json.Unmarshal(data, &first); err != nil {
		return fmt.Errorf("expected a %s in JSON: %s", format, excerpt.Limit(err.Error(), maxJSONError))
	}
	if first.Format != format {
		return fmt.Errorf("it is a %q: expected a %s", excerpt.Of(first.Format), format)
	}
	if first.Version != version {
		return fmt.Errorf("it has version %d, and this program supports version %d only: use the same program on both machines", first.Version, version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errors.New(excerpt.Limit(err.Error(), maxJSONError))
	}
	// This refuses unknown and repeated names, names in another letter case, and
	// everything else that encoding/json tolerates.
	if encoded, err := encode(v); err != nil || !bytes.Equal(encoded, data) {
		return errors.New("it has been changed since it was written, or has something in it that this program does not support")
	}
	if !isHex(h.ID, idDigits) {
		return fmt.Errorf("its ID is %q: expected %d lowercase hex digits", excerpt.Of(h.ID), idDigits)
	}
	return nil
}

// idDigits is the number of hex digits of a request's ID.
const idDigits = 32

func isHex(s string, digits int) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == digits
}

// parseSerial parses a certificate's serial number, in the exact form that [pki.SerialHex]
// returns.
func parseSerial(s string) (*big.Int, error) {
	if len(s) <= 40 {
		n, ok := new(big.Int).SetString(s, 16)
		if ok && n.Sign() > 0 && n.BitLen() <= 159 && pki.SerialHex(n) == s {
			return n, nil
		}
	}
	return nil, fmt.Errorf("serial number %q: expected up to 20 bytes in upper case hex", excerpt.Of(s))
}

// checkPath checks the path of an output file, or the name of a nodeinfo file. It is displayed
// on a terminal, and must not have characters that change how text is displayed.
func checkPath(s string) error {
	if s == "" || len(s) > maxPath {
		return fmt.Errorf("a file name of %d bytes: expected 1 to %d", len(s), maxPath)
	}
	for _, c := range s {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return fmt.Errorf("file name %q: expected printable characters only", excerpt.Of(s))
		}
	}
	return nil
}
