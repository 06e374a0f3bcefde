package embedded

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"modernc.org/sqlite"
)

// busyTimeout is how long, in milliseconds, a statement waits for a lock that
// another process holds. After that the writer rolls back and tries again.
const busyTimeout = 2000

// conn is one connection to the file, for use by one goroutine at a time.
//
// It uses the driver without database/sql: a connection pool is of no use to a single
// writer, and converting every argument and column costs as much as storing them.
type conn struct {
	raw   driver.Conn
	stmts []*stmt // to be closed with the connection
}

// openConn opens a connection. The file must exist, because SQLite would create it with the
// permissions of the umask.
//
// The write-ahead log stays, empty, when the last connection is closed, so that a missing
// log can be detected; see lacksWAL.
func openConn(path string) (*conn, error) {
	c, err := openConnURI(path, "")
	if err != nil {
		return nil, err
	}
	if err := c.keepWAL(true); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// keepWAL sets whether the write-ahead log stays when this connection is the last one to
// be closed.
func (c *conn) keepWAL(keep bool) error {
	mode := 0
	if keep {
		mode = 1
	}
	_, err := c.raw.(sqlite.FileControl).FileControlPersistWAL("main", mode)
	return err
}

// openConnURI opens a connection with parameters in the form of a URI query. It does not keep
// the write-ahead log.
func openConnURI(path, query string) (*conn, error) {
	uri, err := uriOf(path, query)
	if err != nil {
		return nil, err
	}
	connector, err := sqlite.NewConnector(uri)
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw}
	if err := c.exec(fmt.Sprintf("PRAGMA busy_timeout = %d", busyTimeout)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// uriOf returns the URI of a file with parameters in the form of a URI query. In a URI the path may
// contain any character.
func uriOf(path, query string) (string, error) {
	abs, err := filepath.Abs(path)
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query}).String(), err
}

// close closes the statements of the connection, and then the connection: SQLite would keep
// a connection with open statements, and its write-ahead log.
func (c *conn) close() error {
	var err error
	for _, s := range c.stmts {
		err = cmp.Or(err, s.close())
	}
	return cmp.Or(err, c.raw.Close())
}

// exec runs one or more SQL statements that return no rows.
func (c *conn) exec(sql string) error {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = s.exec()
	return err
}

// number runs SQL that returns one number.
func (c *conn) number(sql string) (int64, error) {
	s, err := c.prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.close()
	return s.number()
}

// prepare returns a statement, which must be closed before the connection.
func (c *conn) prepare(sql string) (*stmt, error) {
	raw, err := c.raw.(driver.ConnPrepareContext).PrepareContext(context.Background(), sql)
	if err != nil {
		return nil, err
	}
	return &stmt{raw: raw.(preparedStmt)}, nil
}

// preparer prepares statements that are closed with the connection; err is the first
// error.
type preparer struct {
	conn *conn
	err  error
}

// stmt returns a prepared statement, or nil if p.err is set then.
func (p *preparer) stmt(sql string) *stmt {
	if p.err != nil {
		return nil
	}
	s, err := p.conn.prepare(sql)
	if err != nil {
		p.err = fmt.Errorf("prepare %q: %w", sql, err)
		return nil
	}
	p.conn.stmts = append(p.conn.stmts, s)
	return s
}

type preparedStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// stmt is a prepared statement. It reuses the memory for its arguments and columns.
type stmt struct {
	raw  preparedStmt
	args []driver.NamedValue
	cols []driver.Value
}

func (s *stmt) close() error { return s.raw.Close() }

// bind sets the arguments, starting with the one at index at.
func (s *stmt) bind(at int, values ...driver.Value) {
	for len(s.args) < at+len(values) {
		s.args = append(s.args, driver.NamedValue{Ordinal: len(s.args) + 1})
	}
	for i, v := range values {
		s.args[at+i].Value = v
	}
}

// exec runs the statement and returns how many rows it changed.
func (s *stmt) exec(values ...driver.Value) (int64, error) {
	s.bind(0, values...)
	return s.run()
}

// run is exec with the arguments that are already bound.
func (s *stmt) run() (int64, error) {
	r, err := s.raw.ExecContext(context.Background(), s.args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// query calls row with each row until row returns false. The slice cols is reused for the
// next row.
func (s *stmt) query(row func(cols []driver.Value) bool, values ...driver.Value) error {
	return s.queryContext(context.Background(), row, values...)
}

// queryContext is query with a context.
func (s *stmt) queryContext(ctx context.Context, row func(cols []driver.Value) bool, values ...driver.Value) (err error) {
	s.bind(0, values...)
	rows, err := s.raw.QueryContext(ctx, s.args)
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	if s.cols == nil {
		s.cols = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.cols); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if !row(s.cols) {
			return nil
		}
	}
}

// number returns the first column of the first row, or 0 if there is no row.
func (s *stmt) number(values ...driver.Value) (int64, error) {
	var n int64
	err := s.query(func(cols []driver.Value) bool {
		n = number(cols[0])
		return false
	}, values...)
	return n, err
}

// number, text and blob convert a column. The tables are STRICT, so they return the zero
// value for another type only if the column is NULL.

func number(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func text(v driver.Value) string {
	s, _ := v.(string)
	return s
}

func blob(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}
