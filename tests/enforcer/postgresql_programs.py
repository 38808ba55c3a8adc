"""Programs that use PostgreSQL as agents' programs do: what they print is the same with and without anybody between.

What lives here: their text. What must not: running them. Each makes its own tables and drops them; `secrets` is denied.
"""

PSYCOPG = """
import psycopg
from psycopg import sql
c = psycopg.connect("")
c.execute("create table clients (a int primary key, b text, d bytea)")
with c.cursor() as cur:
    cur.executemany("insert into clients values (%s, %s, %s)", [(i, f"wörd {i}", bytes([i])) for i in range(100)])
c.commit()
for binary in (False, True):
    print(c.execute("select a, b, d from clients where a = %s", (7,), binary=binary).fetchone())
print([c.execute("select b from clients where a = %s", (i,), prepare=True).fetchone() for i in range(8)])
with c.pipeline() as p:
    found = [c.execute("select a + %s from clients where a = 5", (i,)) for i in range(5)]
    p.sync()
    print([one.fetchone() for one in found])
c.commit()
with c.cursor("server_side") as cur:
    cur.itersize = 7
    cur.execute("select a from clients order by a")
    print(sum(row[0] for row in cur))
with c.cursor("scrolling", scrollable=True) as cur:
    cur.execute("select a from clients order by a")
    cur.scroll(50)
    print(cur.fetchmany(3))
c.commit()
with c.cursor().copy("copy clients (a, b) from stdin") as copy:
    for i in range(1000, 21000):
        copy.write_row((i, "x" * 40))
with c.cursor().copy("copy clients to stdout") as copy:
    print(sum(len(part) for part in copy))
with c.cursor().copy("copy (select a, b from clients) to stdout (format binary)") as copy:
    print(sum(len(part) for part in copy))
c.commit()
try:
    with c.cursor().copy("copy clients (a, b) from stdin") as copy:
        copy.write_row((1, "there already"))
except psycopg.Error as error:
    print(error.sqlstate)
c.rollback()
try:
    with c.transaction():
        c.execute("insert into clients values (-1)")
        try:
            with c.transaction():
                c.execute("select 1 / 0")
        except psycopg.Error as error:
            print(error.sqlstate)
        print(c.execute("select count(*) from clients where a < 0").fetchone())
        raise psycopg.Rollback
finally:
    print(c.info.transaction_status)
c.execute("listen news")
c.commit()
c.execute("notify news, 'hello'")
c.commit()
print([(one.channel, one.payload) for one in c.notifies(timeout=5, stop_after=1)])
c.execute("set search_path to pg_catalog, public")
print(c.execute("select count(*) from clients").fetchone())
c.execute("drop table clients")
c.commit()
"""

PSYCOPG_LIMITED = """
import psycopg
SQL = "select n as few_rows from generate_series(1, %s) n"
def binary(c):
    return c.execute(SQL, (1000,), binary=True).fetchall()
def prepared(c):
    for many in 3, 5, 6:
        found = c.execute(SQL, (many,), prepare=True).fetchall()
    return found
def pipeline(c):
    with c.pipeline():
        first, second = c.execute(SQL, (5,)), c.execute(SQL, (6,))
        return len(first.fetchall()), second.fetchall()
def server_cursor(c):
    with c.cursor(name="few_rows") as cur:
        return cur.execute("select generate_series(1, 9)").fetchall()
def copy(c):
    with c.cursor().copy("copy (select generate_series(1, 9) as few_rows) to stdout") as found:
        return list(found.rows())
for how in binary, prepared, pipeline, server_cursor, copy:
    with psycopg.connect("") as c:
        try:
            print(how.__name__, how(c))
        except psycopg.Error as error:
            print(error.sqlstate, " ".join(str(error).split()))
"""
PSYCOPG_DENIED = """
import psycopg
c = psycopg.connect("")
def denied(what):
    try:
        what()
    except psycopg.Error as error:
        print(error.sqlstate, str(error).splitlines()[0], int(c.info.transaction_status))
    c.rollback()
denied(lambda: c.execute("select * from secrets"))
denied(lambda: c.execute("select * from secrets where a = %s", (1,), binary=True))
denied(lambda: c.execute("select * from secrets where a = %s", (1,), prepare=True))
def pipeline():
    with c.pipeline():
        c.execute("create table half (a int)")
        c.execute("select * from secrets")
        c.execute("select 1")
denied(pipeline)
print(c.execute("select to_regclass('half')").fetchone())
c.rollback()
def cursor():
    with c.cursor("server_side") as cur:
        cur.execute("select * from secrets")
denied(cursor)
def copy():
    with c.cursor().copy("copy secrets to stdout") as data:
        print(list(data))
denied(copy)
def savepoint():
    with c.transaction():
        c.execute("select 1")
        try:
            with c.transaction():
                c.execute("select * from secrets")
        except psycopg.Error as error:
            print(error.sqlstate)
        print(c.execute("select 'goes on'").fetchone())
        raise psycopg.Rollback
savepoint()
print(c.execute("select 'still there'").fetchone())
"""

