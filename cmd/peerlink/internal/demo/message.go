package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"peerlink/node/nodetype"
)

// message has all fields of the SMP messages that the demo exchanges. Fields that a message
// type does not have are omitted in JSON.
type message struct {
	Type       string `json:"type"`
	DebtorID   int64  `json:"debtor_id"`
	CreditorID int64  `json:"creditor_id"`
	TS         string `json:"ts"`

	// ConfigureAccount
	NegligibleAmount *float  `json:"negligible_amount,omitempty"`
	ConfigData       *string `json:"config_data,omitempty"`
	ConfigFlags      *int32  `json:"config_flags,omitempty"`
	Seqnum           *int32  `json:"seqnum,omitempty"`

	// AccountUpdate
	CreationDate       string  `json:"creation_date,omitempty"`
	LastChangeTS       string  `json:"last_change_ts,omitempty"`
	LastChangeSeqnum   *int32  `json:"last_change_seqnum,omitempty"`
	Principal          *int64  `json:"principal,omitempty"`
	Interest           *float  `json:"interest,omitempty"`
	InterestRate       *float  `json:"interest_rate,omitempty"`
	LastRateChangeTS   string  `json:"last_interest_rate_change_ts,omitempty"`
	LastConfigTS       string  `json:"last_config_ts,omitempty"`
	LastConfigSeqnum   *int32  `json:"last_config_seqnum,omitempty"`
	AccountID          string  `json:"account_id,omitempty"`
	DebtorInfoIRI      *string `json:"debtor_info_iri,omitempty"`
	DebtorInfoType     *string `json:"debtor_info_content_type,omitempty"`
	DebtorInfoSHA256   *string `json:"debtor_info_sha256,omitempty"`
	LastTransferNumber *int64  `json:"last_transfer_number,omitempty"`
	LastTransferAt     string  `json:"last_transfer_committed_at,omitempty"`
	DemurrageRate      *float  `json:"demurrage_rate,omitempty"`
	CommitPeriod       *int32  `json:"commit_period,omitempty"`
	NoteMaxBytes       *int32  `json:"transfer_note_max_bytes,omitempty"`
	TTL                *int32  `json:"ttl,omitempty"`

	// Transfers
	CoordinatorType string  `json:"coordinator_type,omitempty"`
	CoordinatorID   *int64  `json:"coordinator_id,omitempty"`
	RequestID       *int64  `json:"coordinator_request_id,omitempty"`
	MinLocked       *int64  `json:"min_locked_amount,omitempty"`
	MaxLocked       *int64  `json:"max_locked_amount,omitempty"`
	Recipient       string  `json:"recipient,omitempty"`
	FinalRateTS     string  `json:"final_interest_rate_ts,omitempty"`
	MaxCommitDelay  *int32  `json:"max_commit_delay,omitempty"`
	TransferID      *int64  `json:"transfer_id,omitempty"`
	LockedAmount    *int64  `json:"locked_amount,omitempty"`
	PreparedAt      string  `json:"prepared_at,omitempty"`
	Deadline        string  `json:"deadline,omitempty"`
	CommittedAmount *int64  `json:"committed_amount,omitempty"`
	Note            *string `json:"transfer_note,omitempty"`
	NoteFormat      *string `json:"transfer_note_format,omitempty"`
	StatusCode      string  `json:"status_code,omitempty"`
	TotalLocked     *int64  `json:"total_locked_amount,omitempty"`

	// AccountTransfer
	TransferNumber         *int64 `json:"transfer_number,omitempty"`
	PreviousTransferNumber *int64 `json:"previous_transfer_number,omitempty"`
	Sender                 string `json:"sender,omitempty"`
	Acquired               *int64 `json:"acquired_amount,omitempty"`
	CommittedAt            string `json:"committed_at,omitempty"`
}

// float is a number that is encoded with exactly one decimal, rounded: SMP requires a decimal
// point or an exponent, and the demo needs no more decimals.
type float float64

func (f float) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.1f", float64(f)), nil
}

func parse(body []byte) (*message, error) {
	m := new(message)
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(m); err != nil {
		return nil, err
	}
	return m, nil
}

// key returns the key that identifies the message among all messages from one node to
// another. Only the lower 40 bits of the creditor ID are used, because links replace the
// upper 24 bits, the subnet.
func (m *message) key(from, to string) messageKey {
	number := int64(0)
	for _, n := range []*int64{m.RequestID, m.TransferNumber} {
		if n != nil {
			number = *n
		}
	}
	for _, n := range []*int32{m.Seqnum, m.LastChangeSeqnum} {
		if n != nil {
			number = int64(*n)
		}
	}
	return messageKey{from, to, fmt.Sprintf("%s/%x/%x/%d", m.Type, m.DebtorID, m.CreditorID&(1<<40-1), number)}
}

// agent returns the type of the agent that sends or receives the message. Creditor 0 is the
// issuer of the currency, whose agent is the debtors agent; other creditors have the
// creditors agent.
func (m *message) agent() nodetype.Type {
	if m.CreditorID == 0 {
		return nodetype.DebtorsAgent
	}
	return nodetype.CreditorsAgent
}

func now() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000000+00:00") }

func ptr[T any](v T) *T { return &v }
