-- What ingest remembers: which contents were loaded and how far, and which requests were answered. Both change only in the
-- transaction that inserts the rows they speak of, so they are true after any crash. Knows no formats and no files.

CREATE TABLE watershed_control.loads (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid          oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    format         text NOT NULL,
    content_hash   text NOT NULL,
    content_bytes  bigint NOT NULL CHECK (content_bytes >= 0),
    source         text NOT NULL,
    parent         bigint REFERENCES watershed_control.loads ON DELETE SET NULL,
    rows_done      bigint NOT NULL DEFAULT 0 CHECK (rows_done >= 0),
    lines_done     bigint NOT NULL DEFAULT 0,
    bytes_done     bigint NOT NULL DEFAULT 0,
    rows_loaded    bigint NOT NULL DEFAULT 0,
    rows_rejected  bigint NOT NULL DEFAULT 0,
    tail_bytes     bigint NOT NULL DEFAULT 0,
    tail_loaded    bool NOT NULL DEFAULT false,
    reject_first   bool NOT NULL DEFAULT false,
    state          text,
    finished       bool NOT NULL DEFAULT false,
    started_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (relid, format, content_hash),
    CHECK (bytes_done <= content_bytes OR format = 'generated')
);
COMMENT ON TABLE watershed_control.loads IS 'one row a content that was loaded into a table, whatever its file is called';
COMMENT ON COLUMN watershed_control.loads.content_hash IS 'SHA-256 of the unpacked content; of the parameters, for generated rows';
COMMENT ON COLUMN watershed_control.loads.parent IS 'the load of a shorter content that this one begins with: only what came after it is loaded';
COMMENT ON COLUMN watershed_control.loads.rows_done IS 'records of the content that were dealt with, from its beginning; guarded by the expected value';
COMMENT ON COLUMN watershed_control.loads.rows_loaded IS 'of these, how many became rows (those of the parents included)';
COMMENT ON COLUMN watershed_control.loads.tail_bytes IS 'length of a last record without a line end: it may continue when the file grows';
COMMENT ON COLUMN watershed_control.loads.tail_loaded IS 'that record became a row';
COMMENT ON COLUMN watershed_control.loads.reject_first IS 'the first record continues one that was loaded before it was complete';
COMMENT ON COLUMN watershed_control.loads.state IS 'what the decoder must know to go on, as JSON';
CREATE INDEX loads_lengths ON watershed_control.loads (relid, format, content_bytes);
GRANT SELECT, INSERT, UPDATE ON watershed_control.loads TO watershed_ingest;

CREATE TABLE watershed_control.requests (
    relid       oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    key         text NOT NULL,
    body_hash   text NOT NULL,
    status      int NOT NULL DEFAULT 0,
    response    json,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, key)
);
COMMENT ON TABLE watershed_control.requests IS 'answers to HTTP requests that carried an Idempotency-Key; the same key and body get the same answer and no rows';
CREATE INDEX requests_created_at ON watershed_control.requests (created_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON watershed_control.requests TO watershed_ingest;
