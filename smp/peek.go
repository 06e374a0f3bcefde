package smp

// PeekIDs returns the arguments for [OutgoingRoutingKey] from a message: its type and the
// IDs of its account. It stops when it has found all three, so [View.Outgoing] may still
// return an error for the message. An error is an [Error].
func PeekIDs(body []byte) (typ string, debtorID, creditorID int64, err error) {
	if err := checkLength("", body, MaxApplicationBody); err != nil {
		return "", 0, 0, err
	}
	var sc scanner
	if err := sc.open(body); err != nil {
		return "", 0, 0, &Error{kind: errSyntax, Detail: err.Error()}
	}
	wanted := [...]field{
		{name: "type", kind: textKind, max: maxTypeName, check: isType, expects: "one of the ten message types"},
		int64Field("debtor_id"),
		int64Field("creditor_id"),
	}
	var values [len(wanted)]value
	var seen [len(wanted)]bool
	for seen != [len(wanted)]bool{true, true, true} {
		name, tok, more, err := sc.member()
		if err != nil {
			return "", 0, 0, &Error{kind: errSyntax, Detail: err.Error()}
		}
		for i := range wanted {
			f := &wanted[i]
			switch {
			case !more && !seen[i]:
				return "", 0, 0, &Error{kind: errField, Field: f.name, Detail: "is missing, expected " + f.expectation()}
			case more && string(name) == f.name:
				if values[i], seen[i] = f.read(tok); !seen[i] {
					return "", 0, 0, &Error{kind: errField, Field: f.name, Detail: f.refusal(tok)}
				}
			}
		}
	}
	return schemaOf(string(values[0].text)).name, values[1].integer, values[2].integer, nil
}

// maxTypeName bounds the name of a message type, in bytes.
const maxTypeName = 30

func isType(s []byte) bool { return schemaOf(string(s)) != nil }
