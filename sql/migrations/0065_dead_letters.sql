-- What a dead letter must carry so that it can be decoded again: its place in Kafka, what surrounded it there, the format it
-- is in, and what became of later tries. Knows nothing of how records are decoded.

ALTER TABLE watershed.dead_letters
    ADD COLUMN topic          text,
    ADD COLUMN partition      int,
    ADD COLUMN kafka_offset   bigint,
    ADD COLUMN record_time    timestamptz,
    ADD COLUMN key            bytea,
    ADD COLUMN headers        jsonb,
    ADD COLUMN envelope       text,
    ADD COLUMN context        jsonb,
    ADD COLUMN complete       bool NOT NULL DEFAULT true,
    ADD COLUMN attempts       int NOT NULL DEFAULT 0,
    ADD COLUMN tried_at       timestamptz,
    ADD COLUMN tried_reason   text,
    ADD COLUMN replayed_at    timestamptz,
    ADD COLUMN replayed_rows  int;
COMMENT ON COLUMN watershed.dead_letters.received_at IS 'when the record was first refused';
COMMENT ON COLUMN watershed.dead_letters.reason IS 'why it was refused then';
COMMENT ON COLUMN watershed.dead_letters.record_time IS 'the Kafka record''s own timestamp';
COMMENT ON COLUMN watershed.dead_letters.headers IS 'the Kafka record''s headers in order: {"name", "value"}, or {"name", "hex"} where the value is no text';
COMMENT ON COLUMN watershed.dead_letters.envelope IS 'how it was read: an envelope of Kafka values, or a format of files; null: told by the record itself';
COMMENT ON COLUMN watershed.dead_letters.context IS 'what its format needs besides the bytes: names and delimiter of a CSV header, the year of a syslog file';
COMMENT ON COLUMN watershed.dead_letters.complete IS 'false: the record was beyond the bound, and raw is only its head';
COMMENT ON COLUMN watershed.dead_letters.attempts IS 'how often it was tried again';
COMMENT ON COLUMN watershed.dead_letters.tried_reason IS 'why the last try failed';
COMMENT ON COLUMN watershed.dead_letters.replayed_at IS 'when it became rows after all, in the transaction that inserted them';
CREATE INDEX dead_letters_topic ON watershed.dead_letters (topic, partition, kafka_offset) WHERE topic IS NOT NULL;

-- `watershed dead-letters replay` marks, `drop` deletes. Nothing else ever removes a letter.
GRANT UPDATE, DELETE ON watershed.dead_letters TO watershed_ingest;
