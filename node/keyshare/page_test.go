package keyshare

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"peerlink/node/nodetype"
	"peerlink/node/pki"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"rsc.io/qr"
)

// decodeQR reads the only QR code in a PNG file.
func decodeQR(file io.Reader, hint gozxing.DecodeHintType) (string, error) {
	picture, err := png.Decode(file)
	if err != nil {
		return "", err
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		return "", err
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{hint: true})
	if err != nil {
		return "", err
	}
	return result.GetText(), nil
}

// scanPage finds and reads the QR code on the first sheet.
func scanPage(t testing.TB, dir string) string {
	t.Helper()
	run(t, dir, "pdftoppm", "-r", "150", "-l", "1", "-gray", "-png", "-singlefile", "share.pdf", "first")
	text, err := decodeQR(bytes.NewReader(readFile(t, filepath.Join(dir, "first.png"))), gozxing.DecodeHintType_TRY_HARDER)
	if err != nil {
		t.Fatalf("no QR code can be read on the page: %v", err)
	}
	return text
}

// A printed page has the share twice, as a QR code and as words: an independent
// decoder reads the code from a rendering of the page, and Parse reads the whole
// text copied from the page. In all usual cases the page has one sheet.
func TestPage(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"pdfinfo", "pdftoppm", "pdftotext"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: the pages were not rendered", tool)
		}
	}
	for what, tt := range map[string]struct {
		share  *Share
		sheets int
		// This decoder fails to find one of several hundred codes, so it gets only
		// the codes that are the same in every run.
		scan bool
	}{
		"P-256, 2 of 3":    {goldenShare(t, "p256-2-of-3"), 1, true},
		"RSA 3072, 3 of 5": {goldenShare(t, "rsa3072-3-of-5"), 1, true},
		"RSA 4096, 4 of 7": {sharesOf(t, rsa4096(), 7, 4)[6], 1, false},
		"16 of 16":         {sharesOf(t, rsa4096(), 16, 16)[15], 2, false},
		"an authority's":   {authorityShare(t), 1, false},
	} {
		share := tt.share
		dir := t.TempDir()
		var pdf, again bytes.Buffer
		check(t, share.PDF(&pdf))
		check(t, share.PDF(&again))
		if !bytes.Equal(pdf.Bytes(), again.Bytes()) {
			t.Errorf("%s: the same share gives different files", what)
		}
		check(t, os.WriteFile(filepath.Join(dir, "share.pdf"), pdf.Bytes(), 0o600))
		if got := run(t, dir, "pdfinfo", "share.pdf"); !regexp.MustCompile(fmt.Sprintf(`(?m)^Pages: +%d$`, tt.sheets)).MatchString(got) {
			t.Errorf("%s: want %d sheets, got\n%s", what, tt.sheets, got)
		}
		if tt.scan {
			if got := scanPage(t, dir); got != share.QRText() {
				t.Errorf("%s: the QR code is %q, want %q", what, got, share.QRText())
			}
		}
		for _, layout := range []string{"-layout", "-raw"} {
			text := run(t, dir, "pdftotext", layout, "share.pdf", "-")
			got, err := Parse(text)
			if err != nil {
				t.Errorf("%s: the text by pdftotext %s: %v\n%s", what, layout, err, text)
			} else if !sameShare(got, share) {
				t.Errorf("%s: the text by pdftotext %s is another share", what, layout)
			}
			for _, want := range []string{
				fmt.Sprintf("Share %d of %d", share.Index(), share.Total()), share.Node().ID, share.Fingerprint(), share.SplitID(),
				fmt.Sprintf("any %d of the %d shares", share.Threshold(), share.Total()), "2026-11-23", "peerlink key join",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: %q is not on the page", what, want)
				}
			}
		}
	}
}

// authorityShare returns a share of a node whose ID has only digits, which must not
// be taken for the number of a line.
func authorityShare(t testing.TB) *Share {
	t.Helper()
	id := pki.Identity{Type: nodetype.AccountingAuthority, ID: "00000007"}
	shares, err := split(p384(), id, []byte(testPass), 3, 2, testNow, testCost)
	check(t, err)
	return shares[0]
}

