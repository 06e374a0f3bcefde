package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"peerlink/internal/outproxy/proxytest"
)

// proxy VARIABLE SCHEME USER:PASSWORD NAME=ADDRESS starts a proxy that connects to the address for the
// name, and sets a variable to its address.
func startProxy(ts *testscript.TestScript, neg bool, args []string) {
	s := &proxytest.Server{Hosts: make(map[string]string)}
	s.User, s.Password, _ = strings.Cut(args[2], ":")
	for _, host := range args[3:] {
		name, address, _ := strings.Cut(host, "=")
		s.Hosts[name] = address
	}
	ts.Check(s.Start(args[1]))
	ts.Defer(func() { s.Close() })
	ts.Setenv(args[0], s.Addr())
}

// https VARIABLE FILE serves a file by https, as soon as it is there, and sets a variable to the URL.
// The certificate of the server's authority is in https.pem.
func serveHTTPS(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs(args[1])
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }))
	ts.Defer(s.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs("https.pem"), authority, 0o644))
	ts.Setenv(args[0], s.URL)
}
