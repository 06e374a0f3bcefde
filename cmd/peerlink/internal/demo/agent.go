package demo

import (
	"sync"
	"time"
)

// The debtor ID of the demo's currency, and the creditor ID of the creditors agent's first account.
const (
	debtorID      = 0x1234abcd_00_000001 // in the debtors agent's subnet
	firstCreditor = 0x000001_01_00000001 // in the creditors agent's own subnet
)

const (
	issuedAmount   = 1_000_000
	transferAmount = 7
	absurdAmount   = 1 << 50 // never available
	rejectEvery    = 20      // the last one of each 20 transfers is too large
	maxOpen        = 400     // maximum number of open conversations of each agent
)

// plan has the numbers of the agents' conversations, which are chosen so that about the
// wanted number of messages is exchanged.
type plan struct {
	accounts  int // of the creditors agent; 2 messages each
	issuances int // transfers of new money from the debtors agent; 5 messages each
	transfers int // between accounts of the creditors agent; 6 messages each, 2 if rejected
}

func newPlan(messages int) plan {
	p := plan{accounts: min(max(messages/200, 2), 200)}
	left := messages - 2*(p.accounts+1)
	p.issuances = max(left/3/5, p.accounts) // every account gets money
	p.transfers = max((left-5*p.issuances)/6, 1)
	return p
}

// book has the identifiers by which transfers name the accounts.
type book struct {
	mu        sync.Mutex
	recipient map[int64]string // by creditor ID
}

func (b *book) add(creditorID int64, recipient string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recipient[creditorID] = recipient
}

func (b *book) of(creditorID int64) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recipient[creditorID]
}

// agent is the application of a creditors agent or a debtors agent. It holds conversations
// with the accounting authority, at most maxOpen at a time.
type agent struct {
	*app
	book *book
	// The following fields are guarded by the app's lock.
	begin        []func() *message // each returns the first message of a conversation
	next         int               // index of the first conversation that has not begun
	released     int               // number of conversations that have begun or may begin
	open         int               // number of conversations that have begun and not ended
	configured   int               // number of configured accounts
	funded       int               // number of accounts that have received money
	onConfigured func(n int)       // called with the total when an account has been configured
	onFunded     func(n int)       // called with the total when an account has been funded
}

// newAgents makes the applications of the two agents. When all accounts exist, the debtors
// agent issues money to them. When all accounts have money, the creditors agent makes
// transfers. The second half of them begins only when the caller calls releaseAll, so that
// there are messages after the authority has moved.
func newAgents(d *run, p plan) (creditors, debtors *agent) {
	b := &book{recipient: make(map[int64]string)}
	creditors, debtors = newAgent(d.creditors(), b), newAgent(d.debtors(), b)
	account := func(i int) int64 { return firstCreditor + int64(i%p.accounts) }
	for i := range p.accounts {
		creditors.begin = append(creditors.begin, func() *message { return configure(account(i), int32(i)) })
	}
	debtors.begin = append(debtors.begin, func() *message { return configure(0, 0) })
	for i := range p.issuances {
		debtors.begin = append(debtors.begin, func() *message {
			return prepare(0, "issuing", debtorID, int64(i), issuedAmount, b.of(account(i)))
		})
	}
	for i := range p.transfers {
		amount := int64(transferAmount)
		if i%rejectEvery == rejectEvery-1 {
			amount = absurdAmount
		}
		creditors.begin = append(creditors.begin, func() *message {
			return prepare(account(i), "direct", account(i), int64(i), amount, b.of(account(i+1)))
		})
	}
	creditors.onConfigured = func(n int) {
		if n == p.accounts {
			debtors.releaseAll()
		}
	}
	creditors.onFunded = func(n int) {
		if n == p.accounts {
			creditors.release(p.accounts + p.transfers/2)
		}
	}
	creditors.released, debtors.released = p.accounts, 1
	return creditors, debtors
}

func newAgent(n *demoNode, b *book) *agent {
	a := &agent{book: b, onConfigured: func(int) {}, onFunded: func(int) {}}
	a.app = newApp(n, a.answer)
	return a
}

// start begins the first conversations.
func (a *agent) start() { a.release(0) }

// release allows conversations to begin until n have begun in total.
func (a *agent) release(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.released = max(a.released, n)
	for _, m := range a.advance() {
		a.post(&outgoing{m, nil})
	}
}

// releaseAll allows all conversations to begin.
func (a *agent) releaseAll() { a.release(len(a.begin)) }

// advance begins conversations until all released ones have begun or maxOpen are open, and returns
// their first messages. The caller must hold the lock.
func (a *agent) advance() (first []*message) {
	for a.next < a.released && a.open < maxOpen {
		first = append(first, a.begin[a.next]())
		a.next++
		a.open++
	}
	return first
}

// done reports whether all conversations have ended.
func (a *agent) done() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next == len(a.begin) && a.open == 0 && len(a.pending) == 0
}

// answer returns the next message of m's conversation, or the first messages of other
// conversations if m requires no answer. The caller must hold the lock.
func (a *agent) answer(m *message) []*message {
	switch m.Type {
	case "AccountUpdate":
		a.book.add(m.CreditorID, m.AccountID)
		a.open--
		a.configured++
		go a.onConfigured(a.configured) // may need the lock
	case "PreparedTransfer":
		return []*message{{
			Type: "FinalizeTransfer", DebtorID: m.DebtorID, CreditorID: m.CreditorID, TS: now(),
			CoordinatorType: m.CoordinatorType, CoordinatorID: m.CoordinatorID, RequestID: m.RequestID,
			TransferID: m.TransferID, CommittedAmount: m.LockedAmount, Note: ptr("Thanks! ☕"), NoteFormat: ptr(""),
		}}
	case "RejectedTransfer", "FinalizedTransfer":
		a.open--
	case "AccountTransfer":
		if *m.TransferNumber == 1 {
			a.funded++
			go a.onFunded(a.funded)
		}
	}
	return a.advance()
}

func configure(creditorID int64, seqnum int32) *message {
	return &message{
		Type: "ConfigureAccount", DebtorID: debtorID, CreditorID: creditorID, TS: now(),
		NegligibleAmount: ptr(float(0)), ConfigData: ptr(""), ConfigFlags: ptr(int32(0)), Seqnum: ptr(seqnum),
	}
}

func prepare(creditorID int64, coordinatorType string, coordinatorID, requestID, amount int64, recipient string) *message {
	return &message{
		Type: "PrepareTransfer", DebtorID: debtorID, CreditorID: creditorID, TS: now(),
		CoordinatorType: coordinatorType, CoordinatorID: ptr(coordinatorID), RequestID: ptr(requestID),
		MinLocked: ptr(amount), MaxLocked: ptr(amount), Recipient: recipient,
		FinalRateTS: time.Unix(1<<33, 0).UTC().Format(time.RFC3339), MaxCommitDelay: ptr(int32(3600)),
	}
}
