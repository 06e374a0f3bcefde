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

// helperProcessVariable is the environment variable with the name of the helper process as
// which this binary runs. It is set if a benchmark has started the binary, on other CPUs.
const helperProcessVariable = "PEERLINK_BENCH_HELPER"

// helperProcesses maps the name of each helper process to the function that is called with
// its settings. That function returns the function which executes each command and returns
// the answer to it.
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

// runHelperProcess executes the commands that it reads from in until the end of in. The
// operating system closes in when the benchmark process ends, for whatever reason.
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

// helperProcess is the handle of a helper process in the benchmark that has started it.
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

// command sends a command to the process, and stores its answer in the value that answer
// points to.
func (p *helperProcess) command(command string, answer any) {
	p.b.Helper()
	if err := p.commands.Encode(command); err != nil {
		p.b.Fatalf("%s: %v", p.name, err)
	}
	if err := p.answers.Decode(answer); err != nil {
		p.b.Fatalf("%s have not answered %q: %v", p.name, command, err)
	}
}
