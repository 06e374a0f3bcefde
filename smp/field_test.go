package smp

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	int32Max, int32Over   = "2147483647", "2147483648"
	int32Min, int32Under  = "-2147483648", "-2147483649"
	int64Max, int64Over   = "9223372036854775807", "9223372036854775808"
	int64Min, int64Under  = "-9223372036854775808", "-9223372036854775809"
	floatMax, floatOver   = "1.7976931348623157e308", "1.8e308"
	floatLeast, floatMost = "-1.7976931348623157e308", floatMax
)

// text returns a JSON string of n characters c.
func text(c string, n int) string { return `"` + strings.Repeat(c, n) + `"` }

// fieldLimits returns the fields of the specification's table, each with literals at its
// limits that it must accept and refuse. The test adds literals of JSON types that no
// field of the kind accepts.
func fieldLimits() map[string]map[string]limit {
	var (
		int64s  = limit{"integer", []string{int64Min, "0", int64Max}, []string{int64Under, int64Over}}
		int32s  = limit{"integer", []string{int32Min, "0", int32Max}, []string{int32Under, int32Over}}
		amounts = limit{"integer", []string{"0", int64Max}, []string{"-1", int64Over}}
		seconds = limit{"integer", []string{"0", int32Max}, []string{"-1", int32Over}}
		negl    = limit{"float", []string{"0.0", "1e30", floatMax}, []string{"-0.1", floatOver}}
		demurr  = limit{"float", []string{"-100.0", "0.0"}, []string{"-100.1", "0.1"}}
		times   = limit{"timestamp", []string{`"2023-01-01T12:00:00+00:00"`}, []string{`"2023-13-01T00:00:00Z"`, `"2023-01-01"`, `""`}}
		dates   = limit{"date", []string{`"2023-12-31"`}, []string{`"2023-13-01"`, `"2023-01-01T00:00:00Z"`, `""`}}
		code    = limit{"text", []string{`""`, text("x", 30)}, []string{text("x", 31), `"é"`}}
		coord   = limit{"text", []string{`"x"`, text("x", 30)}, []string{text("x", 31), `""`, `"é"`}}
		account = limit{"text", []string{`""`, text("x", 100)}, []string{text("x", 101), `"é"`}}
		config  = limit{"text", []string{`""`, text("x", 2000), text("é", 1000)}, []string{text("x", 2001), text("é", 1001)}}
		note    = limit{"text", []string{`""`, text("x", 500), text("é", 250), text("😀", 125)}, []string{text("x", 501), text("é", 251)}}
		format  = limit{"text", []string{`""`, `"aZ09.-"`, text("x", 8)}, []string{text("x", 9), `"a_"`, `"a b"`, `"é"`, `"json\n"`, `"@"`, `"["`, "\"`\"", `"{"`}}
		iri     = limit{"text", []string{`""`, text("x", 200), text("😀", 200)}, []string{text("x", 201), text("é", 201)}}
		sha256  = limit{"text", []string{`""`, text("0", 64), text("af", 32), text("AF", 32)},
			[]string{text("0", 63), text("0", 65), text("aA", 32), text("g", 64), `"0"`}}
		sequence = limit{"integer", []string{"123", int64Max}, []string{"0", "-1", int64Over}}
		nonZero  = limit{"integer", []string{int64Min, "-1", "1", int64Max}, []string{"0", int64Under, int64Over}}
	)
	common := map[string]limit{"debtor_id": int64s, "creditor_id": int64s, "ts": times}
	transfer := map[string]limit{"coordinator_type": coord, "coordinator_id": int64s, "coordinator_request_id": int64s}
	join := func(groups ...map[string]limit) map[string]limit {
		all := map[string]limit{}
		for _, g := range groups {
			for name, l := range g {
				all[name] = l
			}
		}
		return all
	}
	return map[string]map[string]limit{
		ConfigureAccount: join(common, map[string]limit{
			"negligible_amount": negl, "config_data": config, "config_flags": int32s, "seqnum": int32s,
		}),
		RejectedConfig: join(common, map[string]limit{
			"config_ts": times, "config_seqnum": int32s, "config_flags": int32s, "config_data": config,
			"negligible_amount": negl, "rejection_code": code,
		}),
		PrepareTransfer: join(common, transfer, map[string]limit{
			"min_locked_amount": amounts, "max_locked_amount": amounts, "recipient": account,
			"final_interest_rate_ts": times, "max_commit_delay": seconds,
		}),
		FinalizeTransfer: join(common, transfer, map[string]limit{
			"transfer_id": int64s, "committed_amount": amounts, "transfer_note": note, "transfer_note_format": format,
		}),
		RejectedTransfer: join(common, transfer, map[string]limit{
			"status_code": code, "total_locked_amount": amounts,
		}),
		PreparedTransfer: join(common, transfer, map[string]limit{
			"transfer_id": int64s, "locked_amount": amounts, "recipient": account, "prepared_at": times,
			"demurrage_rate": demurr, "deadline": times, "final_interest_rate_ts": times,
		}),
		FinalizedTransfer: join(common, transfer, map[string]limit{
			"transfer_id": int64s, "committed_amount": amounts, "status_code": code,
			"total_locked_amount": amounts, "prepared_at": times,
		}),
		AccountUpdate: join(common, map[string]limit{
			"creation_date": dates, "last_change_ts": times, "last_change_seqnum": int32s, "principal": int64s,
			"interest":                     {"float", []string{floatLeast, "0.0", floatMost}, []string{floatOver, "-" + floatOver}},
			"interest_rate":                {"float", []string{"-100.0", floatMax}, []string{"-100.1", floatOver}},
			"last_interest_rate_change_ts": times, "last_config_ts": times, "last_config_seqnum": int32s,
			"negligible_amount": negl, "config_flags": int32s, "config_data": config, "account_id": account,
			"debtor_info_iri": iri, "debtor_info_content_type": account, "debtor_info_sha256": sha256,
			"last_transfer_number": amounts, "last_transfer_committed_at": times, "demurrage_rate": demurr,
			"commit_period":           seconds,
			"transfer_note_max_bytes": {"integer", []string{"0", "500"}, []string{"-1", "501"}}, "ttl": seconds,
		}),
		AccountPurge: join(common, map[string]limit{"creation_date": dates}),
		AccountTransfer: join(common, map[string]limit{
			"coordinator_type": coord, "creation_date": dates, "transfer_number": sequence,
			"previous_transfer_number": {"integer", []string{"0", "122"}, []string{"-1", "123", int64Over}},
			"sender":                   account, "recipient": account, "acquired_amount": nonZero, "committed_at": times,
			"principal": int64s, "transfer_note": note, "transfer_note_format": format,
		}),
	}
}

