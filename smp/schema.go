package smp

import (
	"math"
	"slices"
	"unicode/utf8"
)

// The message types. (Section "The ten message types".)
const (
	ConfigureAccount  = "ConfigureAccount"
	RejectedConfig    = "RejectedConfig"
	PrepareTransfer   = "PrepareTransfer"
	FinalizeTransfer  = "FinalizeTransfer"
	RejectedTransfer  = "RejectedTransfer"
	PreparedTransfer  = "PreparedTransfer"
	FinalizedTransfer = "FinalizedTransfer"
	AccountUpdate     = "AccountUpdate"
	AccountPurge      = "AccountPurge"
	AccountTransfer   = "AccountTransfer"
)

// Types returns all message types, those toward an accounting authority first.
func Types() []string {
	types := make([]string, len(schemas))
	for i, s := range schemas {
		types[i] = s.name
	}
	return types
}

// IsIn reports whether messages of this type are sent to an accounting authority.
func IsIn(typ string) bool {
	s := schemaOf(typ)
	return s != nil && s.in
}

// IsOut reports whether messages of this type are sent by an accounting authority.
func IsOut(typ string) bool {
	s := schemaOf(typ)
	return s != nil && !s.in
}

// schema is a message type: its direction and its fields.
type schema struct {
	name   string
	in     bool // sent to an accounting authority
	fields []field
}

// Every message begins with the first four fields, and a message about a transfer
// continues with its coordinator: always at these positions.
const (
	typeField = iota
	debtorField
	creditorField
	tsField
	coordinatorTypeField
	coordinatorIDField
	coordinatorRequestField

	maxFields = 26 // maximum for any message
)

const (
	maxCode         = 30   // bytes of a coordinator type, status or rejection code
	maxAccountID    = 100  // bytes
	maxConfigData   = 2000 // bytes
	maxTransferNote = 500  // bytes
	maxIRI          = 200  // characters
	maxContentType  = 100  // bytes
)

// schemas is the table of all messages. (Section "The ten message types".)
var schemas = []*schema{
	toward(ConfigureAccount,
		floatField("negligible_amount", 0, math.MaxFloat64),
		privateField("config_data", maxConfigData),
		int32Field("config_flags"),
		int32Field("seqnum"),
	),
	toward(PrepareTransfer, coordinated(
		amountField("min_locked_amount"),
		amountField("max_locked_amount"),
		asciiField("recipient", 0, maxAccountID),
		timestampField("final_interest_rate_ts"),
		durationField("max_commit_delay"),
	)...),
	toward(FinalizeTransfer, coordinated(
		int64Field("transfer_id"),
		amountField("committed_amount"),
		privateField("transfer_note", maxTransferNote),
		noteFormatField("transfer_note_format"),
	)...),
	from(RejectedConfig,
		timestampField("config_ts"),
		int32Field("config_seqnum"),
		int32Field("config_flags"),
		privateField("config_data", maxConfigData),
		floatField("negligible_amount", 0, math.MaxFloat64),
		asciiField("rejection_code", 0, maxCode),
	),
	from(RejectedTransfer, coordinated(
		asciiField("status_code", 0, maxCode),
		amountField("total_locked_amount"),
	)...),
	from(PreparedTransfer, coordinated(
		int64Field("transfer_id"),
		amountField("locked_amount"),
		asciiField("recipient", 0, maxAccountID),
		timestampField("prepared_at"),
		floatField("demurrage_rate", -100, 0),
		timestampField("deadline"),
		timestampField("final_interest_rate_ts"),
	)...),
	from(FinalizedTransfer, coordinated(
		int64Field("transfer_id"),
		amountField("committed_amount"),
		asciiField("status_code", 0, maxCode),
		amountField("total_locked_amount"),
		timestampField("prepared_at"),
	)...),
	from(AccountUpdate,
		dateField("creation_date"),
		timestampField("last_change_ts"),
		int32Field("last_change_seqnum"),
		int64Field("principal"),
		floatField("interest", -math.MaxFloat64, math.MaxFloat64),
		floatField("interest_rate", -100, math.MaxFloat64),
		timestampField("last_interest_rate_change_ts"),
		timestampField("last_config_ts"),
		int32Field("last_config_seqnum"),
		floatField("negligible_amount", 0, math.MaxFloat64),
		int32Field("config_flags"),
		privateField("config_data", maxConfigData),
		asciiField("account_id", 0, maxAccountID),
		iriField("debtor_info_iri"),
		asciiField("debtor_info_content_type", 0, maxContentType),
		sha256Field("debtor_info_sha256"),
		amountField("last_transfer_number"),
		timestampField("last_transfer_committed_at"),
		floatField("demurrage_rate", -100, 0),
		durationField("commit_period"),
		integerField("transfer_note_max_bytes", 0, maxTransferNote),
		durationField("ttl"),
	),
	from(AccountPurge,
		dateField("creation_date"),
	),
	from(AccountTransfer,
		asciiField("coordinator_type", 1, maxCode),
		dateField("creation_date"),
		integerField("transfer_number", 1, math.MaxInt64),
		amountField("previous_transfer_number"),
		asciiField("sender", 0, maxAccountID),
		asciiField("recipient", 0, maxAccountID),
		int64Field("acquired_amount"),
		timestampField("committed_at"),
		int64Field("principal"),
		privateField("transfer_note", maxTransferNote),
		noteFormatField("transfer_note_format"),
	),
}

