package smp

import "time"

// Answer returns the answer of a deactivated peer to a message that is still queued for
// it, so that the node's application can release the state that it keeps for that peer: an
// account is scheduled for deletion, a prepared transfer is dismissed, a configuration is
// rejected. answerType is empty if the message needs no answer. (Section "Draining a
// deactivated peer".)
//
// typ is the type of the message, and body the result of [View.Outgoing]. The answer is in
// the form in which the peer would have sent it, for [View.Incoming], with the timestamp
// now.
func Answer(typ string, body []byte, now time.Time) (answerType string, answer []byte, err error) {
	s := schemaOf(typ)
	if s == nil {
		return "", nil, unknownType(typ)
	}
	var m message
	if err := checkLength(s.name, body, MaxBody); err != nil {
		return "", nil, err
	}
	if err := m.parse(s, body); err != nil {
		return "", nil, err
	}
	var a message
	switch s.name {
	case AccountUpdate:
		a.schema = schemaOf(ConfigureAccount)
		a.set("negligible_amount", value{float: deletable})
		a.set("config_flags", value{integer: scheduledForDeletion})
	case PreparedTransfer:
		a.schema = schemaOf(FinalizeTransfer) // committed_amount is 0: the transfer is dismissed
		a.copy(&m, "coordinator_type", "coordinator_type")
		a.copy(&m, "coordinator_id", "coordinator_id")
		a.copy(&m, "coordinator_request_id", "coordinator_request_id")
		a.copy(&m, "transfer_id", "transfer_id")
	case ConfigureAccount:
		a.schema = schemaOf(RejectedConfig)
		a.copy(&m, "config_ts", "ts")
		a.copy(&m, "config_seqnum", "seqnum")
		a.copy(&m, "config_flags", "config_flags")
		a.copy(&m, "negligible_amount", "negligible_amount")
		a.copy(&m, "config_data", "config_data")
		a.set("rejection_code", value{text: []byte("NO_CONNECTION_TO_DEBTOR")})
	default:
		return "", nil, nil
	}
	a.set("type", value{text: []byte(a.schema.name)})
	a.copy(&m, "debtor_id", "debtor_id")
	a.copy(&m, "creditor_id", "creditor_id")
	a.set("ts", timestampValue(now))
	return a.schema.name, a.body(len(body) + 256), nil
}

const (
	// deletable is a negligible amount that is larger than the balance of any account, so
	// that no balance prevents the deletion of the account.
	deletable = 1e30
	// scheduledForDeletion is the config flag of an account that may be deleted.
	scheduledForDeletion = 1
)

// timestampValue returns the value of a timestamp field at time t.
func timestampValue(t time.Time) value {
	text, micros, _ := readTimestamp([]byte(t.UTC().Format("2006-01-02T15:04:05.000000Z")))
	return value{text: text, integer: micros}
}

// copy sets a field of m to the value of a field of other.
func (m *message) copy(other *message, name, otherName string) {
	m.set(name, other.get(otherName))
}
