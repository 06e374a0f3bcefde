package offline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"unicode"

	"peerlink/internal/excerpt"
)

// Bounds on requests and answers.
const (
	// MaxSize is the most bytes of a request or an answer. An item has some 10 KiB.
	// This and the bounds below keep what reading one needs below 32 MiB and half a
	// second.
	MaxSize = 2 << 20
	// MaxItems is the most certificates in one request.
	MaxItems = 25
	// maxUnpacked is how many bytes the info-bundles in a request may unpack to
	// together.
	maxUnpacked = 512 << 10
	// maxCommas bounds how many parts of any kind a file has. What it holds of
	// certificates and info-bundles has no commas.
	maxCommas = 10_000
	// maxPath bounds the name of a file to be made, in bytes.
	maxPath = 4096
	// maxJSONError bounds what is shown of an error of encoding/json, in bytes: it
	// quotes whole numbers of the file.
	maxJSONError = 200
)

const (
	requestFormat = "peerlink signing request"
	answerFormat  = "peerlink signing answer"
	version       = 1
)

var (
	// ErrFormat means that a file is not a request, or not an answer, or has
	// been damaged.
	ErrFormat = errors.New("not a usable file")
	// ErrClock means that this machine's clock is behind the machine's that
	// made the request.
	ErrClock = errors.New("the clock is wrong")
	// ErrNotWaiting means that the directory knows of no waiting request with
	// this ID.
	ErrNotWaiting = errors.New("no such request is waiting")
	// ErrMismatch means that an answer does not hold what was asked for.
	ErrMismatch = errors.New("the answer does not match the request")
)

// header is how both files begin.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	ID      string `json:"id"` // of the request: 32 random hex digits
}

// requestFile is the file of a request. Certificates and signing requests of
// the node itself are bytes, since they are compared and passed on as such.
type requestFile struct {
	header
	Created     string           `json:"created"` // RFC 3339, UTC, whole seconds
	NodeType    string           `json:"node_type"`
	NodeID      string           `json:"node_id"`
	Root        []byte           `json:"root_certificate"`
	RootCSR     []byte           `json:"root_csr,omitempty"` // absent: to be made, if there is an info-bundle
	ServerCerts []serverCertFile `json:"server_certs,omitempty"`
	PeerCerts   []peerCertFile   `json:"peer_certs,omitempty"`
	InfoBundle  *infoBundleFile  `json:"info_bundle,omitempty"`
}

type serverCertFile struct {
	Serial string `json:"serial"` // as db/serial has it
	CSR    string `json:"csr"`    // PEM
	Days   int    `json:"days"`
	File   string `json:"file"` // to be made on the online machine
}

type peerCertFile struct {
	Serial string `json:"serial"`
	Bundle []byte `json:"bundle"`           // the peer's info-bundle
	Subnet string `json:"subnet,omitempty"` // where the node is an accounting authority
}

type infoBundleFile struct {
	File     string         `json:"file"` // to be made on the online machine
	Nodeinfo []nodeinfoFile `json:"nodeinfo"`
}

type nodeinfoFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// answerFile is the file of an answer: what was asked for, in the same order.
type answerFile struct {
	header
	Request     string   `json:"request_sha256"` // of the request's bytes, in hex
	RootCSR     string   `json:"root_csr,omitempty"`
	ServerCerts []string `json:"server_certs,omitempty"` // PEM
	PeerCerts   []string `json:"peer_certs,omitempty"`   // PEM
	Nodeinfo    []byte   `json:"nodeinfo_zip,omitempty"`
	Signature   []byte   `json:"nodeinfo_signature,omitempty"`
}

// encode is the only way to write a content down that decode accepts.
func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	if data = append(data, '\n'); len(data) > MaxSize {
		return nil, fmt.Errorf("%d bytes, more than the %d that fit into one file: collect in several requests", len(data), MaxSize)
	}
	return data, nil
}

// withoutCR returns a file with the line ends that encode gives it: editors and
// shells of Windows write CRLF, and may add an empty line. No string in what encode
// writes has a line end in it that is not escaped.
func withoutCR(data []byte) []byte {
	if !bytes.Contains(data, []byte("\r\n")) {
		return data
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return append(bytes.TrimRight(data, "\n"), '\n')
}

// decode reads a file of the given format into v, whose header is h.
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
		return fmt.Errorf("it has version %d, and this program knows version %d only: use the same program on both machines", first.Version, version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errors.New(excerpt.Limit(err.Error(), maxJSONError))
	}
	// Unknown and repeated names, other letter case, and whatever else a JSON
	// reader forgives, do not survive this.
	if again, err := encode(v); err != nil || !bytes.Equal(again, data) {
		return errors.New("it has been changed since it was written, or has something in it that this program does not know")
	}
	if !isHex(h.ID, idDigits) {
		return fmt.Errorf("its ID is %q: expected %d lowercase hex digits", excerpt.Of(h.ID), idDigits)
	}
	return nil
}

// idDigits is the length of a request's ID.
const idDigits = 32

func isHex(s string, digits int) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == digits
}

// parseSerial reads a certificate's serial number, in the one form that
// serialHex gives it.
func parseSerial(s string) (*big.Int, error) {
	if len(s) <= 40 {
		n, ok := new(big.Int).SetString(s, 16)
		if ok && n.Sign() > 0 && n.BitLen() <= 159 && serialHex(n) == s {
			return n, nil
		}
	}
	return nil, fmt.Errorf("serial number %q: expected up to 20 bytes in upper case hex", excerpt.Of(s))
}

// serialHex writes a serial number as OpenSSL does: upper case, whole bytes.
func serialHex(n *big.Int) string {
	s := fmt.Sprintf("%X", n)
	if len(s)%2 == 1 {
		s = "0" + s
	}
	return s
}

// checkPath checks the name of a file to be made, which a person will be shown:
// nothing in it may play tricks with a terminal.
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
