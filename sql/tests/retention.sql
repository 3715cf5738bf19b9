-- Retention: the floor and its tripwire at every door, late rows, the lake's floor, and what a tiered table still allows after them.
CREATE ROLE keeper;
CREATE ROLE stranger;
CREATE SCHEMA n AUTHORIZATION keeper;
GRANT USAGE ON SCHEMA n TO stranger;
SET timezone = 'UTC';
SELECT (now() AT TIME ZONE 'UTC')::date AS today \gset
SET ROLE keeper;
CREATE TABLE n.t (ts timestamptz, a int, s text);
SELECT check_that.equal('attach', watershed.attach_table('n.t', 'ts', first_day => date :'today' - 10)::text, 'n.t');
GRANT SELECT ON n.t TO stranger;
INSERT INTO n.t (ts, a) SELECT date :'today' - d + time '12:00', d FROM unnest(ARRAY[400, 20, 11, 10, 9, 8, 2, 1, 0]) d;
CREATE VIEW n.v AS SELECT ts, a FROM n.t WHERE a >= 0;
CREATE FUNCTION n.in_sql() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM n.t';
CREATE FUNCTION n.in_plpgsql() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM n.t); END';
CREATE FUNCTION n.since(day timestamptz) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM n.t WHERE ts >= day); END';
CREATE FUNCTION n.by_cursor() RETURNS int LANGUAGE plpgsql AS 'DECLARE c CURSOR FOR SELECT a FROM n.t; r int; BEGIN OPEN c; FETCH c INTO r; RETURN r; END';

