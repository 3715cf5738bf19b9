-- Rows are only ever added: for the owner, for others with every right, for a superuser, on the table and on each partition.
CREATE ROLE ao_owner; CREATE ROLE ao_user;
CREATE SCHEMA ao AUTHORIZATION ao_owner;
GRANT USAGE ON SCHEMA ao TO ao_user;
SET ROLE ao_owner;
CREATE TABLE ao.t (ts timestamptz, a int);
INSERT INTO ao.t VALUES (now(), 1), ('2001-01-01', 2);
GRANT ALL ON ao.t TO ao_user;
SELECT check_that.equal('attach', watershed.attach_table('ao.t', 'ts')::text, 'ao.t');

CREATE FUNCTION ao.each(who text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE s text;
BEGIN
    FOREACH s IN ARRAY ARRAY['UPDATE ao.t SET a = 1', 'UPDATE ao.t SET a = 1 WHERE false', 'DELETE FROM ao.t', 'DELETE FROM ao.t WHERE ts < ''-infinity''',
        'TRUNCATE ao.t', 'WITH d AS (DELETE FROM ao.t RETURNING *) SELECT * FROM d',
        'UPDATE ao.t SET _xid = _xid', 'UPDATE ao.t SET ts = ts + interval ''1 year''',
        'MERGE INTO ao.t USING (SELECT 1 AS a) s ON t.a = s.a WHEN MATCHED THEN UPDATE SET a = 5',
        'MERGE INTO ao.t USING (SELECT 1 AS a) s ON t.a = s.a WHEN MATCHED THEN DELETE',
        'MERGE INTO ao.t USING (SELECT 77 AS a) s ON t.a = s.a WHEN NOT MATCHED THEN INSERT (ts, a) VALUES (now(), 1) WHEN MATCHED THEN DELETE']
    LOOP
        RETURN NEXT check_that.refused(s, '0A000', '%is not supported on tiered table ao.t', '%correcting row%drop_table%');
    END LOOP;
END
$$;
SELECT * FROM ao.each('owner');
SET watershed.maintenance = 'on';
SELECT * FROM ao.each('owner under the setting');
RESET watershed.maintenance;
RESET ROLE; SET ROLE ao_user;
SELECT * FROM ao.each('user with ALL');
RESET ROLE;
SELECT * FROM ao.each('superuser');
CREATE TEMP TABLE in_use AS SELECT DISTINCT tableoid::regclass AS r FROM ao.t;
SET session_replication_role = replica;
SELECT * FROM ao.each('superuser as replica');
SELECT check_that.refused(replace(s, '$', r::text), '0A000', '%is not supported on tiered table ao.t')
FROM in_use, unnest(ARRAY['UPDATE $ SET a = 1', 'DELETE FROM $', 'DELETE FROM $ WHERE false', 'TRUNCATE $']) s;
RESET session_replication_role;
SELECT check_that.refused(replace(s, '$', part_relid::regclass::text), '0A000', '%is not supported on tiered table ao.t')
FROM watershed_control.partitions, unnest(ARRAY['UPDATE $ SET a = 1', 'DELETE FROM $', 'TRUNCATE $']) s WHERE relid = 'ao.t'::regclass;
SET client_min_messages = error;
SELECT check_that.refused('TRUNCATE pg_temp.other, ao.t', '42P01');
RESET client_min_messages;
SELECT check_that.equal('nothing changed', (SELECT string_agg(a::text, ' ' ORDER BY a) FROM ao.t), '1 2');
-- our own maintenance may
BEGIN;
SET LOCAL watershed.maintenance = 'on';
DELETE FROM ao.t WHERE a = 2;
SELECT check_that.equal('maintenance may delete', (SELECT string_agg(a::text, ' ' ORDER BY a) FROM ao.t), '1');
ROLLBACK;

-- Who may say where a row came from: nobody but the ingest service, and _xid is the truth even then.
SET ROLE ao_owner;
SELECT check_that.allowed('INSERT INTO ao.t VALUES (now(), 3)');
SELECT check_that.allowed('INSERT INTO ao.t (ts, a) VALUES (now(), 3) RETURNING _xid, _stream, _offset');
SELECT check_that.allowed('INSERT INTO ao.t (ts, a) VALUES (''1066-10-14'', 3), (''2999-01-01'', 4), (''4000-01-01 BC'', 5)');
SELECT check_that.allowed('INSERT INTO ao.t (ts, a) VALUES (now(), 1) ON CONFLICT DO NOTHING');
SELECT check_that.allowed('MERGE INTO ao.t USING (SELECT 77 AS a) s ON t.a = s.a WHEN NOT MATCHED THEN INSERT (ts, a) VALUES (now(), 1)');
SELECT check_that.refused('INSERT INTO ao.t VALUES (NULL, 3)', '23514', 'no partition%');
SELECT check_that.refused('INSERT INTO ao.t VALUES (''infinity'', 3)', '23514');
SELECT check_that.refused('INSERT INTO ao.t VALUES (''-infinity'', 3)', '23514');
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, pg_current_xact_id())', '42501');
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, DEFAULT)', '42501');
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _stream) VALUES (now(), 3, 1)', '42501');
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _offset) VALUES (now(), 3, 1)', '42501');
SELECT check_that.refused('INSERT INTO ao.t VALUES (now(), 3, pg_current_xact_id(), 0, 0)', '42501');
SELECT check_that.refused('INSERT INTO ' || r || ' (ts, a) VALUES (now(), 3)', '42501') FROM (SELECT DISTINCT tableoid::regclass::text AS r FROM ao.t) x;
SELECT check_that.refused('SELECT * FROM ' || r, '42501') FROM (SELECT DISTINCT tableoid::regclass::text AS r FROM ao.t) x;
SET watershed.maintenance = 'on';
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, ''1'')', '42501');
RESET watershed.maintenance;
RESET ROLE; SET ROLE ao_user;
SELECT check_that.allowed('INSERT INTO ao.t VALUES (now(), 3)');
SELECT check_that.refused('INSERT INTO ao.t (ts, _stream) VALUES (now(), 3)', '42501');
RESET ROLE; SET ROLE watershed_ingest;
SELECT check_that.allowed('INSERT INTO ao.t (ts, a, _stream, _offset) VALUES (now(), 3, 7, 8)');
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, ''5'')', '23514', '%watershed_xid%');
SELECT check_that.refused('SELECT a FROM ao.t', '42501');
SELECT check_that.refused('DELETE FROM ao.t', '42501');
RESET ROLE;
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, ''5'')', '23514', '%watershed_xid%');
SET watershed.maintenance = 'off';
SELECT check_that.refused('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, ''5'')', '23514', '%watershed_xid%');
SET watershed.maintenance = 'on';
SELECT check_that.allowed('INSERT INTO ao.t (ts, a, _xid) VALUES (now(), 3, ''5'')');
RESET watershed.maintenance;
SET ROLE ao_owner;
\set ON_ERROR_STOP off
COPY ao.t FROM stdin;
\set refused :SQLSTATE
COPY ao.t (ts, a, _stream) FROM stdin;
\set refused_too :SQLSTATE
\set ON_ERROR_STOP on
SELECT check_that.equal('COPY without columns', :'refused', '42501');
SELECT check_that.equal('COPY naming provenance', :'refused_too', '42501');
COPY ao.t (ts, a) FROM stdin;
2026-01-01	42
\.
SELECT check_that.equal('COPY with its columns', (SELECT count(*) || ' ' || bool_and(_xid > '0' AND _stream = 0 AND _offset = 0) FROM ao.t WHERE a = 42), '1 true');
BEGIN;
SAVEPOINT s;
INSERT INTO ao.t VALUES (now(), 99);
SELECT check_that.equal('a savepoint''s row is the transaction''s', (SELECT (_xid = pg_current_xact_id())::text FROM ao.t WHERE a = 99), 'true');
ROLLBACK;
RESET ROLE;
