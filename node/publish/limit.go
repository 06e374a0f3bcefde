package publish

import (
	"net"
	"sync"
)

// limited is a listener that has so many connections open at most. Others wait
// in the system's queue until one is closed.
type limited struct {
	net.Listener
	open   chan struct{} // one for each open connection
	closed chan struct{}
	close  func()
}

func limit(l net.Listener, n int) net.Listener {
	closed := make(chan struct{})
	return &limited{l, make(chan struct{}, n), closed, sync.OnceFunc(func() { close(closed) })}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.open })}, nil
}

func (l *limited) Close() error {
	l.close()
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