// limit has the literals that one field must accept and refuse.
type limit struct {
	kind             string
	accepts, refuses []string
}

// foreign has literals that no field of a kind accepts.
var foreign = map[string][]string{
	"integer":   {`""`, `"x"`, "true", "null", "[]", "{}", "0.5", `"0.0"`, `"-"`, "1e1"},
	"float":     {`""`, `"x"`, "true", "null", "[]", "{}", `"NaN"`, `"inf"`, "1e400"},
	"text":      {"0", "true", "false", "null", "[]", "{}"},
	"timestamp": {"0", "true", "null", "[]", "{}", `"x"`},
	"date":      {"0", "true", "null", "[]", "{}", `"x"`},
}

// relaxed sets a sample's other fields so that they do not conflict with the limits of one
// field.
func relaxed(typ, field string, s sample) sample {
	s = s.with()
	if s["coordinator_type"] != "" && field != "coordinator_type" {
		s["coordinator_type"] = `"other"`
	}
	switch {
	case typ == PrepareTransfer:
		return s.with("min_locked_amount", "0", "max_locked_amount", int64Max)
	case typ == FinalizedTransfer && field == "status_code":
		return s.with("committed_amount", "0")
	case typ == FinalizedTransfer:
		return s.with("status_code", `"OK"`)
	}
	return s
}

// Invariant: every field accepts exactly the values of the specification's table, and is
// required.
func TestFieldLimits(t *testing.T) {
	all := samples(t)
	for typ, fields := range fieldLimits() {
		if got, want := len(all[typ]), len(fields)+1; got != want {
			t.Errorf("%s has %d fields, expected %d", typ, got, want)
		}
		for name, l := range fields {
			base := relaxed(typ, name, all[typ])
			for _, literal := range l.accepts {
				if _, err := send(typ, base.with(name, literal).body()); err != nil {
					t.Errorf("%s, %s = %.80s: %v", typ, name, literal, err)
				}
			}
			for _, literal := range slices.Concat(l.refuses, foreign[l.kind], []string{""}) {
				_, err := send(typ, base.with(name, literal).body())
				var e *Error
				if !errors.As(err, &e) || e.kind != errField || e.Type != typ {
					t.Errorf("%s, %s = %.80s: error is %v, expected an ErrField", typ, name, literal, err)
				} else if e.Field != name {
					t.Errorf("%s, %s = %.80s: the error names the field %s", typ, name, literal, e.Field)
				}
			}
		}
	}
}

