package smp

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// peers returns the views that a creditors agent and an authority have of each other. own
// and given are the agent's creditors subnets, its own and the one assigned by the
// authority; debtors is the authority's range of debtors.
func peers(t testing.TB, own, given, debtors string) (ca, aa View) {
	t.Helper()
	ca = View{
		Owner: nodetype.CreditorsAgent, Peer: nodetype.AccountingAuthority,
		OwnerCreditors: mustParseSubnet(t, own), PeerCreditors: mustParseSubnet(t, given), PeerDebtors: mustParseSubnet(t, debtors),
	}
	for _, v := range []View{ca, ca.reversed()} {
		if err := v.Check(); err != nil {
			t.Fatal(err)
		}
	}
	return ca, ca.reversed()
}

// Invariant: a view with which a message could reach the wrong account, or of nodes that
// cannot be peers, refuses all messages.
func TestViewCheck(t *testing.T) {
	const aa, ca, da = nodetype.AccountingAuthority, nodetype.CreditorsAgent, nodetype.DebtorsAgent
	sub := func(digits string) Subnet { return mustParseSubnet(t, digits) }
	zero := exactly(0)
	for _, c := range []struct {
		view View
		want string // part of the error; empty if there is none
	}{
		{View{aa, ca, Subnet{}, sub("000001"), sub("1234abcd")}, ""},
		{View{aa, da, Subnet{}, zero, sub("1234abcd00")}, ""},
		{View{ca, aa, sub("000008"), sub("000001"), sub("1234abcd")}, ""},
		{View{da, aa, Subnet{}, zero, sub("1234abcd00")}, ""},
		{View{}, "can not be peers"},
		{View{aa, aa, Subnet{}, zero, sub("1234abcd")}, "can not be peers"},
		{View{ca, da, Subnet{}, zero, sub("1234abcd")}, "can not be peers"},
		{View{ca, aa, sub("00000008"), sub("000001"), sub("1234abcd")}, "differ in length"},
		{View{ca, aa, Subnet{}, sub("000001"), sub("1234abcd")}, "differ in length"},
		{View{aa, da, Subnet{}, sub("000001"), sub("1234abcd00")}, "between an authority and a debtors agent"},
		{View{aa, da, Subnet{}, Subnet{}, sub("1234abcd00")}, "between an authority and a debtors agent"},
		{View{da, aa, Subnet{}, Subnet{}, sub("1234abcd00")}, "between an authority and a debtors agent"},
		{View{aa, ca, Subnet{}, Subnet{Mask: 1}, sub("1234abcd")}, "peer's creditors range"},
		{View{aa, ca, Subnet{}, sub("000001"), Subnet{Value: 1}}, "peer's debtors range"},
		{View{ca, aa, Subnet{Value: 1}, Subnet{}, sub("1234abcd")}, "own creditors range"},
	} {
		err := c.view.Check()
		if c.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.view, err)
			}
			continue
		}
		if !errors.Is(err, ErrView) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error is %v, expected an ErrView with %q", c.view, err, c.want)
		}
		for typ, s := range samples(t) {
			if _, err := c.view.Outgoing(typ, ContentType, s.body()); !errors.Is(err, ErrView) {
				t.Errorf("%+v: Outgoing returns %v", c.view, err)
			}
			if _, err := c.view.Incoming(typ, ContentType, s.body(), arrival); !errors.Is(err, ErrView) {
				t.Errorf("%+v: Incoming returns %v", c.view, err)
			}
		}
	}
}

