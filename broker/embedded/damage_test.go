package embedded

import (
	"context"
	"database/sql/driver"
	"testing"
	"time"
)

// The check of a store after an unclean end is bounded in time, however large the store is: the limit is a few
// seconds, and a query that would never end is interrupted when its context is done.
func TestCheckIsBounded(t *testing.T) {
	if damageTime > 5*time.Second {
		t.Errorf("a check may take %v", damageTime)
	}
	s := openTest(t, Options{})
	c, err := openConn(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	endless, err := c.prepare("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
	if err != nil {
		t.Fatal(err)
	}
	defer endless.close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- endless.queryContext(ctx, func([]driver.Value) bool { return true }) }()
	select {
	case err := <-ended:
		if err == nil || ctx.Err() == nil {
			t.Errorf("it ended with %v before its time", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it was not interrupted")
	}
	// A check that ends without a result does not prevent the start.
	if err := quickCheck(ctx, c); err != nil {
		t.Errorf("after the end of the time: %v", err)
	}
}
