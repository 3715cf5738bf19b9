-- What is forwarded to Kafka topics: new rows of tiered tables that match a condition, and new dead letters. Each forward
-- remembers the snapshot up to which it has sent, in the same database as the rows, so that both survive or go back together.

CREATE TABLE watershed_control.forwards (
    name        text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 200),
    boundary    text NOT NULL CHECK (boundary ~ '^[0-9]+:[0-9]+:([0-9]+(,[0-9]+)*)?$'),
    pending     text CHECK (pending ~ '^[0-9]+:[0-9]+:([0-9]+(,[0-9]+)*)?$'),
    sent        bigint NOT NULL DEFAULT 0 CHECK (sent >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watershed_control.forwards IS 'one row a forward to a Kafka topic; without its row, a forward begins anew at the present';
COMMENT ON COLUMN watershed_control.forwards.boundary IS 'snapshot (pg_snapshot text): every matching row that it sees has been acknowledged by the broker';
COMMENT ON COLUMN watershed_control.forwards.pending IS 'snapshot whose rows are being sent; its synchronous commit makes durable all that it sees';
COMMENT ON COLUMN watershed_control.forwards.sent IS 'messages acknowledged in finished rounds';
-- The archiver's role reads every tiered table, whatever row security says, and may write to none.
GRANT INSERT, UPDATE ON watershed_control.forwards TO watershed_archiver;

-- Dead letters are followed like rows. Letters that are here already belong to no snapshot's difference but the first one's.
ALTER TABLE watershed.dead_letters ADD COLUMN _xid xid8 NOT NULL DEFAULT '0';
ALTER TABLE watershed.dead_letters ALTER COLUMN _xid SET DEFAULT pg_current_xact_id();
COMMENT ON COLUMN watershed.dead_letters._xid IS 'the transaction that wrote the letter';
CREATE INDEX dead_letters_xid ON watershed.dead_letters (_xid);
GRANT SELECT ON watershed.dead_letters TO watershed_archiver;
