package keyshare

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// pdfMagic is the beginning of every PDF file.
const pdfMagic = "%PDF-"

// errPDF is returned for a PDF file: a page as written by [Share.PDF], or a scanned page.
var errPDF = fmt.Errorf("%w but a PDF: scan its QR code, or get its text (\"pdftotext -layout PAGE.pdf PAGE.txt\") if it was never on paper", errNotShare)

// errOrder is returned for the text of a page if the order of the words cannot be restored.
var errOrder = fmt.Errorf("%w in this form: it is the text of a page, with its words in another order than on paper: scan its QR code, type the numbered lines, or get the text with \"pdftotext -layout PAGE.pdf PAGE.txt\"", errNotShare)

// isPage reports whether the text was copied from a page.
func isPage(text string) bool { return strings.Contains(text, "This share: lines 1 to") }

// pastedLines finds the lines of words in text that was copied from a PDF. PDF viewers differ
// in where they end lines and in the order of columns. The checksums determine which words form
// a line. pastedLines returns the lines by number, or nil if it does not find all lines of
// the share itself.
func pastedLines(text string) map[int][]string {
	lines := make(map[int][]string)
	addFromRows(text, lines)
	addFromColumns(text, lines)
	for n := 1; n <= ShareLines; n++ {
		if lines[n] == nil {
			return nil
		}
	}
	return lines
}

// addFromRows adds to lines the lines of the text in which the words directly follow the number.
func addFromRows(text string, lines map[int][]string) {
	tokens := strings.FieldsFunc(strings.ToLower(text), notWord)
	for i := range tokens {
		if i+lineWords >= len(tokens) {
			return
		}
		words := tokens[i+1 : i+1+lineWords]
		n, _ := splitLine(tokens[i] + " " + words[0])
		if n < 1 || n > maxLines || lines[n] != nil {
			continue
		}
		if isLine(n, words) {
			lines[n] = words
		}
	}
}

// inOrder reports whether in most lines of the share itself the words follow the number, as on
// the page. If so, a line that is not found is mistyped or damaged.
func inOrder(text string) bool {
	lines := make(map[int][]string)
	addFromRows(text, lines)
	found := 0
	for n := 1; n <= ShareLines; n++ {
		if lines[n] != nil {
			found++
		}
	}
	return found > ShareLines/2
}

// rangeOfLines matches the line numbers in the headlines above the words on a page.
var rangeOfLines = regexp.MustCompile(`: lines ([0-9]{1,3}) to ([0-9]{1,3})\b`)

// addFromColumns adds to lines those of a text whose words are ordered by column, with the columns
// in any order. Each paragraph of the text has one or more columns. The range of lines in a
// headline gives the length of its columns.
func addFromColumns(text string, lines map[int][]string) {
	type block struct {
		first, n int
		columns  [][]string
	}
	var blocks []*block
	for _, m := range rangeOfLines.FindAllStringSubmatch(text, 2) {
		first, _ := strconv.Atoi(m[1])
		last, _ := strconv.Atoi(m[2])
		if first < 1 || last < first || last > maxLines {
			return
		}
		// The longer columns first: their words do not belong to shorter ones.
		blocks = slices.Insert(blocks, 0, &block{first: first, n: last - first + 1})
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		words := strings.FieldsFunc(strings.ToLower(paragraph), notWord)
		for _, b := range blocks {
			columns, rest := numberedColumns(words, b.first, b.n)
			b.columns = append(b.columns, columns...)
			if rest != nil {
				words = rest
			}
		}
		if slices.ContainsFunc(words, func(w string) bool { return wordIndex(w) < 0 }) {
			continue
		}
		for _, b := range blocks {
			if len(words) > 0 && len(words)%b.n == 0 {
				b.columns = slices.AppendSeq(b.columns, slices.Chunk(words, b.n))
				break
			}
		}
	}
	for _, b := range blocks {
		if len(b.columns) != lineWords || lines[b.first] != nil {
			continue
		}
		row := make([]string, 0, lineWords) // reused: there are many orders
		arrange(b.columns, 0, func(order [][]string) bool {
			for i := range b.n {
				row = appendRow(row[:0], order, i)
				if !isLine(b.first+i, row) {
					return false
				}
			}
			for i := range b.n {
				lines[b.first+i] = appendRow(nil, order, i)
			}
			return true
		})
	}
}

// appendRow appends the i-th word of each column to row.
func appendRow(row []string, columns [][]string, i int) []string {
	for _, column := range columns {
		row = append(row, column[i])
	}
	return row
}

// numberedColumns finds the numbers of n lines in the words of a paragraph, each followed by
// the same number of words, possibly none. It returns these words as columns, and the words
// after them, or nil if there are no such numbers.
func numberedColumns(words []string, first, n int) (columns [][]string, rest []string) {
	var at []int // indexes of the numbers
	for i, w := range words {
		if len(at) < n && w == strconv.Itoa(first+len(at)) && (len(at) < 2 || i-at[len(at)-1] == at[1]-at[0]) {
			at = append(at, i)
		} else if len(at) > 0 && len(at) < n && w == strconv.Itoa(first) {
			at = []int{i}
		}
	}
	if len(at) < n || n < 2 {
		return nil, nil
	}
	width := at[1] - at[0]
	end := at[n-1] + width
	if end > len(words) || width > lineWords+1 {
		return nil, nil
	}
	for k := 1; k < width; k++ {
		var column []string
		for _, i := range at {
			column = append(column, words[i+k])
		}
		columns = append(columns, column)
	}
	return columns, words[end:]
}

// arrange calls accept with the columns in every order of those from index k on, until accept
// returns true. It reports whether that happened.
func arrange(columns [][]string, k int, accept func([][]string) bool) bool {
	if k == len(columns) {
		return accept(columns)
	}
	for i := k; i < len(columns); i++ {
		columns[k], columns[i] = columns[i], columns[k]
		if arrange(columns, k+1, accept) {
			return true
		}
		columns[k], columns[i] = columns[i], columns[k]
	}
	return false
}

func notWord(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// isLine reports whether the words are a valid line with the given number.
func isLine(number int, words []string) bool {
	var line wordLine
	for i, w := range words {
		if line[i] = wordIndex(w); line[i] < 0 {
			return false
		}
	}
	return line.checksumValid(number)
}