// Invariant: a message with inconsistent fields is refused, and one at the limit of
// consistency is not.
func TestFieldsTogether(t *testing.T) {
	all := samples(t)
	for _, c := range []struct {
		typ   string
		pairs []string
		field string // the invalid field; empty if the message is accepted
	}{
		{PrepareTransfer, []string{"min_locked_amount", "5", "max_locked_amount", "5"}, ""},
		{PrepareTransfer, []string{"min_locked_amount", "6", "max_locked_amount", "5"}, "max_locked_amount"},
		{PrepareTransfer, []string{"coordinator_type", `"direct"`, "coordinator_id", "1", "creditor_id", "1"}, ""},
		{PrepareTransfer, []string{"coordinator_type", `"direct"`, "coordinator_id", "2", "creditor_id", "1"}, "coordinator_id"},
		{PrepareTransfer, []string{"coordinator_type", `"agent"`, "coordinator_id", "2", "creditor_id", "1"}, ""},
		{PrepareTransfer, []string{"coordinator_type", `"issuing"`, "coordinator_id", "7", "debtor_id", "7", "creditor_id", "0"}, ""},
		{PrepareTransfer, []string{"coordinator_type", `"issuing"`, "coordinator_id", "8", "debtor_id", "7", "creditor_id", "0"}, "coordinator_id"},
		{PrepareTransfer, []string{"coordinator_type", `"issuing"`, "coordinator_id", "7", "debtor_id", "7", "creditor_id", "1"}, "creditor_id"},
		{RejectedTransfer, []string{"status_code", `"ok"`}, ""},
		{RejectedTransfer, []string{"status_code", `"OK"`}, "status_code"},
		{FinalizedTransfer, []string{"status_code", `"OK"`, "committed_amount", "5"}, ""},
		{FinalizedTransfer, []string{"status_code", `"OK"`, "committed_amount", "0"}, ""},
		{FinalizedTransfer, []string{"status_code", `"NO"`, "committed_amount", "0"}, ""},
		{FinalizedTransfer, []string{"status_code", `"NO"`, "committed_amount", "5"}, "committed_amount"},
		{AccountTransfer, []string{"transfer_number", "1", "previous_transfer_number", "0"}, ""},
		{AccountTransfer, []string{"transfer_number", "1", "previous_transfer_number", "1"}, "previous_transfer_number"},
		{AccountTransfer, []string{"acquired_amount", "0"}, "acquired_amount"},
		{AccountPurge, []string{"type", `"AccountUpdate"`}, "type"},
		{AccountPurge, []string{"type", `"accountpurge"`}, "type"},
		{AccountPurge, []string{"type", "null"}, "type"},
		{AccountPurge, []string{"type", ""}, "type"},
	} {
		_, err := send(c.typ, all[c.typ].with(c.pairs...).body())
		var e *Error
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s with %v: %v", c.typ, c.pairs, err)
		case c.field != "" && (!errors.As(err, &e) || e.kind != errField || e.Field != c.field):
			t.Errorf("%s with %v: error is %v, expected one about %s", c.typ, c.pairs, err, c.field)
		}
	}
}

// Invariant: a number is accepted in any form that is unambiguous, and written in the one
// form that shows its type.
func TestNumberForms(t *testing.T) {
	base := samples(t)[AccountUpdate]
	for _, c := range []struct{ field, literal, want string }{
		{"principal", "5", "5"},
		{"principal", `"5"`, "5"},
		{"principal", `"-5"`, "-5"},
		{"principal", "5.0", "5"},
		{"principal", "-5.000", "-5"},
		{"principal", "-0", "0"},
		{"principal", "-0.0", "0"},
		{"principal", `"9223372036854775807"`, "9223372036854775807"},
		{"principal", "-9223372036854775808", "-9223372036854775808"},
		{"principal", "9007199254740993", "9007199254740993"},
		{"principal", "9007199254740992.0", "9007199254740992"},
		{"principal", "-9007199254740992.0", "-9007199254740992"},
		{"principal", "9007199254740993.0", ""},
		{"principal", "5.7", ""},
		{"principal", "5.00000000000000000001", ""},
		{"principal", "5e2", ""},
		{"principal", `"5.0"`, ""},
		{"principal", `" 5"`, ""},
		{"principal", `"+5"`, ""},
		{"principal", `"05"`, ""},
		{"principal", `"1_000"`, ""},
		{"principal", `"٥"`, ""},
		{"principal", `"0x5"`, ""},
		{"interest", "5", "5.0"},
		{"interest", "-5", "-5.0"},
		{"interest", "0", "0.0"},
		{"interest", "0.1", "0.1"},
		{"interest", `"0.1"`, "0.1"},
		{"interest", `"5"`, "5.0"},
		{"interest", `"1e2"`, "100.0"},
		{"interest", "1e-7", "1e-07"},
		{"interest", "0.000001", "0.000001"},
		{"interest", "1E+30", "1e+30"},
		{"interest", "123456789012345678", "123456789012345680.0"},
		{"interest", "1e20", "100000000000000000000.0"},
		{"interest", "1e21", "1e+21"},
		{"interest", "1e-400", "0.0"},
		{"interest", `"1e"`, ""},
		{"interest", `"-"`, ""},
		{"interest", "5e-324", "5e-324"},
		{"interest", `" 5"`, ""},
		{"interest", `"Infinity"`, ""},
		{"interest", `"0x1p-2"`, ""},
	} {
		out, err := send(AccountUpdate, base.with(c.field, c.literal).body())
		if c.want == "" {
			if !errors.Is(err, errField) {
				t.Errorf("%s = %s: error is %v, expected an ErrField", c.field, c.literal, err)
			}
			continue
		}
		var written map[string]json.RawMessage
		if err != nil || json.Unmarshal(out, &written) != nil || string(written[c.field]) != c.want {
			t.Errorf("%s = %s: written as %s, %v, expected %s", c.field, c.literal, written[c.field], err, c.want)
		}
	}
}