ASYNCPG = """
import asyncio, asyncpg, os, ssl
async def main():
    trust = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    c = await asyncpg.connect(ssl=trust)
    await c.execute("create table numbers (a int, b text)")
    print(await c.fetchval("select $1::int + 1", 41))
    await c.executemany("insert into numbers values ($1, $2)", [(i, f"n{i}") for i in range(200)])
    print(len(await c.fetch("select * from numbers where a < $1", 50)))
    async with c.transaction():
        print([row["a"] async for row in c.cursor("select a from numbers order by a limit 120")][-1])
    print(await c.copy_records_to_table("numbers", records=[(i, None) for i in range(5000)]))
    try:
        async with c.transaction():
            await c.execute("insert into numbers values (-1, '')")
            await c.fetch("select 1 / 0")
    except asyncpg.PostgresError as error:
        print(type(error).__name__)
    print(await c.fetchval("select count(*) from numbers where a < 0"))
    for what in ("select * from secrets", "select * from secrets where a = $1"):
        try:
            print(await c.fetch(what, *([1] if "$" in what else [])))
        except asyncpg.PostgresError as error:
            print(type(error).__name__)
    print(await c.fetchval("select 'still there'"))
    await c.execute("drop table numbers")
    await c.close()
asyncio.run(main())
"""

SQLALCHEMY = """
import sqlalchemy as sa
engine = sa.create_engine("postgresql+psycopg://")
meta = sa.MetaData()
things = sa.Table("things", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
meta.create_all(engine)
with engine.begin() as c:
    c.execute(sa.insert(things), [{"name": f"thing {i}"} for i in range(50)])
    print(c.execute(sa.select(sa.func.count()).select_from(things)).scalar())
print(sa.inspect(engine).get_columns("things")[1]["name"])
with engine.connect() as c:
    streamed = c.execution_options(stream_results=True, max_row_buffer=10)
    print(streamed.execute(sa.select(things.c.name).order_by(things.c.id)).fetchmany(3))
try:
    with engine.begin() as c:
        c.execute(sa.text("select * from secrets"))
except sa.exc.DBAPIError as error:
    print(error.orig.sqlstate)
meta.drop_all(engine)
"""

