package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
)

// nested returns a table with tables in it, so that there are depth of them.
func nested(depth int) amqp.Table {
	t := amqp.Table{"x": int32(1)}
	for range depth - 1 {
		t = amqp.Table{"t": t}
	}
	return t
}

// Headers that the AMQP library can not read keep no message from being consumed, listed and retried,
// nor those behind it; the message loses these headers and no others.
func TestUnreadableHeaders(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	many := make([]any, maxHeaderElements+1)
	for i := range many {
		many[i] = true
	}
	bound := nested(maxHeaderDepth)
	headers := []amqp.Table{{"deep": nested(maxHeaderDepth + 8), "own": "header"}, {"many": many, "own": "header"}, {"own": "header", "bound": bound}}
	q, c := bindAndConsume(t, b)
	for i, h := range headers {
		o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Headers: h, Body: fmt.Append(nil, i)}))
		o.check(o.send(referenceDefaultExchange, referenceDeadLetterQueue(q.Queues[0]), amqp.Publishing{Headers: h, Body: fmt.Append(nil, i)}))
	}
	nextAll(t, c, len(headers))
	var ids []string
	for m, err := range b.List(testContext(t), q.Queues[0]) {
		o.check(err)
		ids = append(ids, m.ID)
	}
	if len(ids) != len(headers) {
		t.Fatalf("%d messages are listed", len(ids))
	}
	o.check(c.Close())
	if n, err := b.Drop(testContext(t), q.Queues[0], ids); n != len(headers) || err != nil {
		t.Errorf("%d are dropped, %v", n, err)
	}
}

const referenceDefaultExchange = ""

// frame returns a frame with the properties of a message.
func frame(t *testing.T, flags uint16, properties []byte) []byte {
	t.Helper()
	f := []byte{contentHeader, 0, 1, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5}
	f = binary.BigEndian.AppendUint16(f, flags)
	f = append(f, properties...)
	binary.BigEndian.PutUint32(f[3:], uint32(len(f)-frameHead))
	return append(f, 0xce)
}

// table encodes a table with these entries, each with its name and value.
func table(entries ...[]byte) []byte {
	all := slices.Concat(entries...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(all))), all...)
}

func entry(name string, value []byte) []byte {
	return append(append([]byte{byte(len(name))}, name...), value...)
}

// The filter removes exactly the headers beyond the bounds, however the bytes arrive, and leaves
// everything else as it is, also what has no valid form.
func TestHeaderFilter(t *testing.T) {
	long := entry("long", append([]byte{'S', 0, 0, 1, 0}, make([]byte, 256)...))
	deep := func(depth int) []byte {
		v := []byte{'F', 0, 0, 0, 0}
		for range depth - 1 {
			v = append([]byte{'F'}, table(entry("t", v))...)
		}
		return entry("deep", v)
	}
	unknown := entry("odd", []byte{'?', 1, 2, 3})
	const all = 1<<15 | 1<<14 | 1<<13 | 1<<12
	before, after := []byte("\x01a\x01b"), []byte{2}
	with := func(entries ...[]byte) []byte { return frame(t, all, slices.Concat(before, table(entries...), after)) }
	method := []byte{1, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c', 0xce}
	for name, c := range map[string]struct{ in, want []byte }{
		"usual":          {with(long, deep(3)), with(long, deep(3))},
		"at the bound":   {with(long, deep(maxHeaderDepth)), with(long, deep(maxHeaderDepth))},
		"too deep":       {with(deep(maxHeaderDepth+1), long), with(long)},
		"twice":          {with(deep(99), long, deep(50)), with(long)},
		"unknown type":   {with(long, unknown, long), with(long)},
		"no headers":     {frame(t, 1<<12, make([]byte, 300)), frame(t, 1<<12, make([]byte, 300))},
		"no valid table": {frame(t, all, append(slices.Clone(before), bytes.Repeat([]byte{0xff}, 300)...)), frame(t, all, append(slices.Clone(before), bytes.Repeat([]byte{0xff}, 300)...))},
	} {
		in, want := slices.Concat(method, c.in, method, method), slices.Concat(method, c.want, method, method)
		for how, r := range map[string]io.Reader{"at once": bytes.NewReader(in), "byte by byte": iotest.OneByteReader(bytes.NewReader(in))} {
			if got, err := io.ReadAll(newHeaderFilter(r)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: got %q, %v, want %q", name, how, got, err, want)
			}
		}
	}
	for _, in := range []string{"", "\x02", "AMQP\x00\x00\x09\x01", "\x02\x00\x01\x00\x00"} {
		if got, err := io.ReadAll(newHeaderFilter(bytes.NewReader([]byte(in)))); err != nil || string(got) != in {
			t.Errorf("got %q, %v, want %q", got, err, in)
		}
	}
}

// No frame makes the filter panic, take long, or return more than it got.
func FuzzHeaderFilter(f *testing.F) {
	f.Add([]byte{contentHeader, 0, 1, 0, 0, 0, 200, 0, 60})
	f.Fuzz(func(t *testing.T, in []byte) {
		if got, _ := io.ReadAll(newHeaderFilter(bytes.NewReader(in))); len(got) > len(in) {
			t.Errorf("%d bytes become %d", len(in), len(got))
		}
	})
}
