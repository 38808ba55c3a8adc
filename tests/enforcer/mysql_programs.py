"""Programs that use MySQL as agents' programs do: what they print is the same with and without anybody between.

What lives here: their text; CONNECT goes before those in Python. What must not: running them.

Each makes its own tables and drops them; `secrets` is denied.
"""

CONNECT = """
import os, sys
HOST, CA = os.environ["DB_HOST"], os.environ.get("DB_CA")
WHO = {"host": HOST, "port": 3306, "user": "agent", "password": os.environ["DB_PASSWORD"], "database": "shop"}
"""
PYMYSQL = """
import datetime, decimal, pymysql, pymysql.cursors
tls = {"ssl": {"ca": CA}} if CA else {"ssl_disabled": True}
c = pymysql.connect(**WHO, **tls, charset="utf8mb4")
with c.cursor() as cur:
    cur.execute("create table py (a int primary key, b varchar(40), d blob, e datetime(6), f decimal(10,3))")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
    rows = [(i, f"wörd 漢 {i}", bytes(range(i, i + 9)), moment, decimal.Decimal(i) / 8) for i in range(99)]
    cur.executemany("insert into py values (%s, %s, %s, %s, %s)", rows)
    c.commit()
    cur.execute("select * from py order by a")
    print(cur.fetchall() == tuple((a, b, d, e, f) for a, b, d, e, f in rows), cur.rowcount)
    cur.execute("update py set b = 'x' where a < 10")
    print(cur.rowcount)
    c.rollback()
    cur.execute("select b from py where a = 3")
    print(cur.fetchone())
    cur.execute("select b from big")
    print(len(cur.fetchone()[0]))
    try:
        cur.execute("insert into py (a) values (1)")
    except pymysql.err.IntegrityError as error:
        print(error.args[0])
with c.cursor(pymysql.cursors.SSCursor) as cur:
    cur.execute("select a from py order by a")
    print(sum(row[0] for row in cur))
c.ping()
c.select_db("mysql")
c.select_db("shop")
with c.cursor() as cur:
    cur.execute("drop table py")
c.close()
several = pymysql.connect(**WHO, **tls, client_flag=1 << 16)
with several.cursor() as cur:
    cur.execute("select 1; select 2, 3; set @a = 4; select @a")
    print(cur.fetchall())
    while cur.nextset():
        print(cur.fetchall())
several.close()
"""
PYMYSQL_LIMITED = """
import pymysql, pymysql.cursors
tls = {"ssl": {"ca": CA}} if CA else {"ssl_disabled": True}
for kind in pymysql.cursors.Cursor, pymysql.cursors.SSCursor:
    with pymysql.connect(**WHO, **tls).cursor(kind) as cur:
        try:
            cur.execute("select a as few_rows from shown")
            print(len(cur.fetchall()))
        except pymysql.err.MySQLError as error:
            print(*error.args)
"""
CONNECTOR_LIMITED = """
import mysql.connector
tls = {"ssl_ca": CA} if CA else {"ssl_disabled": True}
for how in {}, {"prepared": True}:
    c = mysql.connector.connect(**WHO, **tls, use_pure=True)
    try:
        cur = c.cursor(**how)
        cur.execute("select a as few_rows from shown where a < %s", (9,))
        print(len(cur.fetchall()))
    except mysql.connector.Error as error:
        print(error.errno, error.msg)
"""
PYMYSQL_DENIED = """
import pymysql
tls = {"ssl": {"ca": CA}} if CA else {"ssl_disabled": True}
c = pymysql.connect(**WHO, **tls, client_flag=1 << 16)
cur = c.cursor()
def tried(what, *values):
    try:
        cur.execute(what, values or None)
        print(cur.fetchall())
    except pymysql.err.Error as error:
        print(error.args[0], error.args[1].split(" [")[0])
tried("select * from secrets")
tried("select 1; select * from secrets")
tried("delete from shown")
cur.execute("begin")
cur.execute("insert into shown values (50, 'fifty')")
tried("select * from secrets where a = %s", 1)
tried("select b from shown where a = 50")
cur.execute("rollback")
tried("select count(*) from shown where a = 50")
tried("load data local infile '/etc/hostname' into table shown")
try:
    c.kill(1)
except pymysql.err.Error as error:
    print(error.args[0])
tried("select 'goes on'")
c.close()
"""
CONNECTOR = """
import mysql.connector
tls = {"ssl_ca": CA, "ssl_verify_cert": True} if CA else {"ssl_disabled": True}
c = mysql.connector.connect(**WHO, **tls, use_pure=True)
cur = c.cursor()
cur.execute("create table con (a int primary key, b varchar(40), d blob, e double)")
prepared = c.cursor(prepared=True)
for i in range(30):
    prepared.execute("insert into con values (%s, %s, %s, %s)", (i, f"wörd {i}", bytes([i, 255]), i / 4))
c.commit()
for i in (1, 2, None):
    prepared.execute("select a, b, d, e from con where a = %s or %s is null order by a limit 3", (i, i))
    print(prepared.fetchall())
cur.execute("select count(*), sum(e) from con")
print(cur.fetchall())
try:
    prepared.execute("select * from secrets where a = %s", (1,))
except mysql.connector.Error as error:
    print(error.errno in (1142, 1146), error.sqlstate in ("42000", "42S02"))
cur = c.cursor()
cur.execute("select 'goes on'")
print(cur.fetchall())
c.cmd_ping()
c.reset_session()
c.database = "shop"
cur = c.cursor()
cur.execute("drop table con")
c.close()
"""
SQLALCHEMY = """
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, create_engine, inspect, select, text
from sqlalchemy.exc import DBAPIError
engine = create_engine(
    f"mysql+pymysql://agent:{WHO['password']}@{HOST}:3306/shop?charset=utf8mb4",
    connect_args={"ssl": {"ca": CA}} if CA else {"ssl_disabled": True},
)
table = Table("alchemy", MetaData(), Column("a", Integer, primary_key=True), Column("b", String(40)), Column("c", LargeBinary))
with engine.begin() as c:
    table.create(c)
    c.execute(table.insert(), [{"a": i, "b": f"wörd {i}", "c": bytes([i])} for i in range(1, 40)])
    print(c.execute(select(table).where(table.c.a < 4)).fetchall())
print([(one["name"], str(one["type"])) for one in inspect(engine).get_columns("alchemy")])
with engine.connect() as c:
    print(sum(row.a for row in c.execution_options(stream_results=True).execute(select(table.c.a))))
    try:
        c.execute(text("select * from secrets"))
    except DBAPIError as error:
        print(error.orig.args[0] in (1142, 1146))
    print(c.execute(text("select 'goes on'")).scalar())
with engine.begin() as c:
    table.drop(c)
engine.dispose()
"""
JDBC = """
import java.sql.*;
import java.util.*;
public class Main {
  static String said(SQLException e) { return e.getErrorCode() == 1142 || e.getErrorCode() == 1146 ? "denied" : e.toString(); }
  public static void main(String[] a) throws Exception {
    String ca = System.getenv("DB_CA");
    String tls = ca == null ? "&useSsl=false" : "&useSsl=true&serverSslCert=" + ca;
    String[] all = {"", "&useServerPrepStmts=true", "&rewriteBatchedStatements=true", "&allowMultiQueries=true"};
    String url = "jdbc:mariadb://" + System.getenv("DB_HOST") + ":3306/shop?user=agent&password=";
    for (String options : all) {
      try (Connection c = DriverManager.getConnection(url + System.getenv("DB_PASSWORD") + tls + options)) {
        try (Statement s = c.createStatement()) { s.execute("create table java (a int primary key, b varchar(40), d double)"); }
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("insert into java values (?, ?, ?)")) {
          for (int i = 0; i < 20; i++) {
            s.setInt(1, i);
            s.setString(2, "w\\u00f6rd " + i);
            s.setDouble(3, i / 4.0);
            s.addBatch();
          }
          System.out.println(s.executeBatch().length);
        }
        c.commit();
        for (int i = 0; i < 3; i++)
          try (PreparedStatement s = c.prepareStatement("select b, d from java where a = ?")) {
            s.setInt(1, i);
            ResultSet r = s.executeQuery();
            while (r.next()) System.out.println(r.getString(1).length() + " " + r.getDouble(2));
          }
        try (PreparedStatement s = c.prepareStatement("select a from java order by a")) {
          s.setFetchSize(3);
          ResultSet r = s.executeQuery();
          int sum = 0;
          while (r.next()) sum += r.getInt(1);
          System.out.println(sum);
        }
        try (Statement s = c.createStatement()) { s.executeQuery("select * from secrets"); }
        catch (SQLException e) { System.out.println(said(e)); }
        c.rollback();
        try (Statement s = c.createStatement()) { s.execute("drop table java"); }
        c.commit();
      }
    }
  }
}
"""

