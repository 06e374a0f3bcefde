package smp

import (
	"errors"
	"testing"
	"time"
)

// Invariant: each message queued for a deactivated peer for which the application keeps
// state gets the answer that releases this state, and Incoming accepts it as the peer's
// own.
func TestAnswer(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.FixedZone("", 3600))
	all := samples(t)
	config := sample{"type": `"ConfigureAccount"`, "debtor_id": "5", "creditor_id": "6", "ts": `"2023-01-01T12:00:00.5+02:00"`,
		"negligible_amount": "0.5", "config_data": `"é\n"`, "config_flags": "-7", "seqnum": "8"}
	update := all[AccountUpdate].with("debtor_id", "5", "creditor_id", "6")
	prepared := all[PreparedTransfer].with("debtor_id", "5", "creditor_id", "6", "transfer_id", "9",
		"coordinator_type", `"direct"`, "coordinator_id", "6", "coordinator_request_id", "7")
	answers := map[string]struct{ queued, typ, want string }{
		AccountUpdate: {string(update.body()), ConfigureAccount,
			`{"type":"ConfigureAccount","debtor_id":5,"creditor_id":6,"ts":"2026-05-04T02:02:01+00:00",` +
				`"negligible_amount":1e+30,"config_data":"","config_flags":1,"seqnum":0}`},
		PreparedTransfer: {string(prepared.body()), FinalizeTransfer,
			`{"type":"FinalizeTransfer","debtor_id":5,"creditor_id":6,"ts":"2026-05-04T02:02:01+00:00",` +
				`"coordinator_type":"direct","coordinator_id":6,"coordinator_request_id":7,` +
				`"transfer_id":9,"committed_amount":0,"transfer_note":"","transfer_note_format":""}`},
		ConfigureAccount: {string(config.body()), RejectedConfig,
			`{"type":"RejectedConfig","debtor_id":5,"creditor_id":6,"ts":"2026-05-04T02:02:01+00:00",` +
				`"config_ts":"2023-01-01T12:00:00.500000+02:00","config_seqnum":8,"config_flags":-7,"config_data":"é\n",` +
				`"negligible_amount":0.5,"rejection_code":"NO_CONNECTION_TO_DEBTOR"}`},
	}
	for _, typ := range Types() {
		c, ok := answers[typ]
		if !ok {
			if answerType, answer, err := Answer(typ, all[typ].body(), now); answerType != "" || answer != nil || err != nil {
				t.Errorf("%s is answered with %s %s, %v", typ, answerType, answer, err)
			}
			continue
		}
		answerType, answer, err := Answer(typ, []byte(c.queued), now)
		if answerType != c.typ || string(answer) != c.want || err != nil {
			t.Errorf("%s is answered with %s\n%s, %v, expected\n%s", typ, answerType, answer, err, c.want)
		}
		if _, err := open(typ).Incoming(answerType, ContentType, answer, now); err != nil {
			t.Errorf("the answer to %s is not accepted: %v", typ, err)
		}
	}
	if _, _, err := Answer("Nothing", []byte("{}"), now); !errors.Is(err, errType) {
		t.Errorf("error is %v, expected an ErrType", err)
	}
	if _, _, err := Answer(AccountPurge, []byte("{}"), now); !errors.Is(err, errField) {
		t.Errorf("error is %v, expected an ErrField", err)
	}
	if _, _, err := Answer(AccountPurge, make([]byte, MaxBody+1), now); !errors.Is(err, errTooLong) {
		t.Errorf("error is %v, expected an ErrTooLong", err)
	}
}