// An independent decoder reads QR codes of all sizes, with the level of error
// correction that pages have.
func TestQRCode(t *testing.T) {
	for _, share := range []*Share{
		ownOnly(sharesOf(t, p256(), 2, 2)[0]),
		sharesOf(t, p256(), 2, 2)[1],
		sharesOf(t, rsa3072(), 5, 3)[4],
		sharesOf(t, rsa4096(), 16, 9)[15],
	} {
		code, err := qr.Encode(share.QRText(), qr.M)
		check(t, err)
		text, err := decodeQR(bytes.NewReader(code.PNG()), gozxing.DecodeHintType_PURE_BARCODE)
		check(t, err)
		got, err := Parse(text)
		check(t, err)
		if !sameShare(got, share) {
			t.Errorf("%v: scanned as another share", share)
		}
	}
}

// PDF refuses a share without the sealed key, because such a page would not be
// enough to restore the key.
func TestPageNeedsSealedKey(t *testing.T) {
	var out bytes.Buffer
	if err := ownOnly(sharesOf(t, p256(), 2, 2)[0]).PDF(&out); !errors.Is(err, ErrIncomplete) || out.Len() > 0 {
		t.Errorf("got %v and %d bytes, want ErrIncomplete", err, out.Len())
	}
}

// PDF returns the error of the writer.
func TestPageWriteError(t *testing.T) {
	if err := sharesOf(t, p256(), 2, 2)[0].PDF(failing{}); !errors.Is(err, errFailing) {
		t.Errorf("got %v, want %v", err, errFailing)
	}
}

var errFailing = errors.New("disk full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFailing }

func run(t testing.TB, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, errOut.Bytes())
	}
	return string(out)
}

// Parse reads the text of a page in whatever order a program copies it from the PDF:
// in the layout of the page, row by row, or column by column. For the PDF file
// itself, the error names pdftotext.
func TestPastedPage(t *testing.T) {
	if _, err := exec.LookPath("pdftotext"); err != nil {
		t.Skip("pdftotext is not installed: skipped")
	}
	for _, golden := range []string{"p256-2-of-3", "rsa3072-3-of-5"} {
		s := goldenShare(t, golden)
		var pdf bytes.Buffer
		if err := s.PDF(&pdf); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(pdf.String()); !errors.Is(err, errNotShare) || !strings.Contains(err.Error(), "pdftotext") {
			t.Errorf("a PDF: %v", err)
		}
		for _, option := range []string{"-layout", "-raw", "-nopgbrk"} {
			c := exec.Command("pdftotext", option, "-", "-")
			c.Stdin = bytes.NewReader(pdf.Bytes())
			text, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			pasted := string(text)
			for what, text := range map[string]string{
				"as it is": pasted,
				"Windows":  strings.ReplaceAll(pasted, "\n", "\r\n"),
			} {
				got, err := Parse(text)
				if err != nil {
					t.Errorf("%s, %s, %s: %v", golden, option, what, err)
				} else if got.Text() != s.Text() {
					t.Errorf("%s, %s, %s: another share", golden, option, what)
				}
			}
			// In one column of single words, or in one line.
			if option == "-raw" {
				for _, between := range []string{"\n", " "} {
					if got, err := Parse(strings.Join(strings.Fields(pasted), between) + " This share: lines 1 to 5"); err != nil || got.Text() != s.Text() {
						t.Errorf("%s, words apart by %q: %v", golden, between, err)
					}
				}
			}
		}
	}
}

// If the words of a page are in an unknown order, the error mentions the order, and
// not mistyped words.
func TestPastedInDisorder(t *testing.T) {
	s := goldenShare(t, "p256-2-of-3")
	words := strings.Fields(s.Text())
	slices.Reverse(words)
	if _, err := Parse("This share: lines 1 to 5\n" + strings.Join(words, "\n")); !errors.Is(err, errNotShare) || !strings.Contains(err.Error(), "another order") {
		t.Errorf("got %v", err)
	}
}

// If the text of a page is in order, and a word of it is wrong, the error names the line.
func TestPastedWithWrongWord(t *testing.T) {
	s := goldenShare(t, "p256-2-of-3")
	for line := 1; line <= ShareLines; line++ {
		lines := strings.Split(s.Text(), "\n")
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), strconv.Itoa(line)+"  ") })
		for _, word := range []string{"x", "zebra"} {
			changed := slices.Clone(lines)
			changed[at] = changed[at][:strings.LastIndex(changed[at], " ")+1] + word
			wrong := new(lineError)
			if _, err := Parse("This share: lines 1 to 5\n" + strings.Join(changed, "\n")); !errors.As(err, &wrong) || wrong.Line != line {
				t.Errorf("word %q in line %d: %v", word, line, err)
			}
		}
	}
}
