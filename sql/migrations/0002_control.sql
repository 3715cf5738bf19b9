-- The control tables: which tables are tiered, what their columns are called in the lake, which boundary each archive number
-- stands for, who leads, and how far each source has been read. Knows nothing of files or of rows.

CREATE TABLE watershed_control.tables (
    relid            oid PRIMARY KEY,
    schema_name      name NOT NULL,
    table_name       name NOT NULL,
    event_time       name NOT NULL,
    event_attnum     int2 NOT NULL,
    overflow         name,
    overflow_attnum  int2,
    lake_path        text NOT NULL UNIQUE,
    min_archive      bigint NOT NULL DEFAULT 0 CHECK (min_archive >= 0),
    floor            timestamptz NOT NULL DEFAULT '-infinity',
    schema_epoch     int NOT NULL DEFAULT 1,
    lineage          text NOT NULL,
    first_day        date NOT NULL,
    attached_at      timestamptz NOT NULL DEFAULT now(),
    part_prefix      name NOT NULL UNIQUE,
    constraints      oid[] NOT NULL DEFAULT '{}',
    CHECK ((overflow IS NULL) = (overflow_attnum IS NULL))
);
COMMENT ON TABLE watershed_control.tables IS 'one row a tiered table; min_archive, floor, schema_epoch and lineage are the fence every tail is read with';
COMMENT ON COLUMN watershed_control.tables.min_archive IS 'a lake version with a smaller archive number no longer fits what PostgreSQL holds';
COMMENT ON COLUMN watershed_control.tables.floor IS 'PostgreSQL may lack rows before this time; -infinity: nothing was ever dropped';
COMMENT ON COLUMN watershed_control.tables.schema_epoch IS 'raised by every change of columns or names';
COMMENT ON COLUMN watershed_control.tables.lake_path IS 'folder below the lake root; never changes, never used again';
COMMENT ON COLUMN watershed_control.tables.part_prefix IS 'how the names of its partitions begin';
COMMENT ON COLUMN watershed_control.tables.constraints IS 'the constraints the table was attached with; none may come or go';
GRANT SELECT (relid, min_archive, floor, schema_epoch, lineage) ON watershed_control.tables TO PUBLIC;

-- A folder once given stays given: a dropped table's files must never be taken for a new table's.
CREATE TABLE watershed_control.lake_paths (
    lake_path   text PRIMARY KEY,
    relid       oid NOT NULL,
    given_at    timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz
);

CREATE TABLE watershed_control.lake_columns (
    relid      oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    attnum     int2 NOT NULL,
    lake_name  text NOT NULL,
    type_oid   oid NOT NULL,
    typmod     int NOT NULL,
    collation_oid oid NOT NULL DEFAULT 0,
    not_null   bool NOT NULL DEFAULT false,
    PRIMARY KEY (relid, attnum)
);
-- Delta compares field names without case.
CREATE UNIQUE INDEX lake_columns_name ON watershed_control.lake_columns (relid, lower(lake_name));
COMMENT ON COLUMN watershed_control.lake_columns.lake_name IS 'fixed at first sight; renaming the column in PostgreSQL leaves it';

CREATE TABLE watershed_control.partitions (
    part_relid  oid PRIMARY KEY,
    relid       oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('cold', 'day', 'future')),
    day         date,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (relid, day),
    CHECK ((kind = 'day') = (day IS NOT NULL))
);

CREATE TABLE watershed_control.archives (
    relid       oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    number      bigint NOT NULL CHECK (number > 0),
    boundary    text NOT NULL CHECK (boundary ~ '^[0-9]+:[0-9]+:([0-9]+(,[0-9]+)*)?$'),
    lineage     text NOT NULL,
    fence       bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, number)
);
COMMENT ON TABLE watershed_control.archives IS 'boundary (pg_snapshot text) of each archive number, committed before the files; a number without a lake commit is simply unused';
GRANT INSERT, DELETE ON watershed_control.archives TO watershed_archiver;

CREATE TABLE watershed_control.leaders (
    relid       oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('archiver', 'compactor')),
    fence       bigint NOT NULL DEFAULT 0 CHECK (fence >= 0),
    taken_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relid, kind)
);
COMMENT ON TABLE watershed_control.leaders IS 'fence number of the present leader; leadership itself is pg_advisory_lock(hashtext(''watershed/'' || kind), relid::int)';
GRANT INSERT, UPDATE ON watershed_control.leaders TO watershed_archiver;

CREATE FUNCTION watershed_control.fence_only_grows() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.fence < OLD.fence THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('fence of %s %s may not fall from %s to %s', NEW.kind, NEW.relid, OLD.fence, NEW.fence);
    END IF;
    RETURN NEW;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.fence_only_grows() FROM PUBLIC;
CREATE TRIGGER fence_only_grows BEFORE UPDATE ON watershed_control.leaders
    FOR EACH ROW EXECUTE FUNCTION watershed_control.fence_only_grows();

CREATE TABLE watershed_control.streams (
    id            int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL,
    relid         oid NOT NULL,
    topic_id      text,
    partition     int,
    leader_epoch  int,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watershed_control.streams IS 'sources of rows; never deleted, for rows in the lake carry the number';
CREATE UNIQUE INDEX streams_loads ON watershed_control.streams (relid) WHERE kind = 'loads';
CREATE UNIQUE INDEX streams_source ON watershed_control.streams (relid, kind, topic_id, partition) WHERE kind <> 'loads';
GRANT INSERT, UPDATE ON watershed_control.streams TO watershed_ingest;

CREATE TABLE watershed_control.positions (
    stream       int PRIMARY KEY REFERENCES watershed_control.streams,
    next_offset  bigint NOT NULL DEFAULT 0 CHECK (next_offset >= 0)
);
COMMENT ON TABLE watershed_control.positions IS 'next offset of each stream; updated first in the transaction that inserts the rows, guarded by the expected value';
GRANT INSERT, UPDATE ON watershed_control.positions TO watershed_ingest;

CREATE TABLE watershed.dead_letters (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at  timestamptz NOT NULL DEFAULT now(),
    table_name   text,
    source       text,
    position     text,
    stage        text,
    reason       text NOT NULL,
    raw          bytea
);
COMMENT ON TABLE watershed.dead_letters IS 'records that could not be mapped to a row, with the reason';
CREATE INDEX dead_letters_received_at ON watershed.dead_letters (received_at);
ALTER TABLE watershed.dead_letters OWNER TO watershed;
GRANT INSERT, SELECT ON watershed.dead_letters TO watershed_ingest;
GRANT SELECT ON watershed.dead_letters TO watershed_gateway;

-- Transaction numbers mean something only within one lineage: this cluster, on this timeline.
CREATE FUNCTION watershed_control.current_lineage() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'a server in recovery has no lineage of its own',
            HINT = 'Connect to the primary.';
    END IF;
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/'
        || ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.current_lineage() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.current_lineage() TO watershed_ingest, watershed_archiver, watershed_gateway;
