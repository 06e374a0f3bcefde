package stomp

// Frame is the unit of STOMP: a command, headers, and a body that may be empty (STOMP
// 1.2, "STOMP Frames"). Names and values of headers are unescaped. The strings of one
// frame may share memory: a program that keeps one of them should clone it.
type Frame struct {
	Command string
	Headers []Header
	Body    []byte
}

// Header is one header of a [Frame].
type Header struct{ Name, Value string }

// NewFrame returns a frame without a body. The strings are alternating names and values
// of headers; a last name without a value gets the empty value.
func NewFrame(command string, nameValue ...string) *Frame {
	f := &Frame{Command: command}
	for len(nameValue) > 1 {
		f.Headers = append(f.Headers, Header{nameValue[0], nameValue[1]})
		nameValue = nameValue[2:]
	}
	if len(nameValue) == 1 {
		f.Headers = append(f.Headers, Header{Name: nameValue[0]})
	}
	return f
}

// Get returns the value of the first header with this name, which is the one that
// counts (STOMP 1.2, "Repeated Header Entries"), and whether there is one.
func (f *Frame) Get(name string) (string, bool) {
	for i := range f.Headers {
		if f.Headers[i].Name == name {
			return f.Headers[i].Value, true
		}
	}
	return "", false
}

// carriesBody reports whether frames with this command may have a body, and are
// therefore written with a content-length even when it is empty.
func carriesBody(command string) bool {
	return command == "SEND" || command == "MESSAGE" || command == "ERROR"
}

// isHandshake reports whether frames with this command are sent before the version of STOMP is
// agreed on. STOMP 1.2 does not escape their headers, but some programs do.
func isHandshake(command string) bool {
	return command == "CONNECTED" || isConnect(command)
}

// isConnect reports whether command is CONNECT, or its other name, STOMP.
func isConnect(command string) bool {
	return command == "STOMP" || command == "CONNECT"
}

// isCommand reports whether s consists of one or more capital letters.
func isCommand[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return len(s) > 0
}

// internCommand is string(b) without an allocation for the commands of STOMP.
func internCommand(b []byte) string {
	for _, c := range commands {
		if string(b) == c {
			return c
		}
	}
	return string(b)
}

// The commands of STOMP 1.2, the most frequent ones first.
var commands = [...]string{
	"SEND", "RECEIPT", "MESSAGE", "ACK",
	"STOMP", "CONNECT", "CONNECTED", "DISCONNECT", "ERROR",
	"SUBSCRIBE", "UNSUBSCRIBE", "NACK", "BEGIN", "COMMIT", "ABORT",
}
