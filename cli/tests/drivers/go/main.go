// pgx: the contract in each of its ways to run a statement (cached statements, cached descriptions, describe each time, exec,
// simple protocol), batches, CopyFrom, notifications, cancelling by context, pipelines of pgconn.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

type testCase struct {
	name, sql string
	values    []any
}

var (
	key, mark  string
	own, heavy string
	ctx        = context.Background()
)

const journal = "INSERT INTO journal (who, n, note) VALUES ($1, $2, $3)"

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		panic(err)
	}
}

func say(name string, values ...any) {
	line := name + ":"
	for _, v := range values {
		line += " " + shown(v)
	}
	fmt.Println(strings.ReplaceAll(strings.ReplaceAll(line, key, "KEY"), "\n", "\\n"))
}

func shown(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []any:
		parts := []string{}
		for _, x := range v {
			parts = append(parts, shown(x))
		}
		return "[" + strings.Join(parts, " | ") + "]"
	case pgtype.Numeric:
		if !v.Valid || v.NaN {
			return fmt.Sprintf("numeric %v %v", v.Valid, v.NaN)
		}
		return fmt.Sprintf("%vE%d", v.Int, v.Exp)
	}
	return fmt.Sprintf("%#v", v)
}

func readCases() []testCase {
	file, err := os.Open(filepath.Join("..", "statements.tsv"))
	check(err)
	defer file.Close()
	var cases []testCase
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, "\t")
		it := testCase{name: parts[0], sql: strings.Replace(parts[2], "MARK", mark, 1)}
		for _, pair := range parts[3:] {
			kind, text, _ := strings.Cut(pair, "=")
			switch kind {
			case "int4", "int8":
				n, err := strconv.ParseInt(text, 10, 64)
				check(err)
				it.values = append(it.values, n)
			case "null":
				it.values = append(it.values, nil)
			case "uuid":
				var u pgtype.UUID
				check(u.Scan(text))
				it.values = append(it.values, u)
			case "ts":
				t, err := time.Parse(time.RFC3339, text)
				check(err)
				it.values = append(it.values, t)
			default:
				it.values = append(it.values, text)
			}
		}
		cases = append(cases, it)
	}
	return cases
}

func connect(mode pgx.QueryExecMode) *pgx.Conn {
	config, err := pgx.ParseConfig("")
	check(err)
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(ctx, config)
	check(err)
	return conn
}

type querier interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}

func ask(name string, q querier, sql string, values ...any) {
	rows, err := q.Query(ctx, sql, values...)
	if err != nil {
		failed(name, err)
		return
	}
	printRows(name, rows)
}

func printRows(name string, rows pgx.Rows) {
	defer rows.Close()
	described := []any{}
	for _, f := range rows.FieldDescriptions() {
		described = append(described, fmt.Sprintf("%s %v %d %d %d %d %d", f.Name, f.TableOID > 0, f.TableAttributeNumber, f.DataTypeOID, f.DataTypeSize, f.TypeModifier, f.Format))
	}
	say(name, described)
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			say(name, err.Error())
			break
		}
		say(name, values)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		failed(name, err)
	}
	say(name, rows.CommandTag().String())
}

func failed(name string, err error) {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		say(name, e.Severity, e.Code, e.Message, e.Detail, e.Hint, e.Position, e.Where, e.TableName, e.ColumnName, e.ConstraintName)
	} else {
		say(name, "no error of the server", err != nil)
	}
}

func run(c *pgx.Conn, sql string, values ...any) {
	_, err := c.Exec(ctx, sql, values...)
	check(err)
}

func statementsOf(label string, c *pgx.Conn, cases []testCase, mode pgx.QueryExecMode) {
	// What is cached is used by the second round.
	for n := 0; n < times(mode); n++ {
		for _, it := range cases {
			ask(label+" "+it.name, c, it.sql, it.values...)
		}
	}
}

func times(mode pgx.QueryExecMode) int {
	if mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeCacheDescribe {
		return 2
	}
	return 1
}

