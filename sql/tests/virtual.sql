-- The virtual tables: their shape is there for everybody, their rows for nobody here.
SELECT check_that.equal('columns of queries', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum),
    'id bigint, started_at timestamp with time zone, pid integer, usename text, datname text, protocol text, sql text, fingerprint text, route text, reasons text, classify_us bigint, probe_us bigint, plan_us bigint, tail_us bigint, first_row_us bigint, total_us bigint, rows bigint, bytes bigint, lake_version bigint, boundary text, lake_files bigint, lake_row_groups bigint, lake_bytes bigint, tail_rows bigint, fell_back boolean, sqlstate text, error text')
FROM pg_attribute WHERE attrelid = 'watershed.queries'::regclass AND attnum > 0;
SELECT check_that.equal('columns of route_stats', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum),
    'fingerprint text, route text, sample_sql text, calls bigint, rows bigint, mean_us bigint, p50_us bigint, p95_us bigint, p99_us bigint, min_us bigint, max_us bigint')
FROM pg_attribute WHERE attrelid = 'watershed.route_stats'::regclass AND attnum > 0;
SELECT check_that.equal('columns of comparisons', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum),
    'id bigint, compared_at timestamp with time zone, pid integer, usename text, sql text, fingerprint text, verdict text, lake_us bigint, postgres_us bigint, rows bigint, detail text')
FROM pg_attribute WHERE attrelid = 'watershed.comparisons'::regclass AND attnum > 0;
CREATE ROLE test_virtual_nobody;
SET ROLE test_virtual_nobody;
SELECT check_that.refused('SELECT * FROM watershed.queries', '0A000', '%watershed.queries%', '%gateway%');
SELECT check_that.refused('SELECT count(*) FROM watershed.queries WHERE route = ''lake''', '0A000', '%watershed.queries%');
SELECT check_that.refused('SELECT * FROM watershed.comparisons', '0A000', '%watershed.comparisons%', '%gateway%');
SELECT check_that.refused('SELECT * FROM watershed_control.quarantined', '42501');
SELECT check_that.refused('SELECT sum(calls) FROM watershed.route_stats', '0A000', '%watershed.route_stats%');
SELECT check_that.refused('SELECT q.id FROM watershed.queries q, watershed.route_stats s WHERE q.fingerprint = s.fingerprint', '0A000');
SELECT check_that.equal('route defaults to auto', current_setting('watershed.route'), 'auto');
SET watershed.route = 'lake';
SELECT check_that.equal('route can be set by anybody', current_setting('watershed.route'), 'lake');
RESET watershed.route;
SELECT check_that.equal('route falls back', current_setting('watershed.route'), 'auto');
RESET ROLE;
DROP ROLE test_virtual_nobody;
