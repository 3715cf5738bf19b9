-- What the compactor and its readers need: the columns that cold rows are looked up by, who still reads an old version of the lake,
-- what was compacted, and which files there are. Knows nothing of rows.

-- Columns whose values get a bloom filter in the lake's files.
ALTER TABLE watershed_control.tables ADD COLUMN lake_keys int2[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN watershed_control.tables.lake_keys IS 'columns (attnum) with a bloom filter in files written from now on';

-- The inside of watershed.set_lake_keys. `proof` must be the comment the table carries.
CREATE FUNCTION watershed_control.set_lake_keys_proven(target regclass, keys name[], proof text, table_comment text) RETURNS regclass
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
DECLARE
    key name;
    col pg_attribute;
    found int2[] := '{}';
BEGIN
    IF proof IS DISTINCT FROM 'watershed: keys set by transaction ' || pg_current_xact_id()
       OR obj_description(target, 'pg_class') IS DISTINCT FROM proof THEN
        PERFORM watershed_control.refuse('watershed_control.set_lake_keys_proven is not to be called directly', 'Call watershed.set_lake_keys.', NULL, '42501');
    END IF;
    EXECUTE format('COMMENT ON TABLE %s IS %L', target, table_comment);
    FOREACH key IN ARRAY coalesce(keys, '{}') LOOP
        SELECT * INTO col FROM pg_attribute a WHERE a.attrelid = target AND a.attname = key AND a.attnum > 0 AND NOT a.attisdropped;
        IF col IS NULL THEN
            PERFORM watershed_control.refuse(format('column %I of table %s does not exist', key, target),
                'keys names the columns that single rows are looked up by.', NULL, '42703');
        END IF;
        -- A filter is over bytes: equal values of these types have equal bytes, and there are many different ones.
        IF NOT (col.atttypid = ANY (ARRAY['int2', 'int4', 'int8', 'text', 'varchar', 'uuid', 'date', 'timestamp', 'timestamptz', 'bytea']::regtype[]::oid[])
                OR col.atttypid = 'numeric'::regtype AND col.atttypmod >= 4) THEN
            PERFORM watershed_control.refuse(format('column %I of table %s has type %s, which no bloom filter serves', key, target,
                    format_type(col.atttypid, col.atttypmod)),
                'Keys are integers, numeric(p, s), text, varchar, uuid, bytea, dates and timestamps.', NULL, '42804');
        END IF;
        IF NOT col.attnum = ANY (found) THEN
            found := found || col.attnum;
        END IF;
    END LOOP;
    UPDATE watershed_control.tables t SET lake_keys = found WHERE t.relid = target;
    RETURN target;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.set_lake_keys_proven(regclass, name[], text, text) TO PUBLIC;

CREATE FUNCTION watershed.set_lake_keys("table" regclass, keys name[]) RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rel pg_class;
    label text;
    proof text;
    about text;
BEGIN
    SELECT * INTO rel FROM pg_class WHERE oid = "table";
    label := format('%s.%I', rel.relnamespace::regnamespace, rel.relname);
    IF rel IS NULL OR NOT EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = "table") THEN
        PERFORM watershed_control.refuse(format('%s is not a tiered table', coalesce(label, "table"::text, 'NULL')),
            'Make it one with watershed.attach_table.', NULL, '42809');
    END IF;
    IF NOT pg_has_role(current_user, rel.relowner, 'USAGE') THEN
        PERFORM watershed_control.refuse(format('must be owner of table %s', label),
            format('Its owner is %I.', pg_get_userbyid(rel.relowner)), NULL, '42501');
    END IF;
    -- Nobody else changes the comment meanwhile.
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', "table");
    about := obj_description("table", 'pg_class');
    proof := 'watershed: keys set by transaction ' || pg_current_xact_id();
    EXECUTE format('COMMENT ON TABLE %s IS %L', "table", proof);
    RETURN watershed_control.set_lake_keys_proven("table", keys, proof, about);
