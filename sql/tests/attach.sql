-- What attach_table keeps: columns, defaults, comments, checks, indexes, rights, rows; and what it adds.
CREATE ROLE attach_owner;
CREATE ROLE attach_writer;
CREATE ROLE attach_reader;
CREATE SCHEMA "Odd schema" AUTHORIZATION attach_owner;
GRANT USAGE ON SCHEMA "Odd schema" TO attach_writer, attach_reader;
SET ROLE attach_owner;
CREATE TABLE "Odd schema"."Röws of a table whose name is rather long, indeed" (
    gone      int,
    "when"    timestamptz,
    id        serial,
    "a b"     varchar(10) COLLATE "C" NOT NULL DEFAULT 'x',
    "A B"     numeric(10,2) CHECK ("A B" >= 0),
    n         numeric,
    small     int2, big int8, f4 float4, f8 float8, b bool, d date, t timestamp(3), u uuid, rest jsonb, raw bytea,
    CONSTRAINT named CHECK (big > small)
);
ALTER TABLE "Odd schema"."Röws of a table whose name is rather long, indeed" DROP COLUMN gone;
COMMENT ON TABLE "Odd schema"."Röws of a table whose name is rather long, indeed" IS 'it''s odd';
COMMENT ON COLUMN "Odd schema"."Röws of a table whose name is rather long, indeed"."a b" IS 'spaced';
CREATE INDEX odd_partial ON "Odd schema"."Röws of a table whose name is rather long, indeed" ("a b") WHERE "when" > '2020-01-01 00:00+00';
COMMENT ON INDEX "Odd schema".odd_partial IS 'partial';
CREATE INDEX odd_gin ON "Odd schema"."Röws of a table whose name is rather long, indeed" USING gin (rest jsonb_path_ops);
CREATE INDEX odd_lower ON "Odd schema"."Röws of a table whose name is rather long, indeed" (lower("a b") DESC);
CREATE STATISTICS "Odd schema".odd_stats (ndistinct) ON small, big FROM "Odd schema"."Röws of a table whose name is rather long, indeed";
GRANT SELECT, INSERT ON "Odd schema"."Röws of a table whose name is rather long, indeed" TO attach_writer WITH GRANT OPTION;
GRANT SELECT ("when", n), UPDATE (n) ON "Odd schema"."Röws of a table whose name is rather long, indeed" TO attach_reader;
ALTER TABLE "Odd schema"."Röws of a table whose name is rather long, indeed" ALTER COLUMN n SET STATISTICS 42;
INSERT INTO "Odd schema"."Röws of a table whose name is rather long, indeed" ("when", "A B", n, rest)
VALUES (now(), 1.5, 2, '{"a":1}'), ('1999-01-01', 2, 'NaN', NULL), ('2999-12-31 23:59:59.999999+00', NULL, NULL, '[]'), ('0044-03-15 12:00:00+00 BC', 0, 1e-20, '1');
CREATE TEMP TABLE before AS SELECT * FROM "Odd schema"."Röws of a table whose name is rather long, indeed";
BEGIN;
SELECT pg_current_xact_id() AS attaching \gset
SELECT watershed.attach_table('"Odd schema"."Röws of a table whose name is rather long, indeed"', event_time => 'when', overflow => 'rest', first_day => (now() AT TIME ZONE 'UTC')::date - 3) AS tab \gset
COMMIT;
RESET ROLE;
SELECT check_that.equal('same name', :'tab', '"Odd schema"."Röws of a table whose name is rather long, indeed"');
SELECT check_that.equal('columns', string_agg(format('%I %s%s%s', attname, format_type(atttypid, atttypmod),
        CASE WHEN attcollation NOT IN (0, 100) THEN ' ' || attcollation::regcollation ELSE '' END,
        CASE WHEN attnotnull THEN ' not null' ELSE '' END), ', ' ORDER BY attnum),
    '"when" timestamp with time zone not null, id integer not null, "a b" character varying(10) "C" not null, "A B" numeric(10,2), n numeric, small smallint, big bigint, f4 real, f8 double precision, b boolean, d date, t timestamp(3) without time zone, u uuid, rest jsonb, raw bytea, _xid xid8 not null, _stream integer not null, _offset bigint not null')
FROM pg_attribute WHERE attrelid = :'tab'::regclass AND attnum > 0 AND NOT attisdropped;
SELECT check_that.equal('rows came along', (SELECT count(*) FROM (SELECT * FROM before EXCEPT ALL SELECT "when", id, "a b", "A B", n, small, big, f4, f8, b, d, t, u, rest, raw FROM :tab) x)::text
    || '/' || (SELECT count(*) FROM :tab)::text, '0/4');