func transactions(label string, mode pgx.QueryExecMode) {
	c := connect(mode)
	defer c.Close(ctx)
	key := key + label
	t, err := c.Begin(ctx)
	check(err)
	ask("nothing yet", t, own, key)
	for n := 0; n < 5; n++ {
		_, err := t.Exec(ctx, journal, key, n, fmt.Sprint("note ", n))
		check(err)
	}
	ask("own rows", t, own, key)
	nested, err := t.Begin(ctx)
	check(err)
	_, err = nested.Exec(ctx, journal, key, 100, "nested")
	check(err)
	ask("in a savepoint", nested, own, key)
	check(nested.Rollback(ctx))
	ask("after its rollback", t, own, key)
	n, err := t.CopyFrom(ctx, pgx.Identifier{"journal"}, []string{"who", "n", "note"}, pgx.CopyFromSlice(200, func(i int) ([]any, error) {
		return []any{key, int64(i), nil}, nil
	}))
	check(err)
	say("copied in", n)
	ask("own copied rows", t, own, key)
	check(t.Commit(ctx))
	ask("committed", c, own, key)
	t, err = c.Begin(ctx)
	check(err)
	ask("in a transaction", t, "SELECT count(*) FROM samples WHERE nothing = $1", 1)
	ask("aborted", t, own, key)
	check(t.Rollback(ctx))
	ask("rolled back", c, own, key)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		t, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: level, AccessMode: pgx.ReadOnly})
		check(err)
		ask(string(level), t, "SELECT current_setting('transaction_isolation'), count(*) FROM samples")
		_, err = t.Exec(ctx, journal, key, 1, "x")
		failed("read only", err)
		check(t.Rollback(ctx))
	}
	bad, err := c.CopyFrom(ctx, pgx.Identifier{"journal"}, []string{"who", "n"}, pgx.CopyFromRows([][]any{{key, int64(1)}, {nil, int64(2)}}))
	say("bad copy", bad)
	failed("bad copy", err)
	ask("after a bad copy", c, own, key)
}

func batches(mode pgx.QueryExecMode, cases []testCase) {
	c := connect(mode)
	defer c.Close(ctx)
	for n := 0; n < times(mode); n++ {
		batch := &pgx.Batch{}
		for _, it := range cases {
			batch.Queue(it.sql, it.values...)
		}
		results := c.SendBatch(ctx, batch)
		for _, it := range cases {
			rows, err := results.Query()
			if err != nil {
				failed("batch", err)
				continue
			}
			printRows("batch "+it.name, rows)
		}
		check(results.Close())
	}
	batch := &pgx.Batch{}
	batch.Queue(journal, key+"batch", 1, "in a batch")
	batch.Queue(own, key+"batch")
	batch.Queue("SELECT 1 / $1::int4", 0)
	batch.Queue(own, key+"batch")
	results := c.SendBatch(ctx, batch)
	_, err := results.Exec()
	check(err)
	rows, err := results.Query()
	check(err)
	printRows("own rows of a batch", rows)
	_, err = results.Exec()
	failed("error of a batch", err)
	_, err = results.Exec()
	failed("after the error", err)
	results.Close()
	ask("undone with its batch", c, own, key+"batch")
}

func errorsOf(mode pgx.QueryExecMode) {
	c := connect(mode)
	defer c.Close(ctx)
	run(c, "CREATE TEMP TABLE own (id int PRIMARY KEY, t text CHECK (t <> ''))")
	run(c, "INSERT INTO own VALUES (1, 'x')")
	for _, sql := range []string{"SELECT count(*) FORM samples", "SELECT nothing, count(*) FROM samples GROUP BY 1", "SELECT count(*) FROM nothing_there",
		"SELECT sum(1 / (i4 - i4)) FROM samples", "SELECT sum(i4 * 1000000) FROM samples", "INSERT INTO own VALUES (1, 'y')", "INSERT INTO own VALUES (2, '')",
		"INSERT INTO journal (who, n) VALUES (NULL, 1)", "UPDATE journal SET n = 1", "SELECT count(*) FROM samples WHERE d = 'never'::text::date"} {
		ask(sql, c, sql)
		ask("going on", c, "SELECT count(*) AS "+mark+" FROM samples")
	}
	run(c, "CREATE TEMP TABLE changing (a int4)")
	ask("before DDL", c, "SELECT * FROM changing")
	run(c, "ALTER TABLE changing ADD b text")
	ask("after DDL", c, "SELECT * FROM changing")
	ask("again", c, "SELECT * FROM changing")
}

