package keyshare

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"peerlink/internal/excerpt"
)

// ShareLines is the number of lines of the share itself, without the sealed key. To restore a key,
// all lines of one page have to be typed, but only the first ShareLines lines of the other pages.
const ShareLines = shareSize / lineData

// maxLines is the number of lines of the longest share.
const maxLines = ShareLines + (maxSealedKey+lineData-1)/lineData

// maxText is the maximum size in bytes of the text of a share. The longest share has five
// kilobytes of words.
const maxText = 64 << 10

// qrPrefix is the beginning of the QR text of a share. The version follows.
const qrPrefix = "PEERLINK-SHARE-"

// errSeveral is returned for the text of several shares.
var errSeveral = fmt.Errorf("%w but several: expected one share at a time, each in a file of its own", errNotShare)

const qrCheckSize = crc32.Size

var qrEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// lines returns the lines of words of the share itself, followed by those of the sealed key if
// the share has it.
func (s *Share) lines() [][]string {
	data := s.encode()
	if s.sealedKey != nil {
		data = append(data, s.sealedKey.raw...)
		if over := len(data) % lineData; over > 0 {
			data = append(data, make([]byte, lineData-over)...)
		}
	}
	var lines [][]string
	for chunk := range slices.Chunk(data, lineData) {
		lines = append(lines, encodeLine(len(lines)+1, chunk))
	}
	return lines
}

// Text returns the share as numbered lines of words, after some lines with a description.
// [Parse] parses it.
func (s *Share) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Share %d of %d of a root key. Any %d of these shares restore it, with its passphrase.\n", s.index, s.total, s.threshold)
	fmt.Fprintf(&b, "Split: %v\n", s.split)
	if k := s.sealedKey; k != nil {
		fmt.Fprintf(&b, "Node: %v\nRoot key: %v\nMade on: %s\n", k.node, k.fingerprint, k.date().Format("2006-01-02"))
	}
	for i, words := range s.lines() {
		if i == 0 || i == ShareLines {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%2d  %s\n", i+1, strings.Join(words, " "))
	}
	return b.String()
}

// heading matches a line above the words, in the result of [Share.Text] or on a page.
var heading = regexp.MustCompile(`^(Share [0-9]+ of [0-9]+ of a root key\.|(Split|Node|Root key|Made on): |(This share|The sealed key): lines )`)

// IsHeading reports whether a line is a heading that [Share.Text] and [Share.PDF] write above
// the words.
func IsHeading(line string) bool { return heading.MatchString(strings.TrimSpace(line)) }

// QRText returns the content of the share's QR code: capital letters, digits, hyphens and a
// colon. [Parse] parses it.
func (s *Share) QRText() string {
	data := s.encode()
	if s.sealedKey != nil {
		data = append(data, s.sealedKey.raw...)
	}
	data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))
	return qrPrefix + strconv.Itoa(formatVersion) + ":" + qrEncoding.EncodeToString(data)
}

// Parse parses a share: the content of its QR code, or its lines of words.
//
// Lines may be numbered, as on the page. In that case they can be in any order, and lines
// without a number are ignored. In the text of a whole page, copied from a PDF, the words may
// be ordered by row or by column. Without numbers, the text must be the lines of the page in
// order, and nothing else. The first [ShareLines] lines are sufficient for a share without the
// sealed key.
//
// If a line is wrong, the error has its number, and possibly secret words of the line, as that
// of [CheckLine]. If lines are missing, the error wraps [ErrIncomplete]. If decrypting the sealed
// key would be too expensive, it wraps [pki.ErrKeyCost].
func Parse(text string) (*Share, error) {
	if strings.HasPrefix(text, pdfMagic) {
		return nil, errPDF
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", errNotShare, len(text), maxText)
	}
	if version, encoded, ok := findQR(strings.ToUpper(text)); ok {
		if _, _, second := findQR(encoded); second {
			return nil, errSeveral
		}
		return parseQR(version, encoded)
	}
	if hasSeveralShares(text) {
		return nil, errSeveral
	}
	typed, err := findLines(text)
	if err == nil {
		var s *Share
		if s, err = parseLines(typed); err == nil {
			return s, nil
		}
	}
	if !isPage(text) {
		return nil, err
	}
	if pasted := pastedLines(text); pasted != nil {
		return parseLines(pasted)
	}
	if inOrder(text) {
		return nil, err // a word is wrong
	}
	return nil, errOrder
}

// title matches the title of a share, in the result of [Share.Text] or on a page.
var title = regexp.MustCompile(`\bShare\s+([0-9]+)\s+of\s+[0-9]+\b`)

// hasSeveralShares reports whether a text has the titles of different shares.
func hasSeveralShares(text string) bool {
	first := ""
	for _, m := range title.FindAllStringSubmatch(text, -1) {
		if first == "" {
			first = m[1]
		}
		if m[1] != first {
			return true
		}
	}
	return false
}

