-- Retention: which days PostgreSQL still holds, and which the lake does. Here are the steps that change both in one transaction with
-- the fence; that the rows are in the lake is the program's to prove (ingest/src/retention). Knows no files.

ALTER TABLE watershed_control.tables
    ADD COLUMN hot_days         int CHECK (hot_days BETWEEN 1 AND 100000),
    ADD COLUMN lake_days        int CHECK (lake_days BETWEEN 1 AND 100000),
    ADD COLUMN warned           timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN lake_floor       timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN floor_raised_at  timestamptz,
    ADD COLUMN floor_reason     text,
    ADD COLUMN retention_note   text,
    ADD CONSTRAINT tables_windows CHECK (hot_days <= lake_days),
    ADD CONSTRAINT tables_floors CHECK (lake_floor <= floor AND floor <= warned);
COMMENT ON COLUMN watershed_control.tables.hot_days IS 'days before today that PostgreSQL keeps; null: all';
COMMENT ON COLUMN watershed_control.tables.lake_days IS 'days before today that either store keeps; null: all';
COMMENT ON COLUMN watershed_control.tables.warned IS 'the floor to come: said some seconds before, so that gateways no longer count on PostgreSQL for the rows below';
COMMENT ON COLUMN watershed_control.tables.lake_floor IS 'rows before this time are gone from both stores, whatever files or partitions still hold them';
COMMENT ON COLUMN watershed_control.tables.retention_note IS 'what keeps retention from going on, as last seen; null: nothing';
GRANT SELECT (lake_floor) ON watershed_control.tables TO PUBLIC;

-- The new states of a table's oldest part: `cold` split into late rows and what is gone.
ALTER TABLE watershed_control.partitions DROP CONSTRAINT partitions_kind_check;
ALTER TABLE watershed_control.partitions ADD CONSTRAINT partitions_kind_check CHECK (kind IN ('cold', 'day', 'future', 'late', 'gone'));

-- Rows must not leave PostgreSQL before a forward has sent them: a forward names its table.
ALTER TABLE watershed_control.forwards ADD COLUMN relid oid;
COMMENT ON COLUMN watershed_control.forwards.relid IS 'the tiered table whose rows are sent; null: dead letters, or not known yet';

-- 0 for every row, which the planner cannot know: the sub-partition for anything else is never ruled out by what a statement says of
-- _stream, and is by naming this function. An alias of PostgreSQL's own `&`, so that asking costs next to nothing a row.
CREATE FUNCTION watershed_control.cold_slot(stream int, nothing int) RETURNS int
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4and';
COMMENT ON FUNCTION watershed_control.cold_slot(int, int) IS 'where a row below the floor stands: 0 for rows; -1 is the tripwire. A statement that names it sees only what PostgreSQL still has';
GRANT EXECUTE ON FUNCTION watershed_control.cold_slot(int, int) TO PUBLIC;

-- The server of all tripwires, made when the first is laid.
CREATE FUNCTION watershed_control.tripwire_server() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'watershed_gone') THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'file_fdw') THEN
        PERFORM watershed_control.refuse('no floor can be raised without PostgreSQL''s extension file_fdw',
            'Install PostgreSQL''s contrib modules: without it, PostgreSQL would answer short instead of refusing.');
    END IF;
    CREATE EXTENSION IF NOT EXISTS file_fdw SCHEMA watershed_control;
    CREATE SERVER watershed_gone FOREIGN DATA WRAPPER file_fdw;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.tripwire_server() FROM PUBLIC;

-- The file that does not exist: nobody can make one in /proc. Its name is what a direct connection reads.
CREATE FUNCTION watershed_control.tripwire_file(relid oid) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '/proc/watershed/' || relid || '/rows before the floor are in the lake only: restrict the event time, or ask through the gateway'
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.tripwire_file(oid) FROM PUBLIC;

-- What every new part gets, as add_partition does it.
CREATE FUNCTION watershed_control.adopt_part(part regclass, parent regclass, kind text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = parent);
BEGIN
    IF kind <> 'gone' THEN
        EXECUTE format('CREATE TRIGGER watershed_append_only_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION watershed_control.refuse_change()', part);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER watershed_append_only_statement', part);
    END IF;
    EXECUTE format('ALTER TABLE %s OWNER TO %I', part, owner);
    PERFORM watershed_control.close_relation(part);
    INSERT INTO watershed_control.partitions (part_relid, relid, kind) VALUES (part, parent, kind);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.adopt_part(regclass, regclass, text) FROM PUBLIC;

