// Package activation takes over the listening sockets that a service manager such as systemd has
// opened for this process, by the protocol of sd_listen_fds(3). The service manager keeps them
// open while the service is restarted, so that no connection is refused meanwhile.
package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	// firstFD is the file descriptor of the first socket.
	firstFD = 3
	// maxSockets is the maximum number of sockets.
	maxSockets = 16
)

// variables are the environment variables of the protocol.
var variables = []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}

// Take returns the sockets that were passed to this process, by name. Sockets without a name get
// the first of names; other names than these are an error, and so is what is not a
// listening TCP socket. Take returns no sockets if none were passed to this process. It removes the
// variables from the environment, so that child processes do not take the sockets for theirs, and may
// be called once.
func Take(names ...string) (map[string][]net.Listener, error) {
	defer func() {
		for _, v := range variables {
			os.Unsetenv(v)
		}
	}()
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	passed, err := passedNames()
	if err != nil {
		return nil, err
	}
	failed := func(i int, err error) error {
		return fmt.Errorf("socket %d of %d that the service manager has passed (LISTEN_FDS): %w", i+1, len(passed), err)
	}
	// All are checked before a listener is made of any: if fewer were passed than the environment says, a number may be
	// that of a descriptor of this process, and a listener has a descriptor of its own.
	for i, name := range passed {
		if name == "" || name == "unknown" { // as sd_listen_fds_with_names reports no name
			passed[i] = names[0]
		} else if !slices.Contains(names, name) {
			return nil, failed(i, fmt.Errorf("its name is %q: expected %s; set FileDescriptorName= in its unit", name, strings.Join(names, ", ")))
		}
		if err := check(firstFD + i); err != nil {
			return nil, failed(i, err)
		}
	}
	sockets := make(map[string][]net.Listener)
	for i, name := range passed {
		l, err := listener(firstFD + i)
		if err != nil {
			return nil, errors.Join(failed(i, err), Close(sockets))
		}
		sockets[name] = append(sockets[name], l)
	}
	return sockets, nil
}

// passedNames returns the name of each socket that was passed to this process, empty for a socket without a
// name.
func passedNames() ([]string, error) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 1 || n > maxSockets {
		return nil, fmt.Errorf("LISTEN_FDS is %.40q: expected the number of sockets that the service manager passes, from 1 to %d", os.Getenv("LISTEN_FDS"), maxSockets)
	}
	list, ok := os.LookupEnv("LISTEN_FDNAMES")
	if !ok {
		return make([]string, n), nil
	}
	names := strings.Split(list, ":")
	if len(names) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names, and LISTEN_FDS is %d: expected a name for each socket", len(names), n)
	}
	return names, nil
}

// Close closes sockets. The service manager keeps them open.
func Close(sockets map[string][]net.Listener) error {
	var err error
	for _, list := range sockets {
		for _, l := range list {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}
