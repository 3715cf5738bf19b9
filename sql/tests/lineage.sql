-- What a rebase relies on: its steps are the archiver's alone, the fence knows archives of this server only, lost streams come back.
CREATE TABLE public.l (ts timestamptz NOT NULL, n int);
SELECT watershed.attach_table('public.l', 'ts') AS tab \gset
CREATE ROLE lineage_anybody;
SET ROLE lineage_anybody;
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['SELECT watershed_control.rebase_lock(1)', 'SELECT watershed_control.rebase_rows(1)',
    'SELECT watershed_control.rebase_stream(1, 1, ''{}'', 1)', 'SELECT watershed_control.rebase_finish(1, 1, ''1:1:'', 1)',
    'SELECT watershed_control.rebase_fences(1, 1, 1)', 'SELECT * FROM watershed_control.rebases']) s;
RESET ROLE; SET ROLE watershed_ingest;
SELECT check_that.refused('SELECT watershed_control.rebase_rows(1)', '42501');
RESET ROLE;

SET ROLE watershed_archiver;
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence) SELECT relid, 1, '5:5:', lineage, 1 FROM watershed_control.tables WHERE relid = :'tab'::regclass;
RESET ROLE; SET ROLE lineage_anybody;
SELECT check_that.equal('the archive fits', watershed_control.fits(:'tab'::regclass, 1, '5:5:')::text, 'true');
SELECT check_that.equal('another boundary does not', watershed_control.fits(:'tab'::regclass, 1, '5:6:')::text, 'false');
SELECT check_that.equal('another number does not', watershed_control.fits(:'tab'::regclass, 2, '5:5:')::text, 'false');
SELECT check_that.equal('as the gateway asks', (SELECT (CASE WHEN watershed_control.fits(f.relid, 1, '5:5:'::pg_catalog.text) THEN f.lineage ELSE ''::pg_catalog.text END = f.lineage)::text
    FROM watershed_control.tables f WHERE f.relid OPERATOR(pg_catalog.=) (:'tab'::regclass)::pg_catalog.oid), 'true');
RESET ROLE;
SELECT check_that.equal('a row says who wrote it', (SELECT (xmin::text::bigint = written_by::text::bigint % 4294967296)::text FROM watershed_control.archives WHERE relid = :'tab'::regclass), 'true');
UPDATE watershed_control.tables SET lineage = 'other/1' WHERE relid = :'tab'::regclass;
SELECT check_that.equal('nor an archive of another lineage', watershed_control.fits(:'tab'::regclass, 1, '5:5:')::text, 'false');
UPDATE watershed_control.archives SET lineage = 'other/1' WHERE relid = :'tab'::regclass;
SELECT check_that.equal('nor one that agrees with its table only', watershed_control.fits(:'tab'::regclass, 1, '5:5:')::text, 'false');

SET ROLE watershed_archiver;
SELECT check_that.equal('fences jump', (SELECT archiver_fence || ' ' || compactor_fence FROM watershed_control.rebase_fences(:'tab'::regclass, 7, 3)), '4294967296 4294967296');
SELECT check_that.equal('and jump again', (SELECT archiver_fence || ' ' || compactor_fence FROM watershed_control.rebase_fences(:'tab'::regclass, 7, 8589934593)), '8589934592 12884901888');
SELECT check_that.equal('a lost stream', watershed_control.rebase_stream(:'tab'::regclass, 900, '{"kind": "kafka", "topic": "t", "topic_id": "i", "partition": 4, "start_offset": 10, "created_at": "2024-01-01T00:00:00+00:00"}', 77), 'registered');
SELECT check_that.equal('is there again', watershed_control.rebase_stream(:'tab'::regclass, 900, '{"kind": "kafka", "topic": "t", "topic_id": "i", "partition": 4, "start_offset": 10}', 70), 'same');
SELECT check_that.equal('and moves forward', watershed_control.rebase_stream(:'tab'::regclass, 900, '{"kind": "kafka", "topic": "t", "topic_id": "i", "partition": 4, "start_offset": 10}', 80), 'moved');
SELECT check_that.equal('a number that is another''s', watershed_control.rebase_stream(:'tab'::regclass, 900, '{"kind": "kafka", "topic": "u", "topic_id": "i", "partition": 4, "start_offset": 10}', 70), 'taken');
SELECT check_that.equal('a source that was registered anew', watershed_control.rebase_stream(:'tab'::regclass, 950, '{"kind": "kafka", "topic": "t", "topic_id": "i", "partition": 4, "start_offset": 0}', 90), 'registered');
SELECT check_that.equal('hands its position on', (SELECT string_agg(s.id || ' ' || p.next_offset || ' ' || (s.ended_at IS NULL), ', ' ORDER BY s.id) FROM watershed_control.streams s JOIN watershed_control.positions p ON p.stream = s.id WHERE s.id >= 900), '900 90 true, 950 90 false');
SELECT check_that.equal('the new lineage', watershed_control.rebase_finish(:'tab'::regclass, 41, '9:9:', 1)::text, '42');
SELECT check_that.equal('opens with its archive', (SELECT (lineage = watershed_control.current_lineage()) || ' ' || min_archive FROM watershed_control.tables WHERE relid = :'tab'::regclass), 'true 42');
RESET ROLE;
SET ROLE watershed_ingest;
INSERT INTO watershed_control.streams (kind, relid, topic, partition, start_offset) VALUES ('kafka', :'tab'::regclass, 'new', 0, 0) RETURNING id > 950 AS beyond \gset
SELECT check_that.equal('numbers go on beyond', :'beyond', 't');
RESET ROLE;
