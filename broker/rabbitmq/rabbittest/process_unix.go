//go:build unix

package rabbittest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// script starts Erlang's port mapper, unless SHARED_MAPPER is set, and the server given as
// $0, and writes the server's process ID. It kills all processes when its input is closed,
// by the test or because the test process has ended, or when the server has ended.
const script = `
exec 3<&0
[ -n "$SHARED_MAPPER" ] || epmd >&2 3<&- &
"$0" >&2 3<&- &
server=$!
echo $server
{ read _; kill -KILL 0; } <&3 &
wait $server
kill -KILL 0
`

// process is a process group of the script, the port mapper and the server.
type process struct {
	cmd    *exec.Cmd
	input  io.Closer
	server int           // process ID
	ended  chan struct{} // closed when all processes have ended
}

// startProcess runs the script with a shell, and returns when the server is running. env is the
// environment; the script's and the server's messages are written to output.
func startProcess(shell []string, server string, env []string, output *os.File) (*process, error) {
	command := slices.Concat(shell, []string{"-c", script, server})
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = env
	cmd.Stderr = output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, input: input, ended: make(chan struct{})}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		p.server, err = strconv.Atoi(strings.TrimSpace(line))
	}
	go func() {
		_ = cmd.Wait() // always fails, because the script is killed
		close(p.ended)
	}()
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w", server, err)
	}
	return p, nil
}

// kill kills the group, and waits until it has ended.
func (p *process) kill() {
	p.input.Close()
	<-p.ended
}

// stop terminates the server, and waits until the group has ended.
func (p *process) stop(limit time.Duration) error {
	if err := syscall.Kill(p.server, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("RabbitMQ has not stopped within %v", limit)
	}
}

// pause stops the server, and waits until it is stopped: on a busy machine the server's
// threads may continue for a while after the signal.
func (p *process) pause(limit time.Duration) error {
	if err := syscall.Kill(p.server, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(p.server)).Output()
		switch {
		case err != nil:
			return fmt.Errorf("ask for the state of RabbitMQ: %w", err)
		case strings.HasPrefix(strings.TrimSpace(string(state)), "T"):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("RabbitMQ has not paused within %v, its state is %q", limit, state)
		}
	}
}

func (p *process) resume() error { return syscall.Kill(p.server, syscall.SIGCONT) }
