package keyshare

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"peerlink/node/nodetype"

	"codeberg.org/go-pdf/fpdf"
	"rsc.io/qr"
)

// Measures of the page in millimetres. The page is for A4, but also fits on Letter, which is
// 18 mm shorter.
const (
	pageLeft    = 20.0
	pageRight   = 190.0
	pageTop     = 14.0
	pageBottom  = 267.0 // lower end of the words; the footer is below
	columnRight = 122.0 // right end of the text beside the QR code
	gutter      = 8.0
	qrSide      = pageRight - columnRight - gutter + 4

	headlineHeight = 6.5
	// The height of a line of words depends on the available space, within these limits.
	maxLineHeight = 5.0
	minLineHeight = 3.1
)

// PDF writes the share as a page for printing, with a description, the words, the QR code,
// and instructions for restoring the key and for storing the page. The page fits on one sheet
// of A4 or Letter; only the longest keys with many shares need a second sheet. The same share
// always results in the same file.
//
// The share must have the sealed key, otherwise the error wraps [ErrIncomplete].
func (s *Share) PDF(w io.Writer) error {
	if s.sealedKey == nil {
		return fmt.Errorf("%w: the sealed key is missing, without which a page would not be complete", ErrIncomplete)
	}
	p := newPage(s)
	if err := p.head(); err != nil {
		return fmt.Errorf("page of %v: %w", s, err)
	}
	p.instructions()
	p.words()
	if err := p.pdf.Output(w); err != nil {
		return fmt.Errorf("page of %v: %w", s, err)
	}
	return nil
}

// A page draws a share, from top to bottom, on one or two sheets of paper.
type page struct {
	pdf   *fpdf.Fpdf
	share *Share
	// encode converts UTF-8 to the encoding of the fonts.
	encode func(string) string
	y      float64 // upper end of the next element, in millimetres from the top
}

func newPage(s *Share) *page {
	pdf := fpdf.New("P", "mm", "A4", "")
	p := &page{pdf: pdf, share: s, encode: pdf.UnicodeTranslatorFromDescriptor(""), y: pageTop}
	pdf.SetMargins(pageLeft, pageTop, 210-pageRight)
	pdf.SetAutoPageBreak(false, 0)
	pdf.SetCellMargin(0)
	pdf.SetTitle(fmt.Sprintf("Share %d of %d of the root key of %v", s.index, s.total, s.Node()), true)
	pdf.SetCreator("peerlink", true)
	pdf.SetLang("en")
	// A fixed date, so that the same share results in the same bytes.
	pdf.SetCreationDate(s.Date())
	pdf.SetModificationDate(s.Date())
	pdf.SetCatalogSort(true)
	pdf.SetFooterFunc(p.footer)
	pdf.AddPage()
	return p
}

// head draws the title, the data of the share, the description of the page, and the QR code
// beside them.
func (p *page) head() error {
	s := p.share
	code, err := qr.Encode(s.QRText(), qr.M)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	png := fpdf.ImageOptions{ImageType: "PNG"}
	p.pdf.RegisterImageOptionsReader("qr", png, bytes.NewReader(code.PNG()))
	// The image has a white border, which may extend into the margins.
	p.pdf.ImageOptions("qr", pageRight-qrSide+2, p.y-2, qrSide, qrSide, false, png, 0, "")
	qrEnd := p.y - 2 + qrSide

	p.font("B", 22, 0)
	p.paragraph(columnRight, 9, fmt.Sprintf("Share %d of %d", s.index, s.total))
	p.font("", 12, 0)
	p.paragraph(columnRight, 6, "of the root key of a Swaptacular node")
	p.y += 3
	p.rule(columnRight)
	p.y += 2.5
	for _, fact := range [][2]string{
		{"Node", nodeTypeNames[s.Node().Type]},
		{"Node ID", s.Node().ID},
		{"Root key", s.Fingerprint()},
		{"To restore", fmt.Sprintf("any %d of the %d shares, and the passphrase", s.threshold, s.total)},
		{"Split", fmt.Sprintf("%v, made on %s (UTC)", s.split, s.Date().Format("2006-01-02"))},
	} {
		p.font("", 8.5, 110)
		p.pdf.Text(pageLeft, p.y+3.5, fact[0])
		p.font("B", 8.5, 0)
		p.pdf.Text(pageLeft+18, p.y+3.5, p.encode(fact[1]))
		p.y += 4.9
	}
	p.y += 2.5
	p.rule(columnRight)
	p.y += 2.5
	p.font("", 8.5, 0)
	p.paragraph(columnRight, 3.9, "With the root key, the node signs its certificate and those of its servers and peers. "+
		"To restore the key, you need this page, "+otherPages(s.threshold-1)+" of this split, the passphrase, and the file root-ca.crt. "+
		"Fewer pages reveal nothing about the key. With a strong passphrase, even all pages reveal nothing without it.")
	p.y = max(p.y+2, qrEnd)
	return nil
}

// nodeTypeNames has the names of the node types on the page.
var nodeTypeNames = map[nodetype.Type]string{
	nodetype.AccountingAuthority: "accounting authority",
	nodetype.CreditorsAgent:      "creditors agent",
	nodetype.DebtorsAgent:        "debtors agent",
}

func otherPages(n int) string {
	if n == 1 {
		return "one other page"
	}
	return fmt.Sprintf("%d\u00a0other pages", n)
}

