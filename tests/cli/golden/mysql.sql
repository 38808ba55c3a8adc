-- recorded by capd
-- session 01a1fcfd-cdab-73af-a068-15e43b3dd9b5: mysql to db.internal:3306 (192.0.2.7)
-- process 4242 (ann)  python3 agent.py
-- time 2026-11-21T07:24:14.123456789Z  29 ms  closed
-- PARTIAL  something is missing:
--   - ring full: 120331 bytes of the response

-- 2026-11-21T07:24:14.127456789Z #3
SELECT id, name, email
  FROM `customers`
 ORDER BY id
;
--    id  name      email
--     1  Ada       ada@example.org
--    20  Zoë 世界  NULL
--     3  'NULL'    \x1b[31mred
-- => end of the result  after 12 ms
-- => 2 rows affected  after 12 ms

-- 2026-11-21T07:24:14.140456789Z #9
-- prepared:
-- INSERT INTO orders VALUES (?, ?)

-- 2026-11-21T07:24:14.142456789Z #13
-- ?1 = 7
-- ?2 = NULL
INSERT INTO orders VALUES (?, ?)
;
-- => 1 row affected, insert id 42  after 1 ms

-- 2026-11-21T07:24:14.144456789Z #15
DROP TABLE customers -- 'quietly'
;
-- => 1142 (42000): DROP command denied to user 'ann'  after 1 ms

-- 2026-11-21T07:24:14.146456789Z #17
-- a comment, because it reads or runs what is not here:
-- LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t
-- => 1 row affected  after 3 ms
-- 2026-11-21T07:24:14.150456789Z GAP 120,331 bytes missing from the response at byte 485: ring full