// findQR finds the text of a QR code, and returns its version, which is in front of the colon,
// and the rest after the colon.
func findQR(text string) (version, encoded string, ok bool) {
	for {
		_, rest, found := strings.Cut(text, qrPrefix)
		if !found {
			return "", "", false
		}
		afterVersion := strings.TrimLeft(rest, "0123456789")
		version := rest[:len(rest)-len(afterVersion)]
		if encoded, ok := strings.CutPrefix(afterVersion, ":"); ok && version != "" {
			return version, encoded, true
		}
		text = rest
	}
}

func parseQR(version, encoded string) (*Share, error) {
	if version != strconv.Itoa(formatVersion) {
		return nil, fmt.Errorf("%w: version %s: expected %d: use a later version of peerlink", errVersion, excerpt.Limit(version, maxShown), formatVersion)
	}
	// The line may have been wrapped, for example by a mail program.
	encoded = strings.Join(strings.Fields(encoded), "")
	data, err := qrEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: after %s%d: expected letters A to Z and digits 2 to 7 only, and one share at a time", errNotShare, qrPrefix, formatVersion)
	}
	if len(data) > shareSize+maxSealedKey+qrCheckSize {
		return nil, fmt.Errorf("%w: %d bytes: expected at most %d", errNotShare, len(data), shareSize+maxSealedKey+qrCheckSize)
	}
	end := len(data) - qrCheckSize
	if end < shareSize || crc32.ChecksumIEEE(data[:end]) != binary.BigEndian.Uint32(data[end:]) {
		return nil, fmt.Errorf("%w: the checksum of the scanned text is wrong: scan it again, or type the words", errNotShare)
	}
	if end == shareSize {
		return decodeShare(data[:end], nil)
	}
	return decodeShare(data[:shareSize], data[shareSize:end])
}

// parseLines parses a share from its lines of words, by number.
func parseLines(typed map[int][]string) (*Share, error) {
	numbers := slices.Sorted(maps.Keys(typed))
	decoded := make(map[int][]byte)
	var err error
	for _, n := range numbers {
		if decoded[n], err = decodeLine(n, typed[n]); err != nil {
			return nil, err
		}
	}
	// From here on, all lines are valid, but they may be from different pages.
	last := numbers[len(numbers)-1]
	if err := checkVersion(decoded[1]); err != nil {
		return nil, err
	}
	share, err := join(decoded, 1, ShareLines)
	if err != nil {
		return nil, err
	}
	if last <= ShareLines {
		return decodeShare(share, nil)
	}
	const headerLines = (headerSize + lineData - 1) / lineData
	start, err := join(decoded, ShareLines+1, ShareLines+headerLines)
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(start)
	if err != nil {
		return nil, err
	}
	end := ShareLines + (h.sealedKeySize()+lineData-1)/lineData
	if last > end {
		return nil, &lineError{last, fmt.Sprintf("this share ends with line %d", end)}
	}
	sealed, err := join(decoded, ShareLines+1, end)
	if err != nil {
		return nil, err
	}
	sealed, padding := sealed[:h.sealedKeySize()], sealed[h.sealedKeySize():]
	if bytes.Count(padding, []byte{0}) != len(padding) {
		return nil, &lineError{end, "expected zeros at its end"}
	}
	return decodeShare(share, sealed)
}

// findLines returns the words of each line, by the number of the line. If it does not fail,
// there is at least one line, and no number is greater than maxLines.
func findLines(text string) (map[int][]string, error) {
	numbered := make(map[int][]string)
	var unnumbered [][]string
	for line := range strings.Lines(text) {
		n, words := splitLine(line)
		switch {
		case len(words) == 0: // an empty line
		case n > maxLines && len(words) == lineWords && wordIndex(words[0]) >= 0:
			return nil, &lineError{n, fmt.Sprintf("no share has such a line: expected 1 to %d", maxLines)}
		case n > maxLines: // not a line of words
		case n == 0:
			unnumbered = append(unnumbered, words)
		case numbered[n] != nil:
			return nil, &lineError{n, "given twice: expected one share at a time"}
		default:
			numbered[n] = words
		}
	}
	if len(numbered) > 0 {
		return numbered, nil
	}
	if len(unnumbered) == 1 {
		// All words are in one line.
		unnumbered = slices.Collect(slices.Chunk(unnumbered[0], lineWords))
	}
	if len(unnumbered) == 0 || len(unnumbered) > maxLines {
		return nil, fmt.Errorf("%w: %d lines of words: expected %d to %d", errNotShare, len(unnumbered), ShareLines, maxLines)
	}
	for i, words := range unnumbered {
		numbered[i+1] = words
	}
	return numbered, nil
}

// join returns the bytes of the lines with the numbers from first to last. If lines are
// missing, the error wraps [ErrIncomplete] and has their numbers.
func join(lines map[int][]byte, first, last int) ([]byte, error) {
	var data []byte
	var missing []string
	for n := first; n <= last; n++ {
		if lines[n] == nil {
			missing = append(missing, strconv.Itoa(n))
		}
		data = append(data, lines[n]...)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: of the lines %d to %d, these are missing: %s", ErrIncomplete, first, last, strings.Join(missing, " "))
	}
	return data, nil
}
