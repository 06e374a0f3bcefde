package demo

import (
	"strconv"
	"time"
)

// bank is the accounting authority's application, a simple ledger.
type bank struct {
	*app
	accounts map[accountKey]*account
	prepared map[int64]*transfer // by transfer ID
	lastID   int64               // the last transfer ID
}

type accountKey struct{ debtor, creditor int64 }

type account struct {
	key          accountKey
	principal    int64
	locked       int64
	changes      int32 // number of changes of the configuration
	transfers    int64 // number of the last transfer
	configTS     string
	configSeqnum int32
}

// id returns the account's identifier, which names the account as the recipient of transfers.
func (a *account) id() string { return strconv.FormatUint(uint64(a.key.creditor), 10) }

type transfer struct {
	from, to   *account
	locked     int64
	preparedAt string
}

func newBank(d *run) *bank {
	b := &bank{accounts: make(map[accountKey]*account), prepared: make(map[int64]*transfer)}
	b.app = newApp(d.authority(), b.answer)
	return b
}

func (b *bank) account(debtor, creditor int64) *account {
	k := accountKey{debtor, creditor}
	if b.accounts[k] == nil {
		b.accounts[k] = &account{key: k}
	}
	return b.accounts[k]
}

func (b *bank) answer(m *message) []*message {
	switch m.Type {
	case "ConfigureAccount":
		return b.configure(m)
	case "PrepareTransfer":
		return b.prepare(m)
	case "FinalizeTransfer":
		return b.finalize(m)
	}
	return nil
}

func (b *bank) configure(m *message) []*message {
	a := b.account(m.DebtorID, m.CreditorID)
	a.configTS, a.configSeqnum = m.TS, *m.Seqnum
	a.changes++
	ts := now()
	return []*message{{
		Type: "AccountUpdate", DebtorID: m.DebtorID, CreditorID: m.CreditorID, TS: ts,
		CreationDate: time.Now().UTC().Format(time.DateOnly),
		LastChangeTS: ts, LastChangeSeqnum: ptr(a.changes),
		Principal: ptr(a.principal), Interest: ptr(float(0)), InterestRate: ptr(float(0)), LastRateChangeTS: ts,
		LastConfigTS: a.configTS, LastConfigSeqnum: ptr(a.configSeqnum),
		NegligibleAmount: m.NegligibleAmount, ConfigFlags: m.ConfigFlags, ConfigData: m.ConfigData,
		AccountID:     a.id(),
		DebtorInfoIRI: ptr("https://example.com/currency"), DebtorInfoType: ptr(""), DebtorInfoSHA256: ptr(""),
		LastTransferNumber: ptr(a.transfers), LastTransferAt: ts,
		DemurrageRate: ptr(float(0)), CommitPeriod: ptr(int32(86400)), NoteMaxBytes: ptr(int32(500)), TTL: ptr(int32(86400)),
	}}
}

func (b *bank) prepare(m *message) []*message {
	from := b.account(m.DebtorID, m.CreditorID)
	amount := *m.MaxLocked
	reply := &message{
		DebtorID: m.DebtorID, CreditorID: m.CreditorID, TS: now(),
		CoordinatorType: m.CoordinatorType, CoordinatorID: m.CoordinatorID, RequestID: m.RequestID,
	}
	creditor, err := strconv.ParseUint(m.Recipient, 10, 64)
	issuing := m.CreditorID == 0 // the issuer creates the money
	if err != nil || !issuing && from.principal-from.locked < amount {
		reply.Type, reply.StatusCode, reply.TotalLocked = "RejectedTransfer", "INSUFFICIENT_AVAILABLE_AMOUNT", ptr(from.locked)
		return []*message{reply}
	}
	b.lastID++
	b.prepared[b.lastID] = &transfer{from, b.account(m.DebtorID, int64(creditor)), amount, reply.TS}
	from.locked += amount
	reply.Type, reply.TransferID, reply.LockedAmount = "PreparedTransfer", ptr(b.lastID), ptr(amount)
	reply.Recipient, reply.PreparedAt, reply.FinalRateTS = m.Recipient, reply.TS, m.FinalRateTS
	reply.DemurrageRate, reply.Deadline = ptr(float(0)), time.Now().UTC().Add(24*time.Hour).Format(time.RFC3339)
	return []*message{reply}
}

func (b *bank) finalize(m *message) []*message {
	t := b.prepared[*m.TransferID]
	if t == nil {
		return nil
	}
	delete(b.prepared, *m.TransferID)
	amount := *m.CommittedAmount
	t.from.locked -= t.locked
	t.from.principal -= amount
	t.to.principal += amount
	ts := now()
	replies := []*message{{
		Type: "FinalizedTransfer", DebtorID: m.DebtorID, CreditorID: m.CreditorID, TS: ts,
		CoordinatorType: m.CoordinatorType, CoordinatorID: m.CoordinatorID, RequestID: m.RequestID,
		TransferID: m.TransferID, CommittedAmount: ptr(amount), StatusCode: "OK",
		TotalLocked: ptr(t.from.locked), PreparedAt: t.preparedAt,
	}}
	for _, side := range []struct {
		account  *account
		acquired int64
	}{{t.from, -amount}, {t.to, amount}} {
		if side.account.key.creditor == 0 {
			continue // the issuer gets no message about the transfer
		}
		side.account.transfers++
		n := side.account.transfers
		replies = append(replies, &message{
			Type: "AccountTransfer", DebtorID: m.DebtorID, CreditorID: side.account.key.creditor, TS: ts,
			CreationDate: time.Now().UTC().Format(time.DateOnly), CoordinatorType: m.CoordinatorType,
			TransferNumber: ptr(n), PreviousTransferNumber: ptr(n - 1), Sender: t.from.id(), Recipient: t.to.id(),
			Acquired: ptr(side.acquired), CommittedAt: ts, Principal: ptr(side.account.principal),
			Note: m.Note, NoteFormat: m.NoteFormat,
		})
	}
	return replies
}