NODE = """
const { readFileSync } = require("fs"), mysql = require("mysql2/promise");
const ssl = process.env.DB_CA && { ca: readFileSync(process.env.DB_CA) };
const how = { host: process.env.DB_HOST, user: "agent", password: process.env.DB_PASSWORD, database: "shop", ssl };
const print = (...words) => console.log(JSON.stringify(words));
const tried = async (what) => {
  try { print((await what())[0]); } catch (error) { print([1142, 1146].includes(error.errno) ? "denied" : error.errno); }
};
(async () => {
  const c = await mysql.createConnection(how);
  await c.query("create table node (a int primary key, b varchar(40), c blob, d datetime(3), e decimal(9, 3), f text)");
  const row = (i) => [i, `wörd 漢 ${i}`, Buffer.from([i, 0, 255]), new Date(1e12 + i), i / 8, JSON.stringify({ i })];
  for (let i = 0; i < 9; i++) await c.execute("insert into node values (?, ?, ?, ?, ?, ?)", row(i));
  await c.query("insert into node values ?", [[row(9), row(10), row(11)]]);
  print((await c.query("select * from node order by a limit 3"))[0]);
  const either = "select * from node where a = ? or ? is null order by a limit 2";
  for (const i of [1, 2, null]) print((await c.execute(either, [i, i]))[0]);
  print((await c.query({ sql: "select a, b from node where a < ?", values: [3], rowsAsArray: true }))[0]);
  print((await c.query("select length(b), b from big"))[0].map((one) => one.b.length));
  const kept = await c.prepare("select b from node where a = ?");
  for (const i of [3, 4, 99]) print((await kept.execute([i]))[0]);
  await kept.close();
  print(await Promise.all([...Array(9).keys()].map(async (i) => (await c.execute("select ? * 2 as n", [i]))[0][0].n)));
  await c.beginTransaction();
  await c.execute("insert into node (a) values (?)", [-1]);
  await tried(() => c.query("insert into node (a) values (-1)"));
  await tried(() => c.query("select * from secrets"));
  await tried(() => c.execute("select * from secrets where a = ?", [1]));
  print((await c.query("select count(*) as n from node where a < 0"))[0]);
  await c.rollback();
  print((await c.query("select count(*) as n from node where a < 0"))[0]);
  await c.ping();
  await c.query("use mysql");
  await c.query("use shop");
  await tried(() => c.execute("select a from node where a = ?", [5]));
  await c.query("drop table node");
  await c.end();
  const several = await mysql.createConnection({ ...how, multipleStatements: true });
  print((await several.query("select 1; select 2, 3; set @a = 4; select @a"))[0]);
  await tried(() => several.query("select * from secrets; select 1"));
  await several.end();
  const pool = mysql.createPool({ ...how, connectionLimit: 4 });
  const all = [...Array(40).keys()].map((i) => pool.execute("select count(*) + ? as n from shown", [i]));
  print((await Promise.all(all)).map(([rows]) => rows[0].n));
  await pool.end();
})();
"""