// Invariant: a message of a creditors agent arrives at the authority with the IDs of the
// assigned subnet, and the authority's answer arrives with the agent's own IDs, for any
// bits of the subnets, including the top one.
func TestTranslationThereAndBack(t *testing.T) {
	all := samples(t)
	const low = 0x9876543210 // bits that the translation keeps
	for _, c := range []struct{ own, given, debtors string }{
		{"000008", "000001", "1234abcd"},
		{"000008", "800001", "1234abcd"},
		{"800008", "000001", "f234abcd"},
		{"ffffff", "800000", "ffffffff"},
		{"7fffff", "ffffff", "80000000"},
		{"000001", "000001", "00000000"},
		{"08", "f1", "1234abcd"},
		{"", "", ""},
	} {
		ca, aa := peers(t, c.own, c.given, c.debtors)
		own := int64(ca.OwnerCreditors.Value | low)
		other := own ^ 1
		given := int64(ca.PeerCreditors.Value | low)
		debtor := int64(ca.PeerDebtors.Value | 5)
		for _, coordinator := range []string{direct, agent} {
			coordinatorID := own
			if coordinator == agent {
				coordinatorID = other
			}
			request := all[PrepareTransfer].with(
				"debtor_id", fmt.Sprint(debtor), "creditor_id", fmt.Sprint(own),
				"coordinator_type", fmt.Sprintf("%q", coordinator), "coordinator_id", fmt.Sprint(coordinatorID))
			sent, err := ca.Outgoing(PrepareTransfer, ContentType, request.body())
			if err != nil {
				t.Fatalf("%+v, %s: %v", c, coordinator, err)
			}
			arrived, err := aa.Incoming(PrepareTransfer, ContentType, sent, arrival)
			if err != nil {
				t.Fatalf("%+v, %s: %v", c, coordinator, err)
			}
			h := arrived.Headers
			if h.CreditorID != given || h.DebtorID != debtor || h.CoordinatorID != given^(own^coordinatorID) {
				t.Errorf("%+v, %s: arrived with %+v, expected creditor %d", c, coordinator, h, given)
			}
			if got, want := arrived.RoutingKey, RoutingKey(debtor, given); got != want {
				t.Errorf("%+v, %s: routing key is %s, expected %s", c, coordinator, got, want)
			}

			answer := all[PreparedTransfer].with(
				"debtor_id", fmt.Sprint(h.DebtorID), "creditor_id", fmt.Sprint(h.CreditorID),
				"coordinator_type", fmt.Sprintf("%q", h.CoordinatorType), "coordinator_id", fmt.Sprint(h.CoordinatorID))
			sent, err = aa.Outgoing(PreparedTransfer, ContentType, answer.body())
			if err != nil {
				t.Fatalf("%+v, %s: %v", c, coordinator, err)
			}
			back, err := ca.Incoming(PreparedTransfer, ContentType, sent, arrival)
			if err != nil {
				t.Fatalf("%+v, %s: %v", c, coordinator, err)
			}
			var ids struct {
				CreditorID    int64 `json:"creditor_id"`
				CoordinatorID int64 `json:"coordinator_id"`
			}
			if err := json.Unmarshal(back.Body, &ids); err != nil {
				t.Fatal(err)
			}
			h = back.Headers
			if ids.CreditorID != own || h.CreditorID != own || ids.CoordinatorID != coordinatorID || h.CoordinatorID != coordinatorID {
				t.Errorf("%+v, %s: came back as %+v with %+v, expected %d and %d", c, coordinator, ids, h, own, coordinatorID)
			}
			if got, want := back.RoutingKey, RoutingKey(coordinatorID); got != want {
				t.Errorf("%+v, %s: routing key is %s, expected %s", c, coordinator, got, want)
			}
		}
	}
}