SELECT check_that.equal('rows are of the attaching transaction', (SELECT string_agg(DISTINCT _xid || '.' || _stream || '.' || _offset, ' ') FROM :tab), :'attaching' || '.0.0');
SELECT check_that.equal('rows stand in their partitions', (SELECT string_agg(DISTINCT p.kind, ' ' ORDER BY p.kind) FROM :tab r JOIN watershed_control.partitions p ON p.part_relid = r.tableoid), 'cold day future');
SELECT check_that.equal('table comment', obj_description(:'tab'::regclass), 'it''s odd');
SELECT check_that.equal('column comment', (SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = :'tab'::regclass AND attname = 'a b'), 'spaced');
SELECT check_that.equal('checks', (SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = :'tab'::regclass), 'Röws of a table whose name is rather long, indeed_A B_check named watershed_event_time watershed_keeps_1 watershed_keeps_12 watershed_keeps_4 watershed_xid');
SELECT check_that.refused(format('INSERT INTO %s ("when", id, "a b", "A B") VALUES (now(), 1, ''x'', ''NaN'')', :'tab'), '23514', '%watershed_keeps_4%');
SELECT check_that.refused(format('INSERT INTO %s ("when", id, "a b", t) VALUES (now(), 1, ''x'', ''294276-01-01'')', :'tab'), '23514', '%watershed_keeps_12%');
SELECT check_that.equal('indexes', (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = :'tab'::regclass AND relname LIKE 'odd%'), 'odd_gin odd_lower odd_partial');
SELECT check_that.equal('index comment', obj_description('"Odd schema".odd_partial'::regclass), 'partial');
SELECT check_that.equal('indexes of our own', (SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE indrelid = :'tab'::regclass AND attname IN ('_xid', 'when'))::text, '2');
SELECT check_that.equal('statistics', (SELECT stxname || ' ' || stxowner::regrole FROM pg_statistic_ext WHERE stxrelid = :'tab'::regclass), 'odd_stats attach_owner');
SELECT check_that.equal('statistics target', (SELECT attstattarget::text FROM pg_attribute WHERE attrelid = :'tab'::regclass AND attname = 'n'), '42');
SELECT check_that.equal('serial belongs to the new table', pg_get_serial_sequence(:'tab', 'id'), '"Odd schema"."Röws of a table whose name is rather long, indeed_id_seq"');
SELECT check_that.equal('owner of table and parts', (SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE oid = :'tab'::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = :'tab'::regclass)), 'attach_owner');
SELECT check_that.equal('days', (SELECT min(day) - (now() AT TIME ZONE 'UTC')::date || ' ' || max(day) - (now() AT TIME ZONE 'UTC')::date || ' ' || count(*) FROM watershed_control.partitions WHERE relid = :'tab'::regclass AND kind = 'day'), '-3 15 19');
SELECT check_that.equal('partition names fit', (SELECT bool_and(octet_length(relname) < 64 AND relname ~ '^Odd schema_Röws of a table whose.*_([0-9]{8}|cold|future)$')::text FROM watershed_control.partitions JOIN pg_class ON oid = part_relid WHERE relid = :'tab'::regclass), 'true');
SELECT check_that.equal('lake names', (SELECT string_agg(lake_name, ', ' ORDER BY attnum) FROM watershed_control.lake_columns WHERE relid = :'tab'::regclass),
    'when, id, a_b, A_B_4, n, small, big, f4, f8, b, d, t, u, rest, raw, _xid, _stream, _offset');
SELECT check_that.equal('control row', (SELECT schema_name || '|' || table_name || '|' || event_time || '|' || overflow || '|' || lake_path || '|' || min_archive || '|' || floor || '|' || schema_epoch || '|' || (lineage = watershed_control.current_lineage()) FROM watershed_control.tables WHERE relid = :'tab'::regclass),
    'Odd schema|Röws of a table whose name is rather long, indeed|when|rest|Odd_schema.R_ws_of_a_table_whose_name_is_rather_long__indeed|0|-infinity|1|true');