// inconsistency checks the fields of a message, each of which is valid by itself, against
// each other. It returns the invalid field and the reason, or an empty field. (Section
// "The ten message types".)
func (m *message) inconsistency() (name, detail string) {
	switch m.schema.name {
	case PrepareTransfer:
		if m.integer("max_locked_amount") < m.integer("min_locked_amount") {
			return "max_locked_amount", "is smaller than min_locked_amount"
		}
		return m.coordinatorInconsistency()
	case RejectedTransfer:
		if m.text("status_code") == "OK" {
			return "status_code", `is "OK", expected the reason of the rejection`
		}
	case FinalizedTransfer:
		if m.text("status_code") != "OK" && m.integer("committed_amount") != 0 {
			return "committed_amount", `is not 0, as it must be unless status_code is "OK"`
		}
	case AccountTransfer:
		if m.integer("acquired_amount") == 0 {
			return "acquired_amount", "is 0, expected the amount of a transfer"
		}
		if m.integer("previous_transfer_number") >= m.integer("transfer_number") {
			return "previous_transfer_number", "is not smaller than transfer_number"
		}
	}
	return "", ""
}

// coordinatorInconsistency checks the coordinator of a transfer that the sender
// coordinates itself: "direct" as the creditor who pays, "issuing" as the debtor who
// issues the currency.
func (m *message) coordinatorInconsistency() (name, detail string) {
	coordinator := m.values[coordinatorIDField].integer
	switch string(m.values[coordinatorTypeField].text) {
	case direct:
		if coordinator != m.values[creditorField].integer {
			return "coordinator_id", "is not the creditor_id, as it must be for a direct transfer"
		}
	case issuing:
		if coordinator != m.values[debtorField].integer {
			return "coordinator_id", "is not the debtor_id, as it must be for an issuing transfer"
		}
		if m.values[creditorField].integer != rootCreditor {
			return "creditor_id", "is not 0, as it must be for an issuing transfer"
		}
	}
	return "", ""
}

// The coordinator types with rules of their own. ("Incoming", 3.)
const (
	direct  = "direct"
	agent   = "agent"
	issuing = "issuing"
)

// rootCreditor is the creditor ID of a debtor's own account, from which the currency is
// issued.
const rootCreditor = 0

// toward returns a type of messages to an accounting authority.
func toward(name string, fields ...field) *schema {
	return &schema{name: name, in: true, fields: common(name, fields)}
}

// from returns a type of messages from an accounting authority.
func from(name string, fields ...field) *schema {
	return &schema{name: name, fields: common(name, fields)}
}

// common prepends the fields that each message has.
func common(name string, fields []field) []field {
	return append([]field{
		typeField:     constField("type", name),
		debtorField:   int64Field("debtor_id"),
		creditorField: int64Field("creditor_id"),
		tsField:       timestampField("ts"),
	}, fields...)
}

// coordinated prepends the coordinator fields.
func coordinated(fields ...field) []field {
	return append([]field{
		asciiField("coordinator_type", 1, maxCode),
		int64Field("coordinator_id"),
		int64Field("coordinator_request_id"),
	}, fields...)
}

func noteFormatField(name string) field {
	return field{
		name: name, kind: textKind, max: 8, check: isNoteFormat,
		expects: "a string of at most 8 of the characters 0-9A-Za-z.-",
	}
}

func isNoteFormat(s []byte) bool {
	for _, c := range s {
		letter := 'A' <= c&^0x20 && c&^0x20 <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func sha256Field(name string) field {
	return field{
		name: name, kind: textKind, max: 64, check: isSHA256,
		expects: "an empty string or 64 hexadecimal digits of one case",
	}
}

func isSHA256(s []byte) bool {
	upper, lower := false, false
	for _, c := range s {
		switch {
		case '0' <= c && c <= '9':
		case 'A' <= c && c <= 'F':
			upper = true
		case 'a' <= c && c <= 'f':
			lower = true
		default:
			return false
		}
	}
	return len(s) == 0 || len(s) == 64 && !(upper && lower)
}

func iriField(name string) field {
	return field{
		name: name, kind: textKind, max: maxIRI * utf8.UTFMax, private: true,
		check:   func(s []byte) bool { return utf8.RuneCount(s) <= maxIRI },
		expects: "a string of at most 200 characters",
	}
}

// schemaOf returns the schema of a message type, or nil if there is no such type.
func schemaOf(typ string) *schema {
	for _, s := range schemas {
		if s.name == typ {
			return s
		}
	}
	return nil
}

// index returns the position of the field called name, or -1 if there is none. The search
// starts at hint, because most senders write their fields in the same order.
func (s *schema) index(name []byte, hint int) int {
	for i := range s.fields {
		if i += hint; i >= len(s.fields) {
			i -= len(s.fields)
		}
		if s.fields[i].name == string(name) {
			return i
		}
	}
	return -1
}

// hasCoordinatorID reports whether messages of this type have a coordinator ID. (An
// AccountTransfer has only a coordinator type.)
func (s *schema) hasCoordinatorID() bool {
	return len(s.fields) > coordinatorIDField && s.fields[coordinatorIDField].name == "coordinator_id"
}

// hasCoordinatorType reports whether messages of this type have a coordinator type.
func (s *schema) hasCoordinatorType() bool {
	return s.fields[coordinatorTypeField].name == "coordinator_type"
}

// position is like index, without a hint.
func (s *schema) position(name string) int {
	return slices.IndexFunc(s.fields, func(f field) bool { return f.name == name })
}
