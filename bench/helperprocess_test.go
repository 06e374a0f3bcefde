package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"peerlink/broker/rabbitmq/rabbittest"
)

// helperProcessVariable is the environment variable with the name of the helper process that
// this binary is, if a benchmark has started it as one, on other CPUs.
const helperProcessVariable = "PEERLINK_BENCH_HELPER"

// helperProcesses are the helper processes by name. Each gets its settings, and then
// commands, which it answers when it has executed them.
var helperProcesses = map[string]func(settings json.RawMessage) (execute func(command string) (answer any, err error), err error){
	"attackers": attackers,
	"peers":     peersProcess,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperProcessVariable); name != "" {
		if err := runHelperProcess(name, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rabbittest.Run(m))
}

// runHelperProcess executes commands until there are no more: at the latest when the
// benchmark ends, for whatever reason.
func runHelperProcess(name string, in io.Reader, out io.Writer) error {
	commands, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var settings json.RawMessage
	if err := commands.Decode(&settings); err != nil {
		return err
	}
	execute, err := helperProcesses[name](settings)
	if err != nil {
		return err
	}
	for {
		var command string
		if err := commands.Decode(&command); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := execute(command)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// helperProcess is a helper process, as its benchmark sees it.
type helperProcess struct {
	b        *testing.B
	name     string
	commands *json.Encoder
	answers  *json.Decoder
}

// startHelperProcess starts a helper process on the given CPUs. It ends with b.
func startHelperProcess(b *testing.B, name string, on cpus, settings any) *helperProcess {
	b.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), helperProcessVariable+"="+name)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := startOn(on, c); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			b.Errorf("the %s have ended with %v", name, err)
		}
	})
	p := &helperProcess{b: b, name: name, commands: json.NewEncoder(in), answers: json.NewDecoder(out)}
	if err := p.commands.Encode(settings); err != nil {
		b.Fatal(err)
	}
	return p
}

// command sends a command to the process, and returns its answer.
func (p *helperProcess) command(command string, answer any) {
	p.b.Helper()
	if err := p.commands.Encode(command); err != nil {
		p.b.Fatalf("%s: %v", p.name, err)
	}
	if err := p.answers.Decode(answer); err != nil {
		p.b.Fatalf("%s have not answered %q: %v", p.name, command, err)
	}
}