// instructions draws two columns: how to restore the key, and how to store the page.
func (p *page) instructions() {
	last := len(p.share.lines())
	p.rule(pageRight)
	p.y += 2.5
	top, middle := p.y, (pageLeft+pageRight)/2
	restore := []string{
		fmt.Sprintf("Bring any %d pages of split %v, the passphrase and root-ca.crt to a computer that you trust, off the network.", p.share.threshold, p.share.split),
		"Run \u201cpeerlink key join\u201d. Scan each QR code, or type the numbered lines. " +
			fmt.Sprintf("Lines %d to %d are the same on all pages: type them once, and of the other pages only lines 1 to\u00a0%d.", ShareLines+1, last, ShareLines),
		"If a line is mistyped, the program says which. For an illegible word, type x. The result is compared with root-ca.crt.",
	}
	keep := []string{
		"In a closed envelope, dry and dark, apart from the other shares and from the passphrase. Check once a year that it is there and legible.",
		"Never photograph, copy, scan or send it, except to restore the key. Never keep the passphrase on it or with it.",
		"If it is lost, or somebody may have read it, tell the owner of the node: new shares must be made, and all old shares destroyed.",
	}
	p.list(pageLeft, middle-gutter/2, "To restore the key", restore, "abc")
	end := p.y
	p.y = top
	p.list(middle+gutter/2, pageRight, "To keep this page", keep, "\u2022\u2022\u2022")
	p.y = max(p.y, end) + 1.5
	p.rule(pageRight)
	p.y += 2
}

// list draws a headline, and paragraphs with a mark before each. marks has one character for
// each paragraph, no digits: only the lines of words have numbers.
func (p *page) list(left, right float64, headline string, items []string, marks string) {
	p.font("B", 9.5, 0)
	p.pdf.Text(left, p.y+3.5, headline)
	p.y += 5.5
	p.font("", 8.2, 0)
	for i, mark := range []rune(marks) {
		p.pdf.Text(left, p.y+2.67, p.encode(string(mark)))
		p.pdf.SetXY(left+4, p.y)
		p.pdf.MultiCell(right-left-4, 3.6, p.encode(items[i]), "", "L", false)
		p.y = p.pdf.GetY() + 0.8
	}
}

// words draws the numbered lines in two parts, each with a headline.
func (p *page) words() {
	lines := p.share.lines()
	height := (pageBottom - p.y - 2*headlineHeight) / float64(len(lines))
	height = min(max(height, minLineHeight), maxLineHeight)
	for i, words := range lines {
		if p.y+height > pageBottom+0.1 { // tolerance for rounding errors
			p.nextSheet()
		}
		switch i {
		case 0:
			p.headline(fmt.Sprintf("This share: lines 1 to %d", ShareLines))
		case ShareLines:
			p.headline(fmt.Sprintf("The sealed key: lines %d to %d, the same on all pages of this split", ShareLines+1, len(lines)))
		}
		// Every second line is shaded, for readability.
		if i%2 == 0 {
			p.pdf.SetFillColor(238, 238, 238)
			p.pdf.Rect(pageLeft, p.y, pageRight-pageLeft, height, "F")
		}
		// The width of a character in Courier is 0.6 of the font size; a point is 0.353 mm.
		size := min(10.5, height*2.45)
		baseline := p.y + height/2 + size*0.353*0.28
		p.pdf.SetFont("Courier", "", size)
		p.pdf.SetTextColor(90, 90, 90)
		p.pdf.Text(pageLeft+2, baseline, fmt.Sprintf("%2d", i+1))
		p.pdf.SetFont("Courier", "B", size)
		p.pdf.SetTextColor(0, 0, 0)
		column := (pageRight - pageLeft - 12) / lineWords
		for j, w := range words {
			p.pdf.Text(pageLeft+12+float64(j)*column, baseline, w)
		}
		p.y += height
	}
}

func (p *page) headline(text string) {
	p.font("B", 9.5, 0)
	p.pdf.Text(pageLeft, p.y+headlineHeight-1.5, text)
	p.y += headlineHeight
}

// nextSheet begins a second sheet for the remaining lines.
func (p *page) nextSheet() {
	p.pdf.AddPage()
	p.y = pageTop
	p.font("B", 12, 0)
	p.paragraph(pageRight, 6, fmt.Sprintf("Share %d of %d, continued", p.share.index, p.share.total))
	p.font("", 8.5, 0)
	p.paragraph(pageRight, 4, fmt.Sprintf("Root key of %v, split %v", p.share.Node(), p.share.split))
	p.y += 3
}

// footer draws the footer, which is for a person who finds the page.
func (p *page) footer() {
	p.font("", 7, 110)
	p.pdf.SetXY(pageLeft, pageBottom+2)
	p.pdf.MultiCell(pageRight-pageLeft, 3, p.encode(strings.Join([]string{
		fmt.Sprintf("Share %d of %d, split %v, sheet %d.", p.share.index, p.share.total, p.share.split, p.pdf.PageNo()),
		fmt.Sprintf("Paper format %d of peerlink, a free program for nodes of the Swaptacular network; its source describes the format to the last bit (package node/keyshare).", formatVersion),
		"Each line is ten bytes and a checksum, in words of the EFF large word list.",
	}, " ")), "", "L", false)
}

func (p *page) font(style string, size float64, grey int) {
	p.pdf.SetFont("Helvetica", style, size)
	p.pdf.SetTextColor(grey, grey, grey)
}

func (p *page) paragraph(right, lineHeight float64, text string) {
	p.pdf.SetXY(pageLeft, p.y)
	p.pdf.MultiCell(right-pageLeft, lineHeight, p.encode(text), "", "L", false)
	p.y = p.pdf.GetY()
}

func (p *page) rule(right float64) {
	p.pdf.SetLineWidth(0.2)
	p.pdf.SetDrawColor(120, 120, 120)
	p.pdf.Line(pageLeft, p.y, right, p.y)
}