-- Windows: the owner's to set.
SELECT watershed.set_retention('n.t', hot_days => 30, lake_days => 400);
SELECT check_that.equal('windows', (SELECT hot_days || '/' || lake_days FROM watershed.tables WHERE table_name = 'n.t'), '30/400');
SELECT check_that.refused('SELECT watershed.set_retention(''n.t'', 30, 20)', '22023');
SELECT check_that.refused('SELECT watershed.set_retention(''n.t'', 0)', '22023');
SELECT check_that.refused('SELECT watershed.set_retention(''pg_class'', 1)', '42809');
SELECT check_that.refused('SELECT watershed_control.set_retention_proven(''n.t'', 1, 1, NULL, NULL)', '42501');
SELECT check_that.refused('SELECT watershed_control.raise_floor(''n.t''::regclass, current_date, 1, ''1:1:'', 1, now(), '''')', '42501');
SET ROLE stranger;
SELECT check_that.refused('SELECT watershed.set_retention(''n.t'', 5)', '42501');
SET ROLE keeper;
SELECT watershed.set_retention('n.t');
SELECT check_that.equal('off again', (SELECT count(*)::text FROM watershed.tables WHERE table_name = 'n.t' AND hot_days IS NULL AND lake_days IS NULL), '1');
SELECT check_that.equal('no comment is left', coalesce(obj_description('n.t'::regclass), 'none'), 'none');
RESET ROLE;

-- An archive whose boundary sees all that is there; the rows after it are not in any lake.
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
SELECT 'n.t'::regclass, 1, pg_current_snapshot()::text, watershed_control.current_lineage(), 1;
INSERT INTO n.t (ts, a) VALUES (date :'today' - 20 + time '13:00', 21), (date :'today' - 9 + time '13:00', 22);
SELECT boundary FROM watershed_control.archives WHERE relid = 'n.t'::regclass AND number = 1 \gset
SELECT schema_epoch AS epoch FROM watershed_control.tables WHERE relid = 'n.t'::regclass \gset
SET ROLE watershed_archiver;
SELECT check_that.refused(format('SELECT watershed_control.raise_floor(''n.t''::regclass, %L, 2, %L, %s, ''-infinity'', ''test'')', date :'today' - 10, :'boundary', :'epoch'), '40001');
SELECT check_that.refused(format('SELECT watershed_control.raise_floor(''n.t''::regclass, %L, 1, %L, %s, ''-infinity'', ''test'')', date :'today' - 10, :'boundary', :epoch + 1), '40001');
SELECT check_that.refused(format('SELECT watershed_control.raise_floor(''n.t''::regclass, %L, 1, %L, %s, ''-infinity'', ''test'')', date :'today' - 12, :'boundary', :'epoch'), '22023');
SELECT check_that.refused(format('SELECT watershed_control.raise_floor(''n.t''::regclass, %L, 1, %L, %s, ''-infinity'', ''test'')', date :'today' + 1, :'boundary', :'epoch'), '22023');
SELECT check_that.equal('the first floor keeps what is not archived', watershed_control.raise_floor('n.t'::regclass, date :'today' - 10, 1, :'boundary', :epoch, '-infinity', 'test')::text, '1');
SELECT check_that.refused(format('SELECT watershed_control.raise_floor(''n.t''::regclass, %L, 1, %L, %s, ''-infinity'', ''test'')', date :'today' - 8, :'boundary', :'epoch'), '40001');
SELECT check_that.equal('two days more', watershed_control.raise_floor('n.t'::regclass, date :'today' - 8, 1, :'boundary', :epoch, (date :'today' - 10)::timestamptz, 'test')::text, '1');
RESET ROLE;
SELECT check_that.equal('fence', (SELECT min_archive || ' ' || (floor = date :'today' - 8) || ' ' || floor_reason FROM watershed_control.tables WHERE relid = 'n.t'::regclass), '1 true test');
SELECT check_that.equal('parts', (SELECT string_agg(kind || ':' || n, ' ' ORDER BY kind) FROM (SELECT kind, count(*) AS n FROM watershed_control.partitions WHERE relid = 'n.t'::regclass GROUP BY kind) p), 'cold:1 day:24 future:1 gone:1 late:1');
SELECT check_that.equal('all parts are known', (SELECT count(*)::text FROM pg_partition_tree('n.t') WHERE level > 0), (SELECT count(*)::text FROM watershed_control.partitions WHERE relid = 'n.t'::regclass));
SELECT check_that.equal('nobody has rights on parts', (SELECT count(*)::text FROM watershed_control.partitions p JOIN pg_class c ON c.oid = p.part_relid WHERE relid = 'n.t'::regclass AND (relacl IS NULL OR cardinality(relacl) > 0 OR relowner <> 'keeper'::regrole)), '0');
SELECT watershed_control.check_table('n.t'::regclass);

-- The tripwire, at every door.
SET ROLE stranger;
SELECT check_that.refused('SELECT count(*) FROM n.t', '58P01', '%rows before the floor are in the lake only%');
SELECT check_that.refused('SELECT a FROM n.t LIMIT 1', '58P01');
SELECT check_that.refused('SELECT a FROM n.t ORDER BY ts DESC LIMIT 1', '58P01');
SELECT check_that.refused('SELECT a FROM n.t WHERE a = 5', '58P01');
SELECT check_that.refused('SELECT a FROM n.t WHERE _stream = 0', '58P01');
SELECT check_that.refused('SELECT a FROM n.t WHERE _stream = 7 AND a = 5', '58P01');
SELECT check_that.refused(format('SELECT count(*) FROM n.t WHERE ts >= %L', date :'today' - 9), '58P01');
SELECT check_that.refused('SELECT 1 WHERE EXISTS (SELECT FROM n.t)', '58P01');
SELECT check_that.refused('WITH x AS MATERIALIZED (SELECT * FROM n.t) SELECT count(*) FROM x WHERE ts > now()', '58P01');
SELECT check_that.refused('SELECT count(*) FROM generate_series(1, 2) g JOIN n.t ON t.a = g', '58P01');
SELECT check_that.refused('DO $d$ DECLARE c bigint; BEGIN SELECT count(*) INTO c FROM n.t; END $d$', '58P01');
SELECT check_that.refused('CREATE TEMP TABLE x AS SELECT * FROM n.t', '58P01');
RESET ROLE; SET ROLE keeper;
SELECT check_that.refused('SELECT count(*) FROM n.v', '58P01');
SELECT check_that.refused('SELECT n.in_sql()', '58P01');
SELECT check_that.refused('SELECT n.in_plpgsql()', '58P01');
SELECT check_that.refused('SELECT n.by_cursor()', '58P01');
SELECT check_that.refused('INSERT INTO n.t (ts, a) SELECT now(), count(*) FROM n.t', '58P01');
\set ON_ERROR_STOP off
SET client_min_messages = fatal;
BEGIN; DECLARE c CURSOR FOR SELECT a FROM n.t;
\set got :SQLSTATE
ROLLBACK;
SELECT check_that.equal('cursor', :'got', '58P01');
COPY (SELECT a FROM n.t) TO STDOUT;
\set got :SQLSTATE
SELECT check_that.equal('copy', :'got', '58P01');
SET plan_cache_mode = force_generic_plan;
PREPARE since(timestamptz) AS SELECT count(*) FROM n.t WHERE ts >= $1;
PREPARE everything AS SELECT count(*) FROM n.t;
EXECUTE since('2000-01-01');
\set got :SQLSTATE
SELECT check_that.equal('generic plan', :'got', '58P01');
EXECUTE everything;
\set got :SQLSTATE
SELECT check_that.equal('prepared', :'got', '58P01');
DELETE FROM n.t;
\set got :SQLSTATE
SELECT check_that.equal('delete', :'got', '0A000');
UPDATE n.t SET a = 1;
\set got :SQLSTATE
SELECT check_that.equal('update', :'got', '0A000');
TRUNCATE n.t;
\set got :SQLSTATE
SELECT check_that.equal('truncate', :'got', '0A000');
SET client_min_messages = warning;
\set ON_ERROR_STOP on
-- What stays above the floor does not meet it.
EXECUTE since(:'today') \gset
SELECT check_that.equal('generic plan above the floor', :'count', '1');
RESET plan_cache_mode;
SELECT check_that.equal('constant', (SELECT count(*)::text FROM n.t WHERE ts >= date :'today' - 8), '4');
SELECT check_that.equal('at run time', (SELECT count(*)::text FROM n.t WHERE ts > now() - interval '5 days'), '3');
SELECT check_that.equal('function above the floor', n.since((date :'today' - 2)::timestamptz)::text, '3');
SELECT check_that.equal('view above the floor', (SELECT count(*)::text FROM n.v WHERE ts >= date :'today' - 2), '3');
SELECT check_that.equal('either arm above the floor', (SELECT count(*)::text FROM n.t WHERE ts >= date :'today' AND a >= 0 OR ts >= date :'today' - 2 AND a = 2), '2');
SELECT check_that.equal('what PostgreSQL has, by name', (SELECT string_agg(a::text, ' ' ORDER BY a) FROM n.t WHERE watershed_control.cold_slot(_stream, 0) = 0), '0 1 2 8 21 22');

-- Late rows, and DDL with a floor.
INSERT INTO n.t (ts, a) VALUES (date :'today' - 300, 301), (date :'today' - 8, 302), (now() + interval '35 days', 303);
RESET ROLE;
SELECT check_that.equal('late rows stand apart', (SELECT string_agg(a || ':' || kind, ' ' ORDER BY a) FROM n.t JOIN watershed_control.partitions p ON p.part_relid = t.tableoid WHERE watershed_control.cold_slot(_stream, 0) = 0 AND a > 20), '21:late 22:late 301:late 302:day 303:future');
SET ROLE keeper;
ALTER TABLE n.t ADD COLUMN more text;
CREATE INDEX ON n.t (a);
COMMENT ON TABLE n.t IS 'still a table';
INSERT INTO n.t (ts, a, more) VALUES (date :'today' - 299, 304, 'm');
SELECT check_that.refused('ALTER TABLE n.t DETACH PARTITION ' || c.oid::regclass, '42501') FROM pg_class c WHERE relname = 't_cold';
RESET ROLE;
SELECT check_that.equal('more days', watershed_control.ensure_days('n.t'::regclass, 45)::text, '30');
SELECT watershed_control.check_table('n.t'::regclass);
SELECT check_that.equal('strays moved', (SELECT kind FROM n.t JOIN watershed_control.partitions p ON p.part_relid = t.tableoid WHERE a = 303 AND ts > now()), 'day');
SELECT check_that.refused('SELECT count(more) FROM n.t', '58P01');

-- Late rows leave when the boundary sees them; what came since stays.
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
SELECT 'n.t'::regclass, 2, pg_current_snapshot()::text, watershed_control.current_lineage(), 2;
INSERT INTO n.t (ts, a) VALUES (date :'today' - 300, 305);
SELECT boundary FROM watershed_control.archives WHERE relid = 'n.t'::regclass AND number = 2 \gset
SELECT schema_epoch AS epoch, floor FROM watershed_control.tables WHERE relid = 'n.t'::regclass \gset
SET ROLE watershed_archiver;
SELECT check_that.equal('late rows leave', watershed_control.forget_late('n.t'::regclass, 2, :'boundary', :epoch, :'floor')::text, '4');
SELECT check_that.equal('and leave once', watershed_control.forget_late('n.t'::regclass, 2, :'boundary', :epoch, :'floor')::text, '0');
SELECT check_that.equal('fence', (SELECT min_archive::text FROM watershed_control.tables WHERE relid = 'n.t'::regclass), '2');

-- The lake's floor follows PostgreSQL's, never leads it.
SELECT check_that.refused(format('SELECT watershed_control.raise_lake_floor(''n.t''::regclass, %L)', date :'today' - 7), '22023');
SELECT check_that.equal('nothing is that old', watershed_control.raise_lake_floor('n.t'::regclass, date :'today' - 350)::text, '0');
SELECT check_that.equal('the late row goes', watershed_control.raise_lake_floor('n.t'::regclass, date :'today' - 250)::text, '1');
SELECT check_that.equal('floors', (SELECT ((lake_floor AT TIME ZONE 'UTC')::date - date :'today')::text FROM watershed.tables WHERE table_name = 'n.t'), '-250');
RESET ROLE;
INSERT INTO n.t (ts, a) VALUES (date :'today' - 300, 306);
SET ROLE watershed_archiver;
SELECT check_that.equal('what comes below it goes at the next look', watershed_control.raise_lake_floor('n.t'::regclass)::text, '1');
SELECT watershed_control.warn_floor('n.t'::regclass, date :'today' - 6);
SELECT check_that.equal('the floor to come', (SELECT ((floor_to_come AT TIME ZONE 'UTC')::date - date :'today')::text FROM watershed.tables WHERE table_name = 'n.t'), '-6');
SELECT watershed_control.warn_floor('n.t'::regclass, NULL);
SELECT check_that.equal('not any more', (SELECT count(floor_to_come)::text FROM watershed.tables WHERE table_name = 'n.t'), '0');
SELECT watershed_control.note_retention('n.t'::regclass, 'waits');
SELECT check_that.equal('note', (SELECT retention_note FROM watershed.tables WHERE table_name = 'n.t'), 'waits');
RESET ROLE;
ALTER TABLE n.t OWNER TO stranger;
SELECT check_that.equal('parts follow the owner', (SELECT count(*)::text FROM watershed_control.partitions p JOIN pg_class c ON c.oid = p.part_relid WHERE relid = 'n.t'::regclass AND relowner <> 'stranger'::regrole), '0');
DROP VIEW n.v;
SET ROLE stranger;
SELECT check_that.equal('drop', watershed.drop_table('n.t'), 'n.t');
RESET ROLE;
SELECT check_that.equal('nothing is left', (SELECT count(*)::text FROM pg_class WHERE relname LIKE 't\_%' AND relnamespace = 'watershed_parts'::regnamespace), '0');
