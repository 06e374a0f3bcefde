package main

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// zipadd IN OUT NAME CONTENT makes a copy of a zip file with one more entry.
func zipAdd(ts *testscript.TestScript, neg bool, args []string) {
	in, err := zip.OpenReader(ts.MkAbs(args[0]))
	ts.Check(err)
	defer in.Close()
	var buf bytes.Buffer
	out := zip.NewWriter(&buf)
	for _, e := range in.File {
		ts.Check(out.Copy(e))
	}
	w, err := out.Create(args[2])
	ts.Check(err)
	_, err = io.WriteString(w, args[3])
	ts.Check(err)
	ts.Check(out.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), buf.Bytes(), 0o644))
}

// truncate IN OUT N makes a copy of the first N bytes of a file.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data[:n], 0o644))
}