JDBC = """
import java.sql.*;
import java.util.Properties;

public class Main {
    public static void main(String[] words) throws Exception {
        String trust = System.getenv("PGSSLROOTCERT");
        String url = "jdbc:postgresql://api.test/shop?user=agent&sslmode=verify-full&sslrootcert=" + trust;
        Properties more = new Properties();
        more.setProperty("password", System.getenv("PGPASSWORD"));
        try (Connection c = DriverManager.getConnection(url, more)) {
            c.createStatement().execute("create table orders (a int, b text)");
            try (PreparedStatement p = c.prepareStatement("insert into orders values (?, ?)")) {
                for (int i = 0; i < 100; i++) { p.setInt(1, i); p.setString(2, "order " + i); p.addBatch(); }
                System.out.println(p.executeBatch().length);
            }
            try (PreparedStatement p = c.prepareStatement("select b from orders where a = ?")) {
                for (int i = 0; i < 8; i++) {
                    p.setInt(1, i);
                    ResultSet r = p.executeQuery(); r.next(); System.out.print(r.getString(1) + " ");
                }
            }
            System.out.println();
            c.setAutoCommit(false);
            Statement s = c.createStatement(); s.setFetchSize(9);
            ResultSet r = s.executeQuery("select a from orders order by a");
            int sum = 0; while (r.next()) sum += r.getInt(1);
            System.out.println(sum);
            c.commit();
            try { c.createStatement().executeQuery("select * from secrets"); }
            catch (SQLException e) { System.out.println(e.getSQLState()); }
            c.rollback();
            c.createStatement().execute("drop table orders");
            c.commit();
        }
    }
}
"""

NODE = """
const { readFileSync } = require("fs"), { Client, Pool } = require("pg");
const clear = process.env.PGSSLMODE == "disable";
const how = { ssl: clear ? false : { ca: readFileSync(process.env.PGSSLROOTCERT) }, host: "api.test" };
const print = (...words) => console.log(JSON.stringify(words));
const tried = async (what) => {
  try { print((await what()).rows); } catch (error) { print(error.code); }
};
(async () => {
  const c = new Client(how);
  await c.connect();
  await c.query("create table node (a int primary key, b text, c bytea, d timestamptz, e jsonb, f int[])");
  const row = (i) => [i, `wörd ${i}`, Buffer.from([i, 0, 255]), new Date(1e12 + i), { i }, [i, null]];
  for (let i = 0; i < 20; i++) await c.query("insert into node values ($1, $2, $3, $4, $5, $6)", row(i));
  print((await c.query("select * from node order by a limit 3")).rows);
  print((await c.query({ text: "select a, b from node where a < $1", values: [3], rowMode: "array" })).rows);
  print((await c.query({ text: "select a, c from node where a = $1", values: [7], binary: true })).rows);
  const kept = (i) => c.query({ name: "kept", text: "select b from node where a = $1", values: [i] });
  for (let i = 0; i < 4; i++) print((await kept(i)).rows);
  print((await c.query({ text: "select a from node order by a", rows: 7 })).rows.length);
  print((await c.query("select 1 as a; select 2 as b; set application_name to 'n'")).map((one) => one.rows));
  print(await Promise.all([...Array(9).keys()].map(async (i) => (await c.query("select $1::int * 2 as n", [i])).rows[0].n)));
  print((await c.query("")).rows);
  await c.query("begin");
  await c.query("insert into node (a) values ($1)", [-1]);
  await tried(() => c.query("select 1 / $1::int", [0]));
  await tried(() => c.query("select 'in a failed transaction'"));
  await c.query("rollback");
  await c.query("begin; insert into node (a) values (-2); savepoint s");
  await tried(() => c.query("select * from secrets"));
  await c.query("rollback to s");
  await tried(() => c.query("select * from secrets where a = $1", [1]));
  await c.query("rollback to s; commit");
  await tried(() => c.query("select a from node where a < 0"));
  await tried(() => c.query({ name: "denied", text: "select * from secrets where a = $1", values: [1] }));
  await tried(() => kept(4));
  await c.query("listen news");
  const told = new Promise((done) => c.once("notification", (one) => done([one.channel, one.payload])));
  await c.query("select pg_notify('news', $1)", ["hello"]);
  print(await told);
  const pool = new Pool({ ...how, max: 4 });
  const all = [...Array(40).keys()].map((i) => pool.query("select count(*)::int + $1 as n from node", [i]));
  print((await Promise.all(all)).map((one) => one.rows[0].n));
  await pool.end();
  await c.query("drop table node");
  await c.end();
})();
"""