// Invariant: no ID outside of the ranges agreed with the peer is accepted in either
// direction, and the error names the field.
func TestForeignIDs(t *testing.T) {
	all := samples(t)
	ca, aa := peers(t, "000008", "800001", "1234abcd")
	own, given, debtor := "8796093022208", fmt.Sprint(math.MinInt64+1<<40), "1311862288428302337"
	outgoing := func(v View, typ string, s sample) error {
		_, err := v.Outgoing(typ, ContentType, s.body())
		return err
	}
	incoming := func(v View, typ string, s sample) error {
		_, err := v.Incoming(typ, ContentType, s.body(), arrival)
		return err
	}
	request, answer := all[PrepareTransfer], all[PreparedTransfer]
	for _, c := range []struct {
		name  string
		pass  func(View, string, sample) error
		view  View
		typ   string
		s     sample
		kind  error // nil: accepted
		field string
	}{
		{"own creditor", outgoing, ca, PrepareTransfer, request.with("creditor_id", own, "debtor_id", debtor, "coordinator_id", own), nil, ""},
		{"another agent's creditor", outgoing, ca, PrepareTransfer, request.with("creditor_id", given, "debtor_id", debtor, "coordinator_id", given), errForeignID, "creditor_id"},
		{"another agent's coordinator", outgoing, ca, PrepareTransfer, request.with("creditor_id", own, "debtor_id", debtor, "coordinator_id", given, "coordinator_type", `"agent"`), errForeignID, "coordinator_id"},
		{"another authority's debtor", outgoing, ca, PrepareTransfer, request.with("creditor_id", own, "debtor_id", "1", "coordinator_id", own), errForeignID, "debtor_id"},
		{"the peer's creditor", outgoing, aa, PreparedTransfer, answer.with("creditor_id", given, "debtor_id", debtor), nil, ""},
		{"another peer's creditor", outgoing, aa, PreparedTransfer, answer.with("creditor_id", own, "debtor_id", debtor), errForeignID, "creditor_id"},
		{"a creditor but for the top bit", outgoing, aa, PreparedTransfer, answer.with("creditor_id", "1099511627776", "debtor_id", debtor), errForeignID, "creditor_id"},

		{"the peer's creditor", incoming, aa, PrepareTransfer, request.with("creditor_id", given, "debtor_id", debtor, "coordinator_id", given), nil, ""},
		{"another peer's creditor", incoming, aa, PrepareTransfer, request.with("creditor_id", own, "debtor_id", debtor, "coordinator_id", own), errForeignID, "creditor_id"},
		{"another authority's debtor", incoming, aa, PrepareTransfer, request.with("creditor_id", given, "debtor_id", "1", "coordinator_id", given), errForeignID, "debtor_id"},
		{"another peer's coordinator", incoming, aa, PrepareTransfer, request.with("creditor_id", given, "debtor_id", debtor, "coordinator_id", own, "coordinator_type", `"agent"`), errCoordinator, "coordinator_id"},
		{"a debtor as coordinator", incoming, aa, PrepareTransfer, request.with("creditor_id", given, "debtor_id", debtor, "coordinator_type", `"Direct"`), errCoordinator, "coordinator_type"},
		{"own creditor, untranslated", incoming, ca, PreparedTransfer, answer.with("creditor_id", own, "debtor_id", debtor, "coordinator_id", own), errForeignID, "creditor_id"},
		{"another creditor directly", incoming, ca, PreparedTransfer, answer.with("creditor_id", given, "debtor_id", debtor, "coordinator_id", "-9223370937343148031", "coordinator_type", `"direct"`), errCoordinator, "coordinator_id"},
	} {
		err := c.pass(c.view, c.typ, c.s)
		if c.kind == nil {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		var e *Error
		if !errors.Is(err, c.kind) || !errors.As(err, &e) || e.Field != c.field || e.Type != c.typ {
			t.Errorf("%s: error is %v, expected a %v about %s", c.name, err, c.kind, c.field)
		}
	}
}

// Invariant: every type is accepted in one direction only, and only as JSON.
func TestDirections(t *testing.T) {
	for typ, s := range samples(t) {
		if IsIn(typ) == IsOut(typ) {
			t.Errorf("%s: IsIn and IsOut are both %v", typ, IsIn(typ))
		}
		v := open(typ)
		if _, err := v.Outgoing(typ, ContentType, s.body()); err != nil {
			t.Errorf("%v sends %s: %v", v.Owner, typ, err)
		}
		if _, err := v.reversed().Outgoing(typ, ContentType, s.body()); !errors.Is(err, errType) {
			t.Errorf("%v sends %s: %v, expected an ErrType", v.Peer, typ, err)
		}
		if _, err := v.Incoming(typ, ContentType, s.body(), arrival); !errors.Is(err, errType) {
			t.Errorf("%v receives %s: %v, expected an ErrType", v.Owner, typ, err)
		}
		for _, contentType := range []string{"", "text/plain", "application/json; charset=utf-8", "Application/JSON"} {
			if _, err := v.Outgoing(typ, contentType, s.body()); !errors.Is(err, errContentType) {
				t.Errorf("%s as %q: %v, expected an ErrContentType", typ, contentType, err)
			}
		}
	}
	for _, typ := range []string{"", "PrepareTransfer ", "preparetransfer", strings.Repeat("x", 9999), "\xff\x00"} {
		if IsIn(typ) || IsOut(typ) {
			t.Errorf("%.20q has a direction", typ)
		}
		if _, err := open(PrepareTransfer).Outgoing(typ, ContentType, []byte("{}")); !errors.Is(err, errType) {
			t.Errorf("%.20q: %v, expected an ErrType", typ, err)
		}
	}
	if got, want := Types(), slices.Sorted(maps.Keys(samples(t))); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("types are %v, expected %v", got, want)
	}
}

