package admin

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"peerlink/node/check"
)

const (
	// checkAge is how long the result of a check of the node's directory is shown before it is
	// checked again.
	checkAge = time.Minute
	// checkTimeout bounds a check; less than writeTimeout.
	checkTimeout = 20 * time.Second
	// maxFindings is how many findings are shown, and maxQuotas how many peers with unconsumed messages.
	maxFindings = 200
	maxQuotas   = 200
)

// lastCheck is the last check of the node's directory. Checks are not made at the same time.
type lastCheck struct {
	mu     sync.Mutex
	at     time.Time
	report *check.Report
	err    error
}

// get returns the report of a check that is no older than checkAge.
func (c *lastCheck) get(ctx context.Context, run func(context.Context) (*check.Report, error)) (*check.Report, time.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > checkAge {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
		defer cancel()
		report, err := run(ctx)
		c.at, c.report, c.err = time.Now(), report, err
	}
	return c.report, c.at, c.err
}

// nodeView is the data of the page about the node itself.
type nodeView struct {
	view
	Broker    string
	Report    *check.Report // nil if the directory could not be checked
	CheckedAt time.Time
	CheckErr  error
}

// nodePage returns the handler of the page about the node itself. messages says whether messages can be seen.
func (s *Server) nodePage(messages bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := s.links(r.Context())
		v := nodeView{view: view{Links: l, Title: "This node", Node: true, Messages: messages}, Broker: s.cfg.Broker}
		if s.cfg.Check != nil {
			v.Report, v.CheckedAt, v.CheckErr = s.check.get(r.Context(), s.cfg.Check)
		}
		s.render(w, http.StatusOK, "node.html", &v)
	}
}

// CheckSummary returns how many problems and warnings the directory has, in words.
func (v *nodeView) CheckSummary() string {
	problems, warnings := v.Report.Count(check.Problem), v.Report.Count(check.Warning)
	if problems+warnings == 0 {
		return "no problems and no warnings"
	}
	return fmt.Sprintf("problems: %d, warnings: %d", problems, warnings)
}

// Findings returns the findings to be shown, the worst first.
func (v *nodeView) Findings() []check.Finding {
	return v.Report.Findings[:min(len(v.Report.Findings), maxFindings)]
}

// HiddenFindings returns how many findings are not shown.
func (v *nodeView) HiddenFindings() int { return max(0, len(v.Report.Findings)-maxFindings) }

// Class returns the class of the tag of a finding.
func (v *nodeView) Class(s check.Severity) string {
	return map[check.Severity]string{check.Problem: "bad", check.Warning: "warn"}[s]
}

// quota is what one peer takes up in the embedded broker.
type quota struct {
	ID, Name string
	Bytes    string
	Percent  int // of the quota; -1: there is none
}

// Quotas returns the peers with messages that no application has consumed.
func (v *nodeView) Quotas() (list []quota) {
	if v.store == nil {
		return nil
	}
	for i := range v.Peers {
		p := &v.Peers[i]
		bytes := v.store.Unconsumed[p.ID]
		if bytes == 0 || len(list) == maxQuotas {
			continue
		}
		q := quota{ID: p.ID, Name: called(p), Bytes: size(bytes), Percent: -1}
		if v.store.PeerQuota > 0 {
			q.Percent = int(min(100, bytes*100/v.store.PeerQuota))
		}
		list = append(list, q)
	}
	return list
}

// storeRow is the embedded broker on the page.
type storeRow struct {
	Size, Quota, Free, MinFree string // "" if unknown, or if there is no limit
	Low                        bool   // the disk has less free space than the minimum
	Trouble                    string
}

// Store returns what is known of the embedded broker's file, nil if there is none or it can not be read.
func (v *nodeView) Store() *storeRow {
	if v.store == nil {
		return nil
	}
	row := &storeRow{Size: size(v.store.FileBytes)}
	if v.store.PeerQuota > 0 {
		row.Quota = size(v.store.PeerQuota)
	}
	if v.store.FreeBytes >= 0 {
		row.Free = size(v.store.FreeBytes)
		row.Low = v.store.FreeBytes < v.store.MinFree
	}
	if v.store.MinFree > 0 {
		row.MinFree = size(v.store.MinFree)
	}
	if t := v.store.Problem; t != nil {
		row.Trouble = fmt.Sprintf("It can not be written for %s: %v", v.Ago(t.Since), t.Err)
	}
	return row
}

// size formats a number of bytes.
func size(n int64) string {
	value, units := float64(n), []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
