//go:build linux

package faulttest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"peerlink/node/nodetype"
	"peerlink/smp"
)

// ahead is how far the clocks of the world are ahead of the machine's.
const ahead = 30 * 24 * time.Hour

func worldTime() time.Time { return time.Now().Add(ahead) }

// debtors is the first debtor ID in messages: all of them are in the ranges of both
// agents.
const debtors = 0x1234abcd_00_000000

// creditor is the creditor ID in messages with the creditors agent. With a
// debtors agent it is 0.
const creditor = 0x000001_01_00000000

// poisonText is the prefix of config_data in messages that must not arrive.
const poisonText = "poison"

// message contains the fields of the messages of the suite.
type message struct {
	Type     string `json:"type"`
	Debtor   int64  `json:"debtor_id"`
	Creditor int64  `json:"creditor_id"`
	TS       string `json:"ts"`
	Data     string `json:"config_data"`
	Flags    int    `json:"config_flags"`
	Amount   number `json:"negligible_amount"`
	Seqnum   *int   `json:"seqnum,omitempty"`

	ConfigTS     string `json:"config_ts,omitempty"`
	ConfigSeqnum *int   `json:"config_seqnum,omitempty"`
	Code         string `json:"rejection_code,omitempty"`
}

// number is a floating point number in the form of SMP.
type number float64

func (n number) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%.1f", n), nil }

// message returns the n-th message of a direction.
func (d *direction) message(n int, at time.Time) message {
	ts := at.UTC().Format("2006-01-02T15:04:05.000000+00:00")
	m := message{
		Type: smp.ConfigureAccount, Debtor: debtors + int64(n), TS: ts, Amount: 0.5, Flags: n % 8,
		Data: fmt.Sprintf("%s %d %s %s", d.name, n, ts, filler(n)),
	}
	if d.from.kind == nodetype.CreditorsAgent || d.to.kind == nodetype.CreditorsAgent {
		m.Creditor = creditor
	}
	if d.from.kind == nodetype.AccountingAuthority {
		m.Type, m.ConfigTS, m.ConfigSeqnum, m.Code = smp.RejectedConfig, ts, &n, "X"
	} else {
		m.Seqnum = &n
	}
	return m
}

// routingKey returns the routing key with which an application sends a message.
func (d *direction) routingKey(m message) string {
	return smp.OutgoingRoutingKey(d.from.kind, d.to.kind, m.Debtor, m.Creditor)
}

// poison returns a message that the peer refuses, or one that cannot be sent to the
// peer.
func (d *direction) poison(sendable bool) (m message, body []byte) {
	m = d.message(0, worldTime().AddDate(10, 0, 0)) // with a timestamp in the future
	m.Data = poisonText
	body, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	if !sendable {
		body = []byte(`{"type": "` + poisonText + `"`)
	}
	return m, body
}

// filler returns a text that depends only on the number, to detect any change of it.
func filler(n int) string {
	const letters = "abc \"\\\t\n{}✓ü\u0000\u007f�𝄞:,0"
	runes := []rune(letters)
	r := rand.New(rand.NewPCG(uint64(n), 0))
	var b strings.Builder
	for size := r.IntN(1000); b.Len() < size; {
		b.WriteRune(runes[r.IntN(len(runes))])
	}
	return b.String()
}

// check parses a message that has arrived. It returns its direction, its number, and
// a description of its damage, if it has any.
func (w *world) check(body []byte) (d *direction, n int, damage string) {
	var m message
	var name, ts string
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, 0, fmt.Sprintf("%v: %.300s", err, body)
	}
	if _, err := fmt.Sscan(m.Data, &name, &n, &ts); err != nil || n < 0 {
		return nil, 0, fmt.Sprintf("not a message of the suite: %.300s", body)
	}
	at, err := time.Parse(time.RFC3339, ts)
	d = w.direction(name)
	if err != nil || d == nil {
		return nil, 0, fmt.Sprintf("not a message of the suite: %.300s", body)
	}
	want, err := json.Marshal(d.message(n, at))
	if err != nil {
		return nil, 0, err.Error()
	}
	got, err := json.Marshal(m)
	if err != nil || string(got) != string(want) {
		damage = fmt.Sprintf("arrived %s, want %s", got, want)
	}
	return d, n, damage
}
