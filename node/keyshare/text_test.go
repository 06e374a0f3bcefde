package keyshare

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"peerlink/internal/costtest"
	"peerlink/node/pki"
)

// Parse returns the same share in whatever form a page is typed, pasted or scanned,
// if the words are right.
func TestParse(t *testing.T) {
	share := sharesOf(t, p256(), 3, 2)[1]
	text := share.Text()
	numbered := numberedLines(text)
	var bare []string
	for _, line := range numbered {
		bare = append(bare, strings.Join(wordsOf(line), " "))
	}
	number := func(format string) string {
		var b strings.Builder
		for i, line := range bare {
			fmt.Fprintf(&b, format, i+1, line)
		}
		return b.String()
	}
	backwards := slices.Clone(numbered)
	slices.Reverse(backwards)
	scanned := share.QRText()
	for what, in := range map[string]string{
		"text":                  text,
		"CRLF":                  strings.ReplaceAll(text, "\n", "\r\n"),
		"capitals":              strings.ToUpper(text),
		"numbered lines":        strings.Join(numbered, "\n"),
		"backwards":             strings.Join(backwards, "\n"),
		"bare words":            strings.Join(bare, "\n"),
		"blank lines":           "\n\n " + strings.Join(bare, "\n\n\t\n") + "\n\n",
		"all in one line":       strings.Join(bare, " "),
		"hyphens":               strings.ReplaceAll(strings.Join(bare, "\n"), " ", " - "),
		"numbers with dots":     number("%d. %s\n"),
		"numbers in brackets":   number("(%02d) %s.\n"),
		"numbers with colons":   number("\t%d:%s\n"),
		"text around it":        "Dear Bob,\n\nthis is from 2026-11-23:\n" + number("> %d %s\n") + "\n-- \nAlice, 2000 Main Street\n",
		"a file name around it": "peerlink-share-2.txt:\n" + text,
		"scanned":               scanned,
		"scanned, small":        strings.ToLower(scanned),
		"scanned, with more":    "qr-code:" + scanned + "\r\n",
		"scanned, broken":       scanned[:100] + "\n  " + scanned[100:200] + "\r\n" + scanned[200:] + "\n\n",
	} {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if !sameShare(got, share) {
			t.Errorf("%s: another share", what)
		}
	}
	own := ownOnly(share)
	for what, in := range map[string]string{
		"first lines":    strings.Join(bare[:ShareLines], "\n"),
		"numbered lines": strings.Join(numbered[:ShareLines], "\n"),
		"text":           own.Text(),
		"scanned":        own.QRText(),
	} {
		if got, err := Parse(in); err != nil || !sameShare(got, own) {
			t.Errorf("%s without the sealed key: got %v, %v", what, got, err)
		}
	}
}

// A wrong word in any line is detected, and the error names the line.
func TestEveryLineIsChecked(t *testing.T) {
	t.Parallel()
	share := sharesOf(t, p256(), 3, 2)[1]
	lines := numberedLines(share.Text())
	for i := range lines {
		for j := range lineWords {
			words := wordsOf(lines[i])
			words[j] = wordList()[(wordIndex(words[j])+1+i*j)%wordCount]
			typed := slices.Clone(lines)
			typed[i] = fmt.Sprintf("%d %s", i+1, strings.Join(words, " "))
			_, err := Parse(strings.Join(typed, "\n"))
			if at := new(lineError); !errors.As(err, &at) || at.Line != i+1 {
				t.Errorf("word %d of line %d: got %v", j+1, i+1, err)
			}
		}
	}
}