func cancelled(name, sql string) {
	c := connect(pgx.QueryExecModeCacheStatement)
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		// Until it has ended: the first request may come before it runs.
		for {
			select {
			case <-ended:
				return
			case <-time.After(500 * time.Millisecond):
				_ = c.PgConn().CancelRequest(ctx)
			}
		}
	}()
	_, err := c.Exec(ctx, sql)
	failed(name, err)
	close(ended)
	<-stopped
	_, _ = c.Exec(ctx, "SELECT pg_sleep(0.2)") // a request may still be on its way
	ask(name+", going on", c, "SELECT count(*) AS "+mark+" FROM samples")
	c.Close(ctx)

	// A context that ends closes the connection.
	c = connect(pgx.QueryExecModeCacheStatement)
	short, stop := context.WithTimeout(ctx, time.Second)
	rows, err := c.Query(short, sql)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	stop()
	say(name+", context", errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err), c.IsClosed())
	c.Close(ctx)
}

func notifications() {
	c, other := connect(pgx.QueryExecModeCacheStatement), connect(pgx.QueryExecModeExec)
	defer c.Close(ctx)
	defer other.Close(ctx)
	run(c, "LISTEN "+pgx.Identifier{key}.Sanitize())
	for _, payload := range []string{"first", "second"} {
		ask("notify", other, "SELECT pg_notify($1, $2)", key, payload)
		n, err := c.WaitForNotification(ctx)
		check(err)
		say("notified", n.Channel, n.Payload, n.PID == other.PgConn().PID())
		ask("and a statement", c, "SELECT count(*) AS "+mark+" FROM samples")
	}
}

func pipelines(cases []testCase) {
	conn := connect(pgx.QueryExecModeExec)
	defer conn.Close(ctx)
	p := conn.PgConn().StartPipeline(ctx)
	lake := "SELECT kind, count(*) AS " + mark + " FROM samples WHERE id < $1 GROUP BY kind ORDER BY kind"
	p.SendPrepare("a", lake, nil)
	p.SendQueryPrepared("a", [][]byte{[]byte("300")}, nil, []int16{0})
	p.SendQueryParams("SELECT 1 / $1::int4", [][]byte{[]byte("0")}, nil, nil, nil)
	p.SendQueryPrepared("a", [][]byte{[]byte("400")}, nil, nil)
	check(p.Sync())
	p.SendQueryPrepared("a", [][]byte{[]byte("500")}, nil, []int16{1})
	p.SendDeallocate("a")
	check(p.Sync())
	check(p.Flush())
	for {
		result, err := p.GetResults()
		if err != nil {
			failed("pipeline", err)
			continue
		}
		if result == nil {
			break
		}
		switch r := result.(type) {
		case *pgconn.StatementDescription:
			say("described", r.ParamOIDs, len(r.Fields))
		case *pgconn.ResultReader:
			read := r.Read()
			for _, row := range read.Rows {
				say("pipeline", fmt.Sprintf("%q", row))
			}
			say("pipeline", read.CommandTag.String(), read.Err)
		case *pgconn.PipelineSync:
			say("sync")
		default:
			say("other", fmt.Sprintf("%T", r))
		}
	}
	check(p.Close())
	// COPY out, and several statements in one Query.
	var out bytes.Buffer
	tag, err := conn.PgConn().CopyTo(ctx, &out, "COPY (SELECT id, kind, t FROM samples WHERE id <= 80 ORDER BY id) TO STDOUT")
	check(err)
	say("copied out", tag.String(), out.Len(), out.String())
	results, err := conn.PgConn().Exec(ctx, "SELECT 1; SELECT count(*) FROM samples; SELECT level, count(*) FROM logs GROUP BY level ORDER BY level").ReadAll()
	check(err)
	for _, r := range results {
		say("several", fmt.Sprintf("%q", r.Rows), r.CommandTag.String())
	}
}

func main() {
	key, mark = os.Args[1], os.Args[2]
	own = "SELECT count(*) AS " + mark + ", sum(n), min(note) FROM journal WHERE who = $1"
	terms := []string{}
	for n := 1; n <= 60; n++ {
		terms = append(terms, fmt.Sprintf("count(*) FILTER (WHERE a / (a + %d.7) > 0.3)", n))
	}
	heavy = "SELECT " + strings.Join(terms, ", ") + ", count(*) AS " + mark + " FROM heavy"
	cases := readCases()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		say("mode", mode.String())
		c := connect(mode)
		statementsOf(mode.String(), c, cases, mode)
		check(c.Close(ctx))
		transactions(strings.ReplaceAll(mode.String(), " ", ""), mode)
		batches(mode, cases)
		errorsOf(mode)
	}
	pipelines(cases)
	notifications()
	cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(300)")
	cancelled("cancelled in the lake", heavy)
	fmt.Println("done")
}
