package cli

import (
	"crypto"
	"strings"

	"peerlink/node/pki"
)

// wordsInLine is how many words of a fingerprint are printed in a line.
const wordsInLine = 6

// fingerprintWords returns the words of a root key's fingerprint, for JSON.
func fingerprintWords(root crypto.PublicKey) string {
	return strings.Join(pki.FingerprintWords(root), " ")
}

// fingerprintRows returns the rows of a table for a fingerprint and its words.
func fingerprintRows(fingerprint, words string) [][2]string {
	rows := [][2]string{{"fingerprint", fingerprint}}
	name := "in words"
	for _, line := range wordLines(words) {
		rows, name = append(rows, [2]string{name, line}), ""
	}
	return rows
}

// fingerprintText returns the lines of a message that show the fingerprint of a root key, for people who
// compare it by telephone. Each line begins with indent.
func fingerprintText(root crypto.PublicKey, indent string) string {
	text := indent + pki.Fingerprint(root)
	for i, line := range wordLines(fingerprintWords(root)) {
		if text += "\n" + indent; i == 0 {
			text += "in words: "
		} else {
			text += "          "
		}
		text += line
	}
	return text
}

func wordLines(words string) (lines []string) {
	list := strings.Fields(words)
	for len(list) > 0 {
		n := min(wordsInLine, len(list))
		lines, list = append(lines, strings.Join(list[:n], " ")), list[n:]
	}
	return lines
}

// announceSigning says before the passphrase is asked for which root key is going to be certified. what
// says what is done.
func (a *app) announceSigning(what string, root crypto.PublicKey) {
	a.printMessage("%s: this cannot be undone. Its root key:\n%s", what, fingerprintText(root, "  "))
}