// Text that is not exactly a share is refused, with an error that names the wrong
// line or the missing lines.
func TestParseRefuses(t *testing.T) {
	share := sharesOf(t, p256(), 3, 2)[1]
	other := sharesOf(t, p256(), 3, 2)[1]
	lines, otherLines := numberedLines(share.Text()), numberedLines(other.Text())
	join := func(parts ...[]string) string { return strings.Join(slices.Concat(parts...), "\n") }
	bare := func(lines []string) string {
		var b strings.Builder
		for _, line := range lines {
			b.WriteString(strings.Join(wordsOf(line), " ") + "\n")
		}
		return b.String()
	}
	n := len(lines)
	scanned := share.QRText()
	for _, tt := range []struct {
		what, text string
		want       error // nil for a *lineError
		errText    string
	}{
		{"nothing", "", errNotShare, "0 lines"},
		{"white space", " \n\t\n", errNotShare, "0 lines"},
		{"punctuation", "?!\n", errNotShare, "0 lines"},
		{"another text", "Once upon a time", nil, "line 1: words found: 4"},
		{"far too much", strings.Repeat("abacus\n", 10_000), errNotShare, "70000 bytes"},
		{"too many lines", strings.Repeat("abacus abacus\n", 100), errNotShare, "100 lines"},
		{"the first four lines", join(lines[:4]), ErrIncomplete, "missing: 5"},
		{"the first four lines, bare", bare(lines[:4]), ErrIncomplete, "missing: 5"},
		{"no third line", join(lines[:2], lines[3:]), ErrIncomplete, "missing: 3"},
		{"no third line, bare", bare(append(slices.Clone(lines[:2]), lines[3:]...)), nil, "line 3: these are the words of line 4"},
		{"no seventh line", join(lines[:6], lines[7:]), ErrIncomplete, "missing: 7"},
		{"no lines of its own", join(lines[5:]), ErrIncomplete, "missing: 1 2 3 4 5"},
		{"cut off in the sealed key", join(lines[:6]), ErrIncomplete, "missing: 7 8"},
		{"cut off near the end", join(lines[:n-2]), ErrIncomplete, fmt.Sprintf("missing: %d %d", n-1, n)},
		{"cut off in a line", join(lines)[:len(join(lines))-1-len(wordsOf(lines[n-1])[7])], nil, fmt.Sprintf("line %d: words found: 7", n)},
		{"a line twice", join(lines, lines[3:4]), nil, "line 4: given twice"},
		{"two shares", join(lines, otherLines), nil, "line 1: given twice"},
		{"a line too many", join(lines, []string{fmt.Sprint(n+1, " ", strings.Join(encodeLine(n+1, make([]byte, lineData)), " "))}), nil,
			fmt.Sprintf("line %d: this share ends with line %d", n+1, n)},
		{"a line that no share has", join(lines, []string{"99 " + strings.Join(wordsOf(lines[0]), " ")}), nil, "line 99: no share has such a line"},
		{"two lines exchanged, bare", bare(slices.Concat(lines[:2], lines[3:4], lines[2:3], lines[4:])), nil, "line 3: these are the words of line 4"},
		{"a line of another share", join(lines[:3], otherLines[3:4], lines[4:]), errAltered, ""},
		{"the sealed key of another split", join(lines[:5], otherLines[5:]), errMixed, other.SplitID()},
		{"scanned, cut off", scanned[:len(scanned)-9], errNotShare, ""},
		{"scanned, prefix only", qrPrefix + "1:", errNotShare, "checksum"},
		{"scanned, one letter wrong", scanned[:99] + map[bool]string{true: "B", false: "A"}[scanned[99] == 'A'] + scanned[100:], errNotShare, ""},
		{"scanned, with text after it", scanned + "\nhello!", errNotShare, "one share at a time"},
		{"scanned, too long", qrPrefix + "1:" + strings.Repeat("A", 4000), errNotShare, "2500 bytes"},
		{"two scanned", scanned + "\n" + scanned, errNotShare, "one share at a time"},
		{"scanned, a later version", strings.Replace(scanned, "-1:", "-2:", 1), errVersion, "version 2"},
		{"scanned, an absurd version", qrPrefix + strings.Repeat("9", 1000) + ":", errVersion, "99…"},
	} {
		share, err := Parse(tt.text)
		var at *lineError
		if err == nil || share != nil {
			t.Errorf("%s: got %v", tt.what, share)
		} else if tt.want == nil && !errors.As(err, &at) || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.errText) {
			t.Errorf("%s: got %v, want %v with %q", tt.what, err, tt.want, tt.errText)
		}
		if err != nil && len(err.Error()) > 250 {
			t.Errorf("%s: an error of %d bytes", tt.what, len(err.Error()))
		}
	}
}

// scan returns QR text of any bytes, with the right checksum.
func scan(own, sealed []byte) string {
	data := slices.Concat(own, sealed)
	data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))
	return "PEERLINK-SHARE-1:" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(data)
}

// The change of a single byte of a page is detected even if all checksums are
// changed with it: by Parse or else by Combine, with the sealed key or without it.
func TestEveryByteCounts(t *testing.T) {
	shares := sharesOf(t, p256(), 3, 2)
	victim, rest := shares[1], shares[2:]
	own, sealed := victim.encode(), victim.sealedKey.raw
	for i := range len(own) + len(sealed) {
		for _, flip := range []byte{0x01, 0x02, 0x80, 0xff} {
			data := slices.Concat(own, sealed)
			data[i] ^= flip
			if s, err := Parse(scan(data[:shareSize], data[shareSize:])); err == nil {
				t.Errorf("byte %d, changed by %02x: read as %v", i, flip, s)
			}
			if i >= shareSize {
				continue
			}
			s, err := Parse(scan(data[:shareSize], nil))
			if err != nil {
				continue
			}
			if _, err := Combine(append([]*Share{s}, rest...)); err == nil {
				t.Errorf("byte %d, changed by %02x: combined as %v", i, flip, s)
			}
		}
	}
}