// Invariant: a peer's timestamp may be two hours in the future, and not a microsecond
// more; it may be any time in the past, and an application's timestamp is not checked.
func TestFutureTimestamps(t *testing.T) {
	s := samples(t)[AccountPurge]
	sender, receiver := open(AccountPurge), open(AccountPurge).reversed()
	now := time.Date(2026, 5, 4, 3, 2, 1, 123456789, time.FixedZone("", -3600))
	for _, c := range []struct {
		ts time.Time
		ok bool
	}{
		{now.Add(-1000 * time.Hour), true},
		{now, true},
		{now.Add(7200 * time.Second), true},
		{now.Add(7200*time.Second + time.Microsecond), false},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), false},
	} {
		body := s.with("ts", c.ts.Format(`"2006-01-02T15:04:05.999999Z07:00"`)).body()
		if _, err := sender.Outgoing(AccountPurge, ContentType, body); err != nil {
			t.Errorf("sent at %v: %v", c.ts, err)
		}
		_, err := receiver.Incoming(AccountPurge, ContentType, body, now)
		if c.ok && err != nil || !c.ok && !errors.Is(err, errFuture) {
			t.Errorf("received at %v, sent at %v: %v", now, c.ts, err)
		}
		if text := "is 7200 seconds in the future, at most 7200 are allowed"; !c.ok && c.ts.Year() == 2026 && !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("error is %v, expected %q", err, text)
		}
	}
}

// Invariant: no message over 8,192 bytes is accepted from a peer or sent to it, but an
// application's message may be longer if it shrinks to that.
func TestLengths(t *testing.T) {
	s := samples(t)[ConfigureAccount]
	sender, receiver := open(ConfigureAccount), open(ConfigureAccount).reversed()
	padded := func(s sample, length int) []byte {
		body := s.body()
		return append(body, strings.Repeat(" ", length-len(body))...)
	}
	if _, err := receiver.Incoming(ConfigureAccount, ContentType, padded(s, MaxBody), arrival); err != nil {
		t.Error(err)
	}
	if _, err := receiver.Incoming(ConfigureAccount, ContentType, padded(s, MaxBody+1), arrival); !errors.Is(err, errTooLong) {
		t.Errorf("error is %v, expected an ErrTooLong", err)
	}
	if out, err := sender.Outgoing(ConfigureAccount, ContentType, padded(s, MaxApplicationBody)); err != nil || len(out) > 1000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if _, err := sender.Outgoing(ConfigureAccount, ContentType, padded(s, MaxApplicationBody+1)); !errors.Is(err, errTooLong) {
		t.Errorf("error is %v, expected an ErrTooLong", err)
	}
	// 2,000 bytes of control characters are permitted, but need six bytes each in JSON.
	if out, err := sender.Outgoing(ConfigureAccount, ContentType, s.with("config_data", text(`\u0001`, 2000)).body()); !errors.Is(err, errTooLong) || out != nil {
		t.Errorf("%d bytes, error is %v, expected an ErrTooLong", len(out), err)
	}
	if out, err := sender.Outgoing(ConfigureAccount, ContentType, s.with("config_data", text(`\u0001`, 1300)).body()); err != nil || len(out) > MaxBody {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