PGX = """
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var all = context.Background()

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func code(err error) string {
	if said, ok := err.(*pgconn.PgError); ok {
		return said.Code
	}
	return fmt.Sprint(err)
}

func rows(c *pgx.Conn, sql string, more ...interface{}) (found []interface{}) {
	read, err := c.Query(all, sql, more...)
	for err == nil && read.Next() {
		var values []interface{}
		values, err = read.Values()
		found = append(found, values)
	}
	if err == nil {
		err = read.Err()
	}
	if err != nil {
		return []interface{}{code(err)}
	}
	return found
}

func batch(c *pgx.Conn, said ...string) (found []string) {
	batch := &pgx.Batch{}
	for _, sql := range said {
		batch.Queue(sql)
	}
	answers := c.SendBatch(all, batch)
	for range said {
		tag, err := answers.Exec()
		found = append(found, tag.String(), code(err))
	}
	answers.Close()
	return found
}

func main() {
	c, err := pgx.Connect(all, "")
	must(err)
	_, err = c.Exec(all, "create table gone (a int primary key, b text, c bytea, d timestamptz, e jsonb, f int[], g float8)")
	must(err)
	var lines [][]interface{}
	for i := 0; i < 500; i++ {
		at := time.Unix(int64(1600000000+i), 0)
		b, c, e := strings.Repeat("x", i), []byte{0, byte(i)}, map[string]int{"a": i}
		lines = append(lines, []interface{}{i, b, c, at, e, []int32{1, 2}, 1.5})
	}
	columns := []string{"a", "b", "c", "d", "e", "f", "g"}
	copied, err := c.CopyFrom(all, pgx.Identifier{"gone"}, columns, pgx.CopyFromRows(lines))
	fmt.Println(copied, err)
	for i := 0; i < 5; i++ {
		fmt.Println(rows(c, "select a, length(b), c, e, f, g from gone where a = $1 and d > $2", i, time.Unix(0, 0)))
	}
	fmt.Println(rows(c, "select a, b from gone where a < $1 order by a", pgx.QuerySimpleProtocol(true), 3))
	fmt.Println(rows(c, "select a from gone where a = any($1)", pgx.QueryResultFormats{pgx.TextFormatCode}, []int32{3, 4}))
	fmt.Println(batch(c, "insert into gone (a) values (-1)", "update gone set b = 'y' where a = -1", "select 1"))
	fmt.Println(batch(c, "insert into gone (a) values (-2)", "select * from secrets", "select 1"))
	fmt.Println(rows(c, "select a, b from gone where a < 0"))
	_, err = c.Prepare(all, "kept", "select b from gone where a = $1")
	must(err)
	fmt.Println(rows(c, "kept", 2), rows(c, "kept", 1))
	tx, err := c.Begin(all)
	must(err)
	fmt.Println(rows(c, "select * from secrets"), string(c.PgConn().TxStatus()), rows(c, "select 1"))
	fmt.Println(tx.Commit(all), rows(c, "select 'goes on'"))
	fmt.Println(rows(c, "select * from secrets where a = $1", 1))
	fmt.Println(rows(c, "select * from secrets", pgx.QuerySimpleProtocol(true)))
	soon, end := context.WithTimeout(all, 300*time.Millisecond)
	_, err = c.Exec(soon, "select pg_sleep(60)")
	end()
	fmt.Println(err != nil, c.IsClosed())
	pool, err := pgxpool.Connect(all, "")
	must(err)
	sums := make(chan int)
	for i := 0; i < 20; i++ {
		go func(i int) {
			var n int
			must(pool.QueryRow(all, "select count(*)::int + $1 from gone", i).Scan(&n))
			sums <- n
		}(i)
	}
	sum := 0
	for i := 0; i < 20; i++ {
		sum += <-sums
	}
	fmt.Println(sum)
	_, err = pool.Exec(all, "drop table gone")
	must(err)
	pool.Close()
}
"""