// The values in a sealed key, which may be forged, are checked before any costly
// operation, also if the split ID of the share is the right hash of the sealed key.
func TestHeaderBounds(t *testing.T) {
	share := sharesOf(t, p256(), 3, 2)[0]
	for _, tt := range []struct {
		what string
		at   int
		to   []byte
		want error
	}{
		{"no node type", 0, []byte{0}, errNotShare},
		{"fourth node type", 0, []byte{4}, errNotShare},
		{"an agent with a chosen ID", 1, []byte{0, 0, 0, 1}, errNotShare},
		{"threshold 1", 23, []byte{1}, errNotShare},
		{"threshold above total", 23, []byte{4}, errNotShare},
		{"17 shares", 24, []byte{17}, errNotShare},
		{"scrypt for 2 GiB", 25, []byte{21}, pki.ErrKeyCost},
		{"scrypt with the highest parameter", 25, []byte{255}, pki.ErrKeyCost},
		{"scrypt with a parameter below the minimum", 25, []byte{9}, errNotShare},
		{"a ciphertext that is too short", 26, []byte{0, 16}, errNotShare},
		{"a ciphertext that is too long", 26, []byte{2, 17}, errNotShare},
		{"a ciphertext longer than the data", 26, []byte{0, 49}, errNotShare},
		{"a ciphertext shorter than the data", 26, []byte{0, 47}, errNotShare},
		{"another threshold than on the share", 23, []byte{3}, errAltered},
		{"another hash than the share's", headerSize, []byte{1, 2, 3, 4, 5, 6, 7, 8}, errAltered},
	} {
		raw := slices.Clone(share.sealedKey.raw)
		copy(raw[tt.at:], tt.to)
		forged := *share
		forged.split = (&sealedKey{raw: raw}).splitID()
		if s, err := Parse(scan(forged.encode(), raw)); s != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}
	for _, cut := range []int{0, 1, headerSize - 1, headerSize, len(share.sealedKey.raw) - 1} {
		raw := share.sealedKey.raw[:cut]
		forged := *share
		forged.split = (&sealedKey{raw: raw}).splitID()
		if s, err := Parse(scan(forged.encode(), raw)); cut > 0 && (s != nil || !errors.Is(err, errNotShare)) {
			t.Errorf("%d bytes of the sealed key: got %v, %v", cut, s, err)
		}
	}
}

// The padding of the last line must be zeros, so that a share has only one text.
func TestPadding(t *testing.T) {
	share := sharesOf(t, p256(), 2, 2)[0]
	lines := numberedLines(share.Text())
	data, err := decodeLine(len(lines), wordsOf(lines[len(lines)-1]))
	check(t, err)
	if len(share.sealedKey.raw)%lineData == 0 {
		t.Fatal("the last line of this share has no padding")
	}
	data[lineData-1] = 1
	lines[len(lines)-1] = fmt.Sprint(len(lines), " ", strings.Join(encodeLine(len(lines), data), " "))
	_, err = Parse(strings.Join(lines, "\n"))
	if at := new(lineError); !errors.As(err, &at) || at.Line != len(lines) {
		t.Errorf("got %v", err)
	}
}

// The error for a line of a later format names the version, and nothing else is
// checked before.
func TestLaterVersion(t *testing.T) {
	later := strings.Join(encodeLine(1, []byte{2, 99, 99, 99, 0, 0, 0, 0, 0, 0}), " ")
	if _, err := Parse(later); !errors.Is(err, errVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
}

// For any text, Parse returns an error or a share, and for the texts of this share
// it returns the same share.
func FuzzParse(f *testing.F) {
	for _, name := range goldenFiles(f, "*.txt") {
		f.Add(string(readFile(f, name)))
	}
	f.Add("1 account coping acre folic papyrus guru widget facial")
	f.Add("PEERLINK-SHARE-1:AEBQKA3F")
	f.Fuzz(func(t *testing.T, text string) {
		var s *Share
		var err error
		costtest.Check(t, "a share", func() { s, err = Parse(text) })
		if err != nil {
			if s != nil || len(err.Error()) > 1000 {
				t.Fatalf("got a share with the error, or an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, again := range []string{s.Text(), s.QRText()} {
			got, err := Parse(again)
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			if !sameShare(got, s) {
				t.Fatalf("%v: parsing its text gives another share:\n%s", s, again)
			}
		}
		// The secret is unknown, but Combine must return an error and not panic.
		if _, err := Combine([]*Share{s}); err == nil {
			t.Fatalf("one share is enough: %v", s)
		}
	})
}
