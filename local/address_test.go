package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// Reading the address file, which any program of the same user can write, takes little memory and time.
func TestAddressFileCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"long":     strings.Repeat(" ", 16<<20),
		"members":  "{" + strings.Repeat(`"A":"",`, 600) + `"a":0}`,
		"the same": "{" + strings.Repeat(`"unix":"\u0041",`, 200) + `"a":0}`,
		"brackets": strings.Repeat("[", maxAddressFile),
	} {
		if err := os.WriteFile(filepath.Join(dir, addressFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		costtest.CheckMemory(t, name, 1<<20, func() { _, _ = readAddresses(dir) })
		costtest.Check(t, name, func() { _, _ = readAddresses(dir) })
	}
}
