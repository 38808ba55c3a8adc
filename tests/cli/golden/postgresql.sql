-- recorded by capd
-- session 01a1fcfd-c5db-7f11-9843-ebdda1c10f1f: postgresql to db.internal:5432 (192.0.2.7)
-- process 4242 (ann)  python3 agent.py
-- time 2026-11-21T07:24:12.123456789Z  22 ms  closed
-- PARTIAL  something is missing:
--   - ring full: 120331 bytes of the response

-- 2026-11-21T07:24:12.126456789Z #4
SELECT id, name, email
  FROM customers
 ORDER BY id
;
--    id  name      email
--     1  Ada       ada@example.org
--    20  Zoë 世界  NULL
--     3  'NULL'    \x1b[31mred
-- => SELECT 3  after 12 ms

-- 2026-11-21T07:24:12.139456789Z #9
-- $1 = 7
-- $2 = NULL
INSERT INTO orders VALUES ($1, $2)
;
-- => INSERT 0 1  after 1 ms

-- 2026-11-21T07:24:12.141456789Z #17
DROP TABLE customers
;
-- => ERROR 42501: must be owner of table customers  after 1 ms
-- 2026-11-21T07:24:12.143456789Z GAP 120,331 bytes missing from the response at byte 337: ring full