-- SQL for "the boundary does not see this row", in the form that the index on _xid serves.
CREATE FUNCTION watershed_control.beyond(boundary text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('(_xid >= %L::pg_catalog.xid8 OR _xid = ANY (%L::pg_catalog.xid8[]))',
        pg_snapshot_xmax(boundary::pg_snapshot), ARRAY(SELECT pg_snapshot_xip(boundary::pg_snapshot)))
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.beyond(text) FROM PUBLIC;

-- The table's row, locked and still as it was when the program compared both stores; else 40001: compare again.
CREATE FUNCTION watershed_control.still_comparable(relid oid, archive bigint, boundary text, schema_epoch int, floor timestamptz)
RETURNS watershed_control.tables
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    tiered watershed_control.tables;
BEGIN
    SELECT * INTO tiered FROM watershed_control.tables t WHERE t.relid = still_comparable.relid FOR UPDATE;
    IF tiered IS NULL OR tiered.schema_epoch <> still_comparable.schema_epoch OR tiered.floor <> still_comparable.floor
       OR tiered.min_archive > still_comparable.archive
       OR NOT watershed_control.fits(still_comparable.relid, still_comparable.archive, still_comparable.boundary) THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'the table has changed since both stores were compared';
    END IF;
    RETURN tiered;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.still_comparable(oid, bigint, text, int, timestamptz) FROM PUBLIC;

-- Raises the floor to midnight UTC of `to_day`, in the transaction in which the caller found that the lake holds every row that
-- `boundary`, the one of `archive`, sees of the days that go. Needs ACCESS EXCLUSIVE for a moment: call it under lock_timeout.
-- Rows that the boundary does not see are kept, among the late ones. Returns how many those were.
CREATE FUNCTION watershed_control.raise_floor(relid oid, to_day date, archive bigint, boundary text, schema_epoch int, old_floor timestamptz, reason text)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    parent regclass := raise_floor.relid::regclass;
    tiered watershed_control.tables;
    event_type oid;
    columns text;
    bound text;
    part record;
    cold regclass;
    late regclass;
    gone regclass[] := '{}';
    moved bigint := 0;
    touched bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = parent) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('%s is not a tiered table', raise_floor.relid);
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', parent);
    tiered := watershed_control.still_comparable(raise_floor.relid, raise_floor.archive, raise_floor.boundary, raise_floor.schema_epoch, raise_floor.old_floor);
    IF to_day IS NULL OR to_day::timestamptz <= tiered.floor OR to_day < tiered.first_day OR to_day > watershed_control.utc_today()
       OR NOT EXISTS (SELECT FROM watershed_control.partitions p WHERE p.relid = parent AND p.day = to_day) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('the floor of %s cannot be raised to %s', parent, to_day);
    END IF;
    PERFORM watershed_control.tripwire_server();
    SELECT atttypid INTO STRICT event_type FROM pg_attribute WHERE attrelid = parent AND attnum = tiered.event_attnum;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO STRICT columns
    FROM pg_attribute WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped;
    bound := watershed_control.day_bound(event_type, to_day, NULL);

    -- What goes, out of the way of the new bounds.
    FOR part IN SELECT p.part_relid, p.kind FROM watershed_control.partitions p
                WHERE p.relid = parent AND (p.kind = 'day' AND p.day < to_day OR p.kind = 'cold') ORDER BY p.day NULLS FIRST LOOP
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, part.part_relid::regclass);
        IF part.kind = 'cold' AND tiered.floor > '-infinity' THEN
            cold := part.part_relid;
        ELSE
            gone := gone || part.part_relid::regclass;
            IF part.kind = 'cold' THEN
                EXECUTE format('ALTER TABLE %s RENAME TO %I', part.part_relid::regclass, tiered.part_prefix || '_old');
            END IF;
        END IF;
    END LOOP;
    IF cold IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (MINVALUE) TO (%s)', parent, cold, bound);
        SELECT p.part_relid INTO STRICT late FROM watershed_control.partitions p WHERE p.relid = parent AND p.kind = 'late';
    ELSE
        EXECUTE format('CREATE TABLE watershed_parts.%I PARTITION OF %s FOR VALUES FROM (MINVALUE) TO (%s)
                        PARTITION BY LIST (watershed_control.cold_slot(_stream, 0))', tiered.part_prefix || '_cold', parent, bound);
        cold := format('watershed_parts.%I', tiered.part_prefix || '_cold')::regclass;
        PERFORM watershed_control.adopt_part(cold, parent, 'cold');
        EXECUTE format('CREATE TABLE watershed_parts.%I PARTITION OF %s FOR VALUES IN (0)', tiered.part_prefix || '_late', cold);
        late := format('watershed_parts.%I', tiered.part_prefix || '_late')::regclass;
        PERFORM watershed_control.adopt_part(late, parent, 'late');
        EXECUTE format('CREATE FOREIGN TABLE watershed_parts.%I PARTITION OF %s FOR VALUES IN (-1)
                        SERVER watershed_gone OPTIONS (filename %L, format ''csv'')', tiered.part_prefix || '_gone', cold,
                       watershed_control.tripwire_file(parent));
        PERFORM watershed_control.adopt_part(format('watershed_parts.%I', tiered.part_prefix || '_gone')::regclass, parent, 'gone');
    END IF;
    FOR part IN SELECT unnest(gone) AS relation LOOP
        EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM %s WHERE %s', late, columns, part.relation, watershed_control.beyond(raise_floor.boundary));
        GET DIAGNOSTICS touched = ROW_COUNT;
        moved := moved + touched;
        EXECUTE format('DROP TABLE %s', part.relation);
        DELETE FROM watershed_control.partitions p WHERE p.part_relid = part.relation;
    END LOOP;
    UPDATE watershed_control.tables t
    SET floor = to_day::timestamptz, warned = greatest(t.warned, to_day::timestamptz), min_archive = greatest(t.min_archive, raise_floor.archive),
        floor_raised_at = now(), floor_reason = raise_floor.reason, retention_note = NULL
    WHERE t.relid = parent;
    RETURN moved;
END
$$;

-- Says the floor to come, so that it surprises nobody.
CREATE FUNCTION watershed_control.warn_floor(relid oid, to_day date) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    UPDATE watershed_control.tables t SET warned = greatest(t.floor, coalesce(to_day::timestamptz, '-infinity'))
    WHERE t.relid = warn_floor.relid AND t.warned <> greatest(t.floor, coalesce(to_day::timestamptz, '-infinity'))
$$;

-- Deletes the late rows that `boundary` sees, which the caller has found in the lake in the same transaction. A matter of rows, so
-- snapshots cover it: who does not see the deletion does not see the new min_archive either. Returns how many there were.
CREATE FUNCTION watershed_control.forget_late(relid oid, archive bigint, boundary text, schema_epoch int, old_floor timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
#variable_conflict use_column
DECLARE
    tiered watershed_control.tables;
    late regclass;
    touched bigint;
BEGIN
    tiered := watershed_control.still_comparable(forget_late.relid, forget_late.archive, forget_late.boundary, forget_late.schema_epoch, forget_late.old_floor);
    SELECT p.part_relid INTO late FROM watershed_control.partitions p WHERE p.relid = forget_late.relid AND p.kind = 'late';
    IF late IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format('DELETE FROM %s WHERE NOT %s', late, watershed_control.beyond(forget_late.boundary));
    GET DIAGNOSTICS touched = ROW_COUNT;
    UPDATE watershed_control.tables t SET min_archive = greatest(t.min_archive, forget_late.archive) WHERE t.relid = forget_late.relid AND touched > 0;
    RETURN touched;
END
$$;

-- From here on nobody sees a row before midnight UTC of `to_day`, which the floor has already passed. Deletes the late ones among them;
-- without `to_day`, those that came since. The lake's files go later, by the compactor. Returns how many rows were deleted here.
CREATE FUNCTION watershed_control.raise_lake_floor(relid oid, to_day date DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    tiered watershed_control.tables;
    event_type oid;
    late regclass;
    touched bigint := 0;
BEGIN
    SELECT * INTO tiered FROM watershed_control.tables t WHERE t.relid = raise_lake_floor.relid FOR UPDATE;
    IF tiered IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('%s is not a tiered table', raise_lake_floor.relid);
    END IF;
    IF to_day::timestamptz > tiered.floor THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('PostgreSQL still holds rows before %s', to_day);
    END IF;
    UPDATE watershed_control.tables t SET lake_floor = greatest(t.lake_floor, to_day::timestamptz)
    WHERE t.relid = raise_lake_floor.relid AND t.lake_floor < to_day::timestamptz;
    tiered.lake_floor := greatest(tiered.lake_floor, to_day::timestamptz);
    SELECT p.part_relid INTO late FROM watershed_control.partitions p WHERE p.relid = raise_lake_floor.relid AND p.kind = 'late';
    IF late IS NOT NULL AND isfinite(tiered.lake_floor) THEN
        SELECT atttypid INTO STRICT event_type FROM pg_attribute WHERE attrelid = raise_lake_floor.relid AND attnum = tiered.event_attnum;
        EXECUTE format('DELETE FROM %s WHERE %I < %s', late, tiered.event_time,
                       watershed_control.day_bound(event_type, (tiered.lake_floor AT TIME ZONE 'UTC')::date, NULL));
        GET DIAGNOSTICS touched = ROW_COUNT;
    END IF;
    RETURN touched;
END
$$;

-- What keeps retention from going on.
CREATE FUNCTION watershed_control.note_retention(relid oid, note text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE watershed_control.tables t SET retention_note = note_retention.note
    WHERE t.relid = note_retention.relid AND t.retention_note IS DISTINCT FROM note_retention.note
$$;

DO $$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['raise_floor(oid, date, bigint, text, int, timestamptz, text)', 'warn_floor(oid, date)',
                             'forget_late(oid, bigint, text, int, timestamptz)', 'raise_lake_floor(oid, date)', 'note_retention(oid, text)'] LOOP
        EXECUTE 'REVOKE EXECUTE ON FUNCTION watershed_control.' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION watershed_control.' || f || ' TO watershed_archiver';
    END LOOP;
END
$$;

-- The settings, by the table's owner: proven by a comment, as for attach_table.
CREATE FUNCTION watershed_control.set_retention_proven(target regclass, hot_days int, lake_days int, proof text, table_comment text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
BEGIN
    IF proof IS DISTINCT FROM 'watershed: retention set by transaction ' || pg_current_xact_id()
       OR obj_description(target, 'pg_class') IS DISTINCT FROM proof THEN
        PERFORM watershed_control.refuse('watershed_control.set_retention_proven is not to be called directly', 'Call watershed.set_retention.', NULL, '42501');
    END IF;
    EXECUTE format('COMMENT ON TABLE %s IS %L', target, table_comment);
    UPDATE watershed_control.tables t SET hot_days = set_retention_proven.hot_days, lake_days = set_retention_proven.lake_days, retention_note = NULL
    WHERE t.relid = target;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.set_retention_proven(regclass, int, int, text, text) TO PUBLIC;

CREATE FUNCTION watershed.set_retention("table" regclass, hot_days int DEFAULT NULL, lake_days int DEFAULT NULL) RETURNS void
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
            'SELECT watershed.attach_table(...) makes a table one.', NULL, '42809');
    END IF;
    IF NOT pg_has_role(current_user, rel.relowner, 'USAGE') THEN
        PERFORM watershed_control.refuse(format('must be owner of table %s', label),
            format('Its owner is %I.', pg_get_userbyid(rel.relowner)), NULL, '42501');
    END IF;
    IF hot_days NOT BETWEEN 1 AND 100000 OR lake_days NOT BETWEEN 1 AND 100000 OR hot_days > lake_days THEN
        PERFORM watershed_control.refuse('these windows make no sense',
            'Give whole days, at least 1; the lake keeps no less than PostgreSQL. NULL keeps everything.', NULL, '22023');
    END IF;
    about := obj_description("table", 'pg_class');
    proof := 'watershed: retention set by transaction ' || pg_current_xact_id();
    EXECUTE format('COMMENT ON TABLE %s IS %L', "table", proof);
    PERFORM watershed_control.set_retention_proven("table", hot_days, lake_days, proof, about);
END
$$;
COMMENT ON FUNCTION watershed.set_retention(regclass, int, int) IS
    'how many days before today PostgreSQL keeps (hot_days) and either store keeps (lake_days); NULL: all of them';
GRANT EXECUTE ON FUNCTION watershed.set_retention(regclass, int, int) TO PUBLIC;

-- One row a tiered table: what each store holds of it.
CREATE VIEW watershed.tables AS
SELECT format('%I.%I', t.schema_name, t.table_name) AS table_name,
       t.hot_days,
       t.lake_days,
       t.floor,
       nullif(t.warned, t.floor) AS floor_to_come,
       t.lake_floor,
       t.floor_raised_at,
       t.floor_reason,
       t.retention_note,
       t.min_archive,
       a.number AS last_archive,
       a.boundary AS boundary,
       a.created_at AS archived_at,
       p.first_day,
       p.days,
       p.bytes AS postgres_bytes,
       p.late_bytes,
       t.lake_path,
       t.schema_epoch,
       t.lineage
FROM watershed_control.tables t
LEFT JOIN LATERAL (
    SELECT x.number, x.boundary, x.created_at FROM watershed_control.archives x WHERE x.relid = t.relid ORDER BY x.number DESC LIMIT 1) a ON true
LEFT JOIN LATERAL (
    SELECT min(x.day) AS first_day, count(x.day) AS days,
           coalesce(sum(pg_total_relation_size(x.part_relid)) FILTER (WHERE x.kind <> 'gone'), 0)::bigint AS bytes,
           coalesce(sum(pg_total_relation_size(x.part_relid)) FILTER (WHERE x.kind = 'late'), 0)::bigint AS late_bytes
    FROM watershed_control.partitions x WHERE x.relid = t.relid) p ON true;
COMMENT ON VIEW watershed.tables IS 'each tiered table: its windows, from which time on PostgreSQL and the lake hold its rows, why, and what keeps retention from going on';
GRANT SELECT ON watershed.tables TO PUBLIC;
