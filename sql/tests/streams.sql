-- watershed.streams, and what the tables below it hold to.
SELECT check_that.equal('the beginning', (SELECT string_agg(kind || ' ' || table_name || ' ' || state, ', ' ORDER BY table_name, kind) FROM watershed.streams),
    'http public.events open, loads public.events open, http public.logs open, loads public.logs open');

SET ROLE watershed_ingest;
INSERT INTO watershed_control.streams (kind, relid, topic, topic_id, partition, start_offset)
SELECT 'kafka', relid, 'logs.raw', 'AAAA', 0, 5 FROM watershed_control.tables WHERE table_name = 'logs';
INSERT INTO watershed_control.positions SELECT id, 5 FROM watershed_control.streams WHERE topic = 'logs.raw';
SELECT check_that.refused('INSERT INTO watershed_control.streams (kind, relid, topic, topic_id, partition, start_offset)
    SELECT ''kafka'', relid, ''logs.raw'', ''BBBB'', 0, 0 FROM watershed_control.tables WHERE table_name = ''logs''', '23505', '%streams_live%');
SELECT check_that.refused('INSERT INTO watershed_control.streams (kind, relid, topic, partition)
    SELECT ''kafka'', relid, ''logs.raw'', 1 FROM watershed_control.tables WHERE table_name = ''logs''', '23514', '%streams_kafka%');
SELECT check_that.refused('UPDATE watershed_control.streams SET ended_at = now() WHERE topic = ''logs.raw''', '23514', '%streams_end%');
SELECT check_that.refused('DELETE FROM watershed_control.streams', '42501');
SELECT check_that.refused('DELETE FROM watershed_control.stream_gaps', '42501');
INSERT INTO watershed_control.stream_status (stream, owner, state, end_offset, lag_records, lag_seconds)
SELECT id, 'a/1', 'reading', 105, 100, 2.5 FROM watershed_control.streams WHERE topic = 'logs.raw';
INSERT INTO watershed_control.stream_gaps (stream, from_offset, to_offset, reason)
SELECT id, f, t, r FROM watershed_control.streams, (VALUES (5, 15, 'first'), (20, 21, 'second'), (30, NULL, 'third')) AS g(f, t, r) WHERE topic = 'logs.raw';
RESET ROLE;

SET ROLE watershed_analyst;
SELECT check_that.equal('anyone reads the view', (SELECT table_name || ' ' || next_offset || ' ' || lag_records || ' ' || gaps || ' ' || missing_records || ' ' || state || ' ' || (last_gap LIKE '[30, ?) %third')
    FROM watershed.streams WHERE kind = 'kafka'), 'public.logs 5 100 3 11 reading true');
SELECT check_that.refused('SELECT * FROM watershed_control.stream_gaps', '42501');
RESET ROLE;

-- An owner that says nothing any more.
UPDATE watershed_control.stream_status SET updated_at = now() - interval '2 minutes';
SELECT check_that.equal('silence shows', (SELECT state FROM watershed.streams WHERE kind = 'kafka'), 'unattended');

-- The log is gone: the stream ends, another takes its place, also under the same topic id.
UPDATE watershed_control.streams SET ended_at = now(), end_reason = 'log truncated' WHERE topic = 'logs.raw';
INSERT INTO watershed_control.streams (kind, relid, topic, topic_id, partition, start_offset) VALUES ('kafka', 'public.logs'::regclass, 'logs.raw', 'AAAA', 0, 0);
SELECT check_that.equal('ended and live', (SELECT string_agg(state || coalesce(' ' || end_reason, '') || coalesce(' ' || owner, ''), ', ' ORDER BY id) FROM watershed.streams WHERE kind = 'kafka'), 'ended log truncated, unattended');

-- A dropped table's streams stay, for rows in old lake files carry the number.
SELECT watershed.drop_table('public.logs');
SELECT check_that.equal('after the table', (SELECT count(*) || ' ' || bool_and(table_name LIKE '(dropped: %)') FROM watershed.streams WHERE kind = 'kafka'), '2 true');