END
$$;
COMMENT ON FUNCTION watershed.set_lake_keys(regclass, name[]) IS
    'which columns of a tiered table get a bloom filter in the lake, so that a lookup by one of them touches one file; files written from now on have it';
GRANT EXECUTE ON FUNCTION watershed.set_lake_keys(regclass, name[]) TO PUBLIC;

CREATE FUNCTION watershed.attach_table("table" regclass, event_time name, keys name[], overflow name DEFAULT NULL, first_day date DEFAULT NULL)
RETURNS regclass
LANGUAGE sql SET search_path = pg_catalog, pg_temp
RETURN watershed.set_lake_keys(watershed.attach_table("table", event_time, overflow, first_day), keys);
COMMENT ON FUNCTION watershed.attach_table(regclass, name, name[], name, date) IS
    'the same, with the columns that single rows are looked up by: they get a bloom filter in the lake';
GRANT EXECUTE ON FUNCTION watershed.attach_table(regclass, name, name[], name, date) TO PUBLIC;

SELECT watershed.set_lake_keys('public.events', '{event_id}');

-- Readers of versions that are no longer the newest: vacuum spares what they need.
CREATE TABLE watershed_control.leases (
    holder   text NOT NULL,
    relid    oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    version  bigint NOT NULL CHECK (version >= 0),
    until    timestamptz NOT NULL,
    PRIMARY KEY (holder, relid)
);
COMMENT ON TABLE watershed_control.leases IS 'the oldest version of a lake table that a gateway still reads; void after until';
GRANT SELECT, INSERT, UPDATE, DELETE ON watershed_control.leases TO watershed_gateway;
GRANT SELECT, DELETE ON watershed_control.leases TO watershed_archiver;

-- What was done to the lake's files, and why. Rows outlive their table.
CREATE TABLE watershed_control.compactions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid         oid NOT NULL,
    table_name    text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('rewrite', 'vacuum', 'checkpoint')),
    day           date,
    reason        text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    outcome       text NOT NULL DEFAULT 'running' CHECK (outcome IN ('running', 'done', 'lost', 'failed', 'interrupted')),
    files_before  int,
    files_after   int,
    rows          bigint,
    bytes_before  bigint,
    bytes_after   bigint,
    version       bigint,
    error         text
);
COMMENT ON TABLE watershed_control.compactions IS 'one row a job of the compactor, the last of them; lost: the files had changed meanwhile; interrupted: its process ended';
CREATE INDEX compactions_running ON watershed_control.compactions (relid) WHERE outcome = 'running';
GRANT SELECT, INSERT, UPDATE, DELETE ON watershed_control.compactions TO watershed_archiver;

-- Bounds of columns are not shown, only what the owner of a file system would see.
CREATE VIEW watershed.compactions AS
SELECT c.id, c.table_name, c.kind, c.day, c.reason, c.outcome, c.started_at, c.finished_at,
       round(extract(epoch FROM coalesce(c.finished_at, clock_timestamp()) - c.started_at), 3) AS seconds,
       c.files_before, c.files_after, c.rows, c.bytes_before, c.bytes_after, c.version, c.error
FROM watershed_control.compactions c
WHERE has_table_privilege(c.relid, 'SELECT');
COMMENT ON VIEW watershed.compactions IS 'what the compactor did to the lake''s files, and why; what runs now is among it';
GRANT SELECT ON watershed.compactions TO PUBLIC;

CREATE FUNCTION watershed_control.virtual_files()
RETURNS TABLE (
    table_schema text, table_name text, day date, path text, rows bigint, bytes bigint, sorted bool,
    first_event timestamptz, last_event timestamptz, written_at timestamptz, lake_version bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('files');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_files() TO PUBLIC;

CREATE VIEW watershed.files AS
SELECT table_schema, table_name, day, path, rows, bytes, sorted, first_event, last_event, written_at, lake_version
FROM watershed_control.virtual_files();
COMMENT ON VIEW watershed.files IS 'the files of the lake''s newest versions, of the tables that one may read';
GRANT SELECT ON watershed.files TO PUBLIC;
