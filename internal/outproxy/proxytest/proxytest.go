// Package proxytest runs proxies inside tests.
package proxytest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
)

// Server is a proxy for one scheme, which accepts one user or everybody.
type Server struct {
	// User and Password must be shown by clients, unless User is empty.
	User, Password string
	// Hosts has the addresses, as host:port, to which the proxy connects for others, so that names
	// can be used that nobody else can resolve. Other addresses are used as they are.
	Hosts map[string]string
	// Deny makes the proxy answer that it does not permit any connection.
	Deny bool

	listener net.Listener
	serve    func(*Server, net.Conn) error

	mu       sync.Mutex
	requests []string
}

// Start starts a proxy of the scheme, socks5 or http, on loopback. The caller must not change its
// fields afterwards, and calls Close.
func (s *Server) Start(scheme string) error {
	s.serve = (*Server).socks5
	if scheme == "http" {
		s.serve = (*Server).http
	}
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = s.serve(s, conn)
			}()
		}
	}()
	return nil
}

// Close ends the proxy. Connections that it has made stay.
func (s *Server) Close() error { return s.listener.Close() }

// Addr returns the address of the proxy.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Requests returns the addresses to which clients wanted to connect.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// dial connects to where a client wants to be connected.
func (s *Server) dial(address string) (net.Conn, error) {
	s.mu.Lock()
	s.requests = append(s.requests, address)
	s.mu.Unlock()
	if s.Deny {
		return nil, errors.New("denied")
	}
	if to, ok := s.Hosts[address]; ok {
		address = to
	}
	return net.Dial("tcp", address)
}

// join copies between a client and a server until both have ended.
func join(client io.Reader, conn, server net.Conn) {
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(server, client)
		server.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(conn, server)
	conn.(*net.TCPConn).CloseWrite()
	<-done
}

// http serves a client by HTTP CONNECT.
func (s *Server) http(conn net.Conn) error {
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	answer := func(status string) error {
		_, err := io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\n")
		return err
	}
	// Request.BasicAuth reads another header.
	authorization := &http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}
	user, password, _ := authorization.BasicAuth()
	if s.User != "" && (user != s.User || password != s.Password) {
		return answer("407 Proxy Authentication Required")
	}
	if req.Method != http.MethodConnect {
		return answer("405 Method Not Allowed")
	}
	server, err := s.dial(req.Host)
	if err != nil {
		return answer("403 Forbidden")
	}
	if err := answer("200 Connection established"); err != nil {
		return err
	}
	join(in, conn, server)
	return nil
}

// socks5 serves a client by SOCKS5.
func (s *Server) socks5(conn net.Conn) error {
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(conn, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	methods := read(int(read(2)[1]))
	method := byte(0)
	if s.User != "" {
		method = 2
	}
	if !contains(methods, method) {
		method = 0xff
	}
	if _, err := conn.Write([]byte{5, method}); err != nil || method == 0xff {
		return err
	}
	if method == 2 {
		user := string(read(int(read(2)[1])))
		password := string(read(int(read(1)[0])))
		if user != s.User || password != s.Password {
			_, err := conn.Write([]byte{1, 1})
			return err
		}
		if _, err := conn.Write([]byte{1, 0}); err != nil {
			return err
		}
	}
	var host string
	switch kind := read(4)[3]; kind {
	case 1:
		host = net.IP(read(4)).String()
	case 4:
		host = net.IP(read(16)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	}
	port := read(2)
	server, err := s.dial(net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1]))))
	reply := byte(0)
	if err != nil {
		reply = 5 // connection refused
	}
	if s.Deny {
		reply = 2 // not allowed by the rules
	}
	if _, err := conn.Write([]byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0}); err != nil || reply != 0 {
		return err
	}
	join(conn, conn, server)
	return nil
}

func contains(list []byte, b byte) bool {
	for _, x := range list {
		if x == b {
			return true
		}
	}
	return false
}
