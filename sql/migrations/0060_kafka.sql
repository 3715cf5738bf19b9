-- Kafka's partitions as source streams: which log a stream reads, where it began, why it ended, what it never got to read,
-- and how far behind it is. Knows nothing of consumers and their groups.

ALTER TABLE watershed_control.streams
    ADD COLUMN topic         text,
    ADD COLUMN start_offset  bigint,
    ADD COLUMN ended_at      timestamptz,
    ADD COLUMN end_reason    text;
COMMENT ON COLUMN watershed_control.streams.topic_id IS 'the topic''s own id as Kafka gives it (base64); another id under the same name is another log. Null where the broker gives none';
COMMENT ON COLUMN watershed_control.streams.leader_epoch IS 'the newest leader epoch that a committed record carried';
COMMENT ON COLUMN watershed_control.streams.start_offset IS 'the first offset that belongs to this stream';
COMMENT ON COLUMN watershed_control.streams.ended_at IS 'when the log that the stream read was gone; its rows stay, its position moves no more';

-- A log that was cut off goes on under the same topic id as a new stream, so the id is no key: one live stream is.
DROP INDEX watershed_control.streams_source;
CREATE UNIQUE INDEX streams_live ON watershed_control.streams (relid, topic, partition)
    WHERE kind = 'kafka' AND ended_at IS NULL;
CREATE UNIQUE INDEX streams_source ON watershed_control.streams (relid, kind, topic_id, partition)
    WHERE kind NOT IN ('loads', 'kafka');
ALTER TABLE watershed_control.streams ADD CONSTRAINT streams_kafka CHECK (kind <> 'kafka' OR
    (topic IS NOT NULL AND partition IS NOT NULL AND partition >= 0 AND start_offset IS NOT NULL AND start_offset >= 0));
ALTER TABLE watershed_control.streams ADD CONSTRAINT streams_end CHECK ((ended_at IS NULL) = (end_reason IS NULL));

CREATE TABLE watershed_control.stream_gaps (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream       int NOT NULL REFERENCES watershed_control.streams,
    from_offset  bigint NOT NULL CHECK (from_offset >= 0),
    to_offset    bigint CHECK (to_offset > from_offset),
    reason       text NOT NULL,
    at           timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watershed_control.stream_gaps IS 'offsets that were never read because they were gone; written in the transaction that moves the position past them';
COMMENT ON COLUMN watershed_control.stream_gaps.to_offset IS 'the first offset after the gap; null: how much there was is not known';
CREATE INDEX stream_gaps_stream ON watershed_control.stream_gaps (stream);
GRANT INSERT ON watershed_control.stream_gaps TO watershed_ingest;

CREATE TABLE watershed_control.stream_status (
    stream       int PRIMARY KEY REFERENCES watershed_control.streams,
    owner        text NOT NULL,
    state        text NOT NULL,
    end_offset   bigint,
    lag_records  bigint,
    lag_seconds  float8,
    updated_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watershed_control.stream_status IS 'what the owner of a stream last said of it, every few seconds; a hint for people, no fact that anything relies on';
COMMENT ON COLUMN watershed_control.stream_status.owner IS 'the process that reads it: host/pid';
GRANT INSERT, UPDATE, DELETE ON watershed_control.stream_status TO watershed_ingest;
-- Written every few seconds for each partition: updates in place, little to vacuum.
ALTER TABLE watershed_control.stream_status SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2);
ALTER TABLE watershed_control.positions SET (fillfactor = 50);

-- One row a stream, and one a table for what HTTP and SQL write, whose rows have no position.
CREATE VIEW watershed.streams AS
SELECT s.id,
       CASE WHEN t.relid IS NULL THEN format('(dropped: %s)', s.relid) ELSE format('%I.%I', t.schema_name, t.table_name) END AS table_name,
       s.kind,
       s.topic,
       s.partition,
       s.topic_id,
       s.leader_epoch,
       p.next_offset,
       st.end_offset,
       st.lag_records,
       st.lag_seconds,
       coalesce(g.gaps, 0) AS gaps,
       coalesce(g.missing, 0)::bigint AS missing_records,
       g.last_gap,
       CASE
           WHEN s.ended_at IS NOT NULL THEN 'ended'
           WHEN s.kind <> 'kafka' THEN 'open'
           WHEN st.updated_at < now() - interval '1 minute' THEN 'unattended'
           ELSE coalesce(st.state, 'unattended')
       END AS state,
       st.owner,
       st.updated_at,
       s.ended_at,
       s.end_reason
FROM watershed_control.streams s
LEFT JOIN watershed_control.tables t ON t.relid = s.relid
LEFT JOIN watershed_control.positions p ON p.stream = s.id
LEFT JOIN watershed_control.stream_status st ON st.stream = s.id AND s.ended_at IS NULL
LEFT JOIN (
    SELECT stream, count(*) AS gaps, sum(to_offset - from_offset) AS missing,
           (array_agg(format('[%s, %s) %s: %s', from_offset, coalesce(to_offset::text, '?'), at::timestamptz(0), reason)
                      ORDER BY id DESC))[1] AS last_gap
    FROM watershed_control.stream_gaps GROUP BY stream
) g ON g.stream = s.id
UNION ALL
SELECT 0, format('%I.%I', t.schema_name, t.table_name), 'http', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL,
       'open', NULL, NULL, NULL, NULL
FROM watershed_control.tables t;
COMMENT ON VIEW watershed.streams IS 'where rows come from: each source stream, how far it was read, how far behind it is, and what it lacks; 0 is HTTP and SQL, whose rows have no position';
GRANT SELECT ON watershed.streams TO PUBLIC;