SELECT check_that.equal('loads stream', (SELECT kind || ' ' || next_offset FROM watershed_control.streams s JOIN watershed_control.positions ON stream = s.id WHERE relid = :'tab'::regclass), 'loads 0');
-- rights
SELECT check_that.equal('owner: ' || c, has_column_privilege('attach_owner', :'tab'::regclass, c, 'INSERT')::text, (c NOT IN ('_xid', '_stream', '_offset'))::text)
FROM unnest(ARRAY['when', 'a b', 'raw', '_xid', '_stream', '_offset']) c;
SELECT check_that.equal('writer: ' || c, has_column_privilege('attach_writer', :'tab'::regclass, c, 'INSERT WITH GRANT OPTION')::text, (c NOT IN ('_xid', '_stream', '_offset'))::text)
FROM unnest(ARRAY['when', 'a b', 'raw', '_xid', '_stream', '_offset']) c;
SELECT check_that.equal('writer reads', has_table_privilege('attach_writer', :'tab'::regclass, 'SELECT WITH GRANT OPTION')::text, 'true');
SELECT check_that.equal('reader', has_table_privilege('attach_reader', :'tab'::regclass, 'SELECT')::text || has_column_privilege('attach_reader', :'tab'::regclass, 'n', 'SELECT') || has_column_privilege('attach_reader', :'tab'::regclass, 'n', 'UPDATE') || has_any_column_privilege('attach_reader', :'tab'::regclass, 'INSERT'), 'falsetruetruefalse');
SELECT check_that.equal('archiver reads', has_table_privilege('watershed_archiver', :'tab'::regclass, 'SELECT')::text, 'true');
SELECT check_that.equal('ingest writes everything', has_table_privilege('watershed_ingest', :'tab'::regclass, 'INSERT')::text, 'true');
SELECT check_that.equal('ingest finds it', has_schema_privilege('watershed_ingest', 'Odd schema', 'USAGE')::text, 'true');
SELECT check_that.equal('analysts are not let in by themselves', has_any_column_privilege('watershed_analyst', :'tab'::regclass, 'SELECT')::text, 'false');
SELECT check_that.equal('partitions are closed', (SELECT count(*) FROM watershed_control.partitions, unnest(ARRAY['attach_owner', 'attach_writer', 'watershed_ingest', 'watershed_archiver']) r
    WHERE relid = :'tab'::regclass AND (has_any_column_privilege(r, part_relid, 'SELECT') OR has_any_column_privilege(r, part_relid, 'INSERT') OR has_table_privilege(r, part_relid, 'DELETE')))::text, '0');

-- the other types of event time; days are UTC whatever the session thinks
SET ROLE attach_owner;
SET timezone = 'Pacific/Auckland';
SET datestyle = 'SQL, DMY';
CREATE TABLE "Odd schema".stamps (t timestamp);
INSERT INTO "Odd schema".stamps VALUES ((now() AT TIME ZONE 'UTC')::date), ((now() AT TIME ZONE 'UTC')::date - interval '1 microsecond');
SELECT check_that.equal('attach by timestamp', watershed.attach_table('"Odd schema".stamps', 't')::text, '"Odd schema".stamps');
CREATE TABLE "Odd schema".dates (t date);
INSERT INTO "Odd schema".dates VALUES ((now() AT TIME ZONE 'UTC')::date), ((now() AT TIME ZONE 'UTC')::date - 1);
SELECT check_that.equal('attach by date', watershed.attach_table('"Odd schema".dates', 't')::text, '"Odd schema".dates');
CREATE TABLE "Odd schema".zoned (t timestamptz);
INSERT INTO "Odd schema".zoned VALUES (date_trunc('day', now(), 'UTC')), (date_trunc('day', now(), 'UTC') - interval '1 microsecond');
SELECT check_that.equal('attach by timestamptz', watershed.attach_table('"Odd schema".zoned', 't')::text, '"Odd schema".zoned');
RESET ROLE;
SELECT check_that.equal('UTC days of ' || x.n, x.got, '-1 0') FROM (
    SELECT 'stamps' AS n, string_agg((day - (now() AT TIME ZONE 'UTC')::date)::text, ' ' ORDER BY day) AS got FROM "Odd schema".stamps r JOIN watershed_control.partitions ON part_relid = r.tableoid
    UNION ALL SELECT 'dates', string_agg((day - (now() AT TIME ZONE 'UTC')::date)::text, ' ' ORDER BY day) FROM "Odd schema".dates r JOIN watershed_control.partitions ON part_relid = r.tableoid
    UNION ALL SELECT 'zoned', string_agg((day - (now() AT TIME ZONE 'UTC')::date)::text, ' ' ORDER BY day) FROM "Odd schema".zoned r JOIN watershed_control.partitions ON part_relid = r.tableoid) x;

-- two tables that would have the same partition names; a name used again gets another folder
RESET timezone; RESET datestyle;
CREATE SCHEMA s; CREATE TABLE s.t (ts timestamptz); CREATE TABLE public.s_t (ts timestamptz);
SELECT check_that.equal('attach s.t', watershed.attach_table('s.t', 'ts')::text, 's.t');
SELECT check_that.equal('attach s_t', watershed.attach_table('public.s_t', 'ts')::text, 's_t');
SELECT check_that.equal('drop gives the folder', watershed.drop_table('s.t'), 's.t');
SELECT check_that.equal('dropped', coalesce(to_regclass('s.t')::text, 'gone') || ' ' || (SELECT count(*) FROM watershed_control.tables WHERE lake_path = 's.t'), 'gone 0');
CREATE TABLE s.t (ts timestamptz);
SELECT check_that.equal('attach s.t again', watershed.attach_table('s.t', 'ts')::text, 's.t');
SELECT check_that.equal('another folder', (SELECT (lake_path ~ '^s\.t\.[0-9]+$')::text FROM watershed_control.tables WHERE relid = 's.t'::regclass), 'true');
SELECT check_that.equal('superuser attaches for the owner', (SELECT relowner::regrole::text FROM pg_class WHERE oid = '"Odd schema".zoned'::regclass), 'attach_owner');
