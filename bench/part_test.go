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

// partVariable says which of the parts this binary plays, when it was started by
// a benchmark to be somebody else on other CPUs.
const partVariable = "PEERLINK_BENCH_PART"

// parts are those that this binary can play. Each gets its settings, and from then
// on commands, which it answers when it has obeyed.
var parts = map[string]func(settings json.RawMessage) (obey func(command string) (answer any, err error), err error){
	"attackers": attackers,
	"crowd":     crowdPart,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(partVariable); name != "" {
		if err := play(name, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rabbittest.Run(m))
}

// play plays a part until there are no more commands: at the latest when the
// benchmark ends, however it does.
func play(name string, in io.Reader, out io.Writer) error {
	commands, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var settings json.RawMessage
	if err := commands.Decode(&settings); err != nil {
		return err
	}
	obey, err := parts[name](settings)
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
		answer, err := obey(command)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// part is another process that plays a part.
type part struct {
	b        *testing.B
	name     string
	commands *json.Encoder
	answers  *json.Decoder
}

// startPart starts a process that plays a part on the given CPUs, and ends with b.
func startPart(b *testing.B, name string, on cpus, settings any) *part {
	b.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), partVariable+"="+name)
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
	p := &part{b: b, name: name, commands: json.NewEncoder(in), answers: json.NewDecoder(out)}
	if err := p.commands.Encode(settings); err != nil {
		b.Fatal(err)
	}
	return p
}

// tell gives a command, and returns when it has been obeyed.
func (p *part) tell(command string, answer any) {
	p.b.Helper()
	if err := p.commands.Encode(command); err != nil {
		p.b.Fatalf("%s: %v", p.name, err)
	}
	if err := p.answers.Decode(answer); err != nil {
		p.b.Fatalf("%s have not answered %q: %v", p.name, command, err)
	}
}
