CREATE TABLE zoo (
    id int8 NOT NULL, ts timestamptz NOT NULL, g int4 NOT NULL, i2 int2, i4 int4, i8 int8, n numeric(10,2), nb numeric(28,10),
    nw numeric(38,4), nu numeric, b bool, t text, v varchar(24), d date, tm timestamp, tz timestamptz, u uuid, j jsonb, f8 float8,
    tc text COLLATE "C", te text COLLATE "en-x-icu", x xid8, "Odd Name" text
);
CREATE COLLATION public."An Order" (provider = icu, locale = 'en-u-kn-true-ks-level2', deterministic = false);
INSERT INTO zoo
SELECT i,
    timestamptz '2024-03-09 20:00:00+00' + i * interval '97 seconds 123 microseconds',
    i % 11,
    CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 32767 WHEN 2 THEN -32768 ELSE (i * 31) % 2000 - 1000 END,
    CASE i % 13 WHEN 0 THEN NULL WHEN 1 THEN 2147483647 WHEN 2 THEN -2147483648 ELSE (i * 7919) % 10007 - 5000 END,
    CASE i % 17 WHEN 0 THEN NULL WHEN 1 THEN 9223372036854775807 WHEN 2 THEN -9223372036854775808 ELSE i * 104729 - 50000000 END,
    CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN 99999999.99 WHEN 2 THEN -0.01 ELSE ((i * 37) % 100000) / 100.0 END,
    CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN 999999999999999999.9999999999 WHEN 2 THEN 0.0000000001 ELSE (i * 12345) / 7.0 END,
    CASE i % 4 WHEN 0 THEN NULL ELSE i * 1234567890123456789012.0 END,
    (ARRAY['0.10','0.100','NaN','Infinity','-Infinity','1e50','-3.14159',NULL,'0','12345678901234567890.5']::numeric[])[i % 10 + 1],
    CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END,
    (ARRAY['a','A','ä','日本語','','a b','per%cent','back\slash','z' || i % 23,NULL,E'tab\tnl\n','🙂'])[i % 12 + 1],
    (ARRAY['v1','v2','V1','',NULL])[i % 5 + 1],
    CASE i % 19 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' WHEN 3 THEN '0044-03-15 BC' ELSE date '2024-01-01' + i % 100 END,
    CASE i % 19 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' ELSE timestamp '2024-02-28 22:00' + i * interval '1 hour 1 second' END,
    CASE i % 19 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' ELSE timestamptz '2024-10-26 22:00+00' + i * interval '11 minutes' END,
    md5((i % 50)::text)::uuid,
    (ARRAY['{"k": "v1", "n": 1.50, "deep": {"k": [1, "}"]}}','{"k": null}','[1, 2]','"s"','{}',NULL,'{"k": "q\"uote\\ \u0041"}'])[i % 7 + 1]::jsonb,
    CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN 1e300 ELSE i / 3.0 END,
    (ARRAY['b','B','c','é'])[i % 4 + 1],
    (ARRAY['b','B','c','é'])[i % 4 + 1],
    (i + 700)::text::xid8,
    CASE WHEN i % 2 = 0 THEN 'Odd' END
FROM generate_series(1, 3000) i;
CREATE VIEW zoo_view AS SELECT id, ts AS at, g AS kind, t AS label, n AS amount FROM zoo WHERE g < 8;
CREATE VIEW zoo_by_kind AS SELECT g AS kind, count(*) AS rows, sum(n) AS amount, avg(n) AS mean FROM zoo GROUP BY g;
CREATE VIEW zoo_barrier WITH (security_barrier) AS SELECT id, g FROM zoo;
CREATE TABLE plain (g int4, name text);
CREATE TABLE secret (id int8, ts timestamptz NOT NULL, g int4);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE ROLE watcher;
GRANT SELECT ON secret TO watcher;
CREATE POLICY p ON secret USING (g = 1);
CREATE FUNCTION own_add(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
CREATE FUNCTION virtual_queries() RETURNS TABLE (id int8, started_at timestamptz, pid int4, route text, us int8, fell_back bool)
    LANGUAGE sql STABLE AS $$ SELECT i, timestamptz '2024-01-01 00:00+00' + i * interval '1 second', i % 3, (ARRAY['lake','postgres','virtual'])[i % 3 + 1], i * i, i % 4 = 0
    FROM generate_series(1, 40) i $$;
CREATE FUNCTION virtual_stats() RETURNS TABLE (route text, calls int8)
    LANGUAGE sql STABLE AS $$ VALUES ('lake', 3::int8), ('postgres', 5), ('none', NULL) $$;
CREATE VIEW queries AS SELECT * FROM virtual_queries();
CREATE VIEW stats AS SELECT * FROM virtual_stats();
-- A second tiered table, small, with duplicates and NULLs among its keys, and keys that the other lacks.
CREATE TABLE ant (id int8 NOT NULL, ts timestamptz NOT NULL, g int4, k int8, t text, v varchar(24), n numeric(10,2), nb numeric(28,10), b bool, d date, u uuid);
INSERT INTO ant
SELECT i, timestamptz '2024-03-09 21:00:00+00' + i * interval '1 hour', CASE i % 8 WHEN 0 THEN NULL ELSE i % 15 END, CASE i % 6 WHEN 0 THEN NULL ELSE i % 20 END,
    (ARRAY['a','A','ä','',NULL,'nobody'])[i % 6 + 1], (ARRAY['v1','V1',NULL])[i % 3 + 1],
    CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 99999999.99 WHEN 2 THEN -0.01 ELSE i END,
    CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN 99999999.99 WHEN 2 THEN 0.0000000001 ELSE i END,
    CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN true ELSE false END, CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN 'infinity' ELSE date '2024-01-01' + i END,
    md5((i % 7)::text)::uuid
FROM generate_series(1, 60) i;
-- Tables that only PostgreSQL holds.
CREATE TABLE kinds (gone int4, g int4, name text, n numeric(10,2), u uuid, since timestamptz, weight numeric, flag bool, label varchar(12), pad char(4), span interval);
ALTER TABLE kinds DROP COLUMN gone;
INSERT INTO kinds
SELECT CASE WHEN i % 9 = 8 THEN NULL ELSE i % 13 END, (ARRAY['one','two','Ä',NULL,'row 7'])[i % 5 + 1], i - 0.01, md5((i % 50)::text)::uuid,
    timestamptz '2024-03-09 21:00:00+00' + i * interval '1 day', (ARRAY['0.10','0.100','NaN','1e50',NULL]::numeric[])[i % 5 + 1], i % 2 = 0, 'v' || i % 3, 'x', '1 day'
FROM generate_series(1, 20) i;
CREATE TABLE owned (g int4, owner text);
INSERT INTO owned VALUES (1, 'watcher'), (2, 'other');
ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON owned USING (owner = current_user);
GRANT SELECT ON owned, zoo, kinds TO watcher;
CREATE VIEW owned_view AS SELECT * FROM owned;
CREATE VIEW kinds_view AS SELECT g, name FROM kinds WHERE flag;
