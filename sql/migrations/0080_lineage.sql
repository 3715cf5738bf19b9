-- Lineage: what `watershed rebase` needs to bring a table and its lake together after a failover with loss, a point-in-time recovery or
-- a restore. The comparison itself is the program's; here are the steps that only a superuser's function may take. Knows no files.

-- A physical copy of the row carries the number of the transaction that wrote it; a row that was loaded again from a dump does not. And
-- since the row was committed after its boundary was taken, a server that has it physically has everything that its boundary sees, and
-- hands out no transaction number below the boundary's again.
ALTER TABLE watershed_control.archives
    ADD COLUMN written_by   xid8 DEFAULT pg_current_xact_id(),
    ADD COLUMN rebased_from bigint;
-- Adding the column gave the rows that were here before the number of this transaction: nothing is known of them.
UPDATE watershed_control.archives SET written_by = NULL;
COMMENT ON COLUMN watershed_control.archives.written_by IS 'the transaction that wrote the row: its xmin in every physical copy of it';
COMMENT ON COLUMN watershed_control.archives.rebased_from IS 'the archive that the lake held when this number opened a new lineage; null for ordinary archives';

-- The tail's fence, asked in the tail's own snapshot: a lake version fits only a server that knows its archive under the same boundary,
-- in the lineage that table and server have now. A server in recovery has what the row of the archive came after, and no lineage yet.
CREATE FUNCTION watershed_control.fits(relid oid, archive bigint, boundary text) RETURNS bool
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM watershed_control.archives a JOIN watershed_control.tables t ON t.relid = a.relid
        WHERE a.relid = fits.relid AND a.number = fits.archive AND a.boundary = fits.boundary AND a.lineage = t.lineage
          AND CASE WHEN pg_is_in_recovery() THEN true ELSE t.lineage = watershed_control.current_lineage() END)
$$;
GRANT EXECUTE ON FUNCTION watershed_control.fits(oid, bigint, text) TO PUBLIC;

CREATE TABLE watershed_control.rebases (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relid         oid NOT NULL REFERENCES watershed_control.tables ON DELETE CASCADE,
    at            timestamptz NOT NULL DEFAULT now(),
    old_lineage   text NOT NULL,
    new_lineage   text NOT NULL,
    archive       bigint NOT NULL,
    compared      bool NOT NULL,
    restored      bigint NOT NULL DEFAULT 0,
    replaced      bigint NOT NULL DEFAULT 0,
    kept          bigint NOT NULL DEFAULT 0,
    surplus       bigint NOT NULL DEFAULT 0,
    streams       int NOT NULL DEFAULT 0
);
COMMENT ON TABLE watershed_control.rebases IS 'what each rebase of a table found and did';
COMMENT ON COLUMN watershed_control.rebases.restored IS 'rows that PostgreSQL had lost and the lake gave back';
COMMENT ON COLUMN watershed_control.rebases.replaced IS 'rows that had been written again, and were replaced by the lake''s';
COMMENT ON COLUMN watershed_control.rebases.kept IS 'rows that the lake lacks and whose transaction number it might take for its own: they became rows of the rebase';
COMMENT ON COLUMN watershed_control.rebases.surplus IS 'rows that share a record of Kafka with a row of the lake and are no copy of one: they stay, and want looking at';

-- The lead over writers: positions first and the table second, in the order in which the sources take them. Readers go on.
CREATE FUNCTION watershed_control.rebase_lock(relid oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = rebase_lock.relid) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('%s is not a tiered table', rebase_lock.relid);
    END IF;
    PERFORM FROM watershed_control.positions p JOIN watershed_control.streams s ON s.id = p.stream
    WHERE s.relid = rebase_lock.relid ORDER BY p.stream FOR UPDATE OF p;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', rebase_lock.relid::regclass);
    PERFORM FROM watershed_control.tables t WHERE t.relid = rebase_lock.relid FOR UPDATE;
END
$$;

-- Applies what the comparison found: rows of pg_temp.rebase_gone(part, tid) go, rows of pg_temp.rebase_stay(part, tid) become rows of
-- this transaction, rows of pg_temp.rebase_back come (all columns of the table, provenance too). Under the lock of rebase_lock.
CREATE FUNCTION watershed_control.rebase_rows(relid oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET row_security = off AS $$
DECLARE
    part oid;
    columns text;
BEGIN
    FOR part IN SELECT p.part_relid FROM watershed_control.partitions p
                WHERE p.relid = rebase_rows.relid
                  AND p.part_relid IN (SELECT g.part FROM pg_temp.rebase_gone g UNION SELECT s.part FROM pg_temp.rebase_stay s) LOOP
        EXECUTE format('DELETE FROM %s r USING pg_temp.rebase_gone g WHERE g.part = %s AND r.ctid = g.tid', part::regclass, part);
        EXECUTE format('UPDATE %s r SET _xid = pg_current_xact_id() FROM pg_temp.rebase_stay s WHERE s.part = %s AND r.ctid = s.tid',
                       part::regclass, part);
    END LOOP;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO STRICT columns
    FROM pg_attribute WHERE attrelid = rebase_rows.relid AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM pg_temp.rebase_back', rebase_rows.relid::regclass, columns);
END
$$;

-- One stream as the lake knows it: registers it again under its number if PostgreSQL has lost it, and moves its position forward.
-- Returns what was done: 'same', 'moved', 'registered', or 'taken' if another stream has the number now.
CREATE FUNCTION watershed_control.rebase_stream(relid oid, stream int, about jsonb, next_offset bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    present watershed_control.streams;
    wanted watershed_control.streams;
    names text;
BEGIN
    -- Numbers that the lake has seen are never given again.
    PERFORM setval(pg_get_serial_sequence('watershed_control.streams', 'id'), rebase_stream.stream)
    FROM pg_sequences q WHERE q.schemaname = 'watershed_control' AND q.sequencename = 'streams_id_seq'
      AND coalesce(q.last_value, 0) < rebase_stream.stream;
    SELECT * INTO present FROM watershed_control.streams s WHERE s.id = rebase_stream.stream;
    IF present.id IS NOT NULL AND (present.relid <> rebase_stream.relid OR present.kind <> about ->> 'kind'
       OR (present.topic, present.topic_id, present.partition) IS DISTINCT FROM
          (about ->> 'topic', about ->> 'topic_id', (about ->> 'partition')::int)) THEN
        RETURN 'taken';
    END IF;
    IF present.id IS NULL THEN
        wanted := jsonb_populate_record(NULL::watershed_control.streams,
            about || jsonb_build_object('id', rebase_stream.stream, 'relid', rebase_stream.relid));
        wanted.created_at := coalesce(wanted.created_at, now());
        -- A source was registered anew meanwhile: the old number ends, its successor goes on from where the lake is.
        IF wanted.ended_at IS NULL AND EXISTS (SELECT FROM watershed_control.streams s WHERE s.relid = rebase_stream.relid AND s.kind = wanted.kind
               AND s.ended_at IS NULL AND (s.topic, s.topic_id, s.partition) IS NOT DISTINCT FROM (wanted.topic, wanted.topic_id, wanted.partition)) THEN
            wanted.ended_at := now();
            wanted.end_reason := 'registered anew after a change of lineage';
            UPDATE watershed_control.positions p SET next_offset = greatest(p.next_offset, rebase_stream.next_offset)
            FROM watershed_control.streams s
            WHERE p.stream = s.id AND s.relid = rebase_stream.relid AND s.kind = wanted.kind AND s.ended_at IS NULL
              AND (s.topic, s.topic_id, s.partition) IS NOT DISTINCT FROM (wanted.topic, wanted.topic_id, wanted.partition);
        END IF;
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO STRICT names
        FROM pg_attribute WHERE attrelid = 'watershed_control.streams'::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('INSERT INTO watershed_control.streams (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM (SELECT ($1).*) r', names, names) USING wanted;
        INSERT INTO watershed_control.positions (stream, next_offset) VALUES (rebase_stream.stream, rebase_stream.next_offset);
        RETURN 'registered';
    END IF;
    UPDATE watershed_control.positions p SET next_offset = rebase_stream.next_offset
    WHERE p.stream = rebase_stream.stream AND p.next_offset < rebase_stream.next_offset;
    IF FOUND THEN
        RETURN 'moved';
    END IF;
    INSERT INTO watershed_control.positions (stream, next_offset) VALUES (rebase_stream.stream, rebase_stream.next_offset) ON CONFLICT DO NOTHING;
    RETURN 'same';
END
$$;

-- The new lineage: the last step of the rebase's transaction. `boundary` null: the lake is empty, and there is no archive to name.
-- Returns the archive's number.
CREATE FUNCTION watershed_control.rebase_finish(relid oid, lake_archive bigint, boundary text, fence bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    given bigint := 0;
    now_of text := watershed_control.current_lineage();
BEGIN
    IF boundary IS NOT NULL THEN
        INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence, rebased_from)
        SELECT rebase_finish.relid, greatest(coalesce(max(a.number), 0), lake_archive) + 1, rebase_finish.boundary, now_of, rebase_finish.fence, lake_archive
        FROM watershed_control.archives a WHERE a.relid = rebase_finish.relid
        RETURNING number INTO given;
    END IF;
    UPDATE watershed_control.tables t
    SET lineage = now_of, schema_epoch = t.schema_epoch + 1, min_archive = greatest(t.min_archive, given)
    WHERE t.relid = rebase_finish.relid;
    RETURN given;
END
$$;

-- Fences of both leads, above everything that a lost timeline may have given: whoever led there is never a leader again.
CREATE FUNCTION watershed_control.rebase_fences(relid oid, archiver bigint, compactor bigint, OUT archiver_fence bigint, OUT compactor_fence bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO watershed_control.leaders AS l (relid, kind, fence) VALUES (rebase_fences.relid, 'archiver', ((archiver >> 32) + 1) << 32)
    ON CONFLICT (relid, kind) DO UPDATE SET fence = ((greatest(l.fence, rebase_fences.archiver) >> 32) + 1) << 32, taken_at = now()
    RETURNING fence INTO archiver_fence;
    INSERT INTO watershed_control.leaders AS l (relid, kind, fence) VALUES (rebase_fences.relid, 'compactor', ((compactor >> 32) + 1) << 32)
    ON CONFLICT (relid, kind) DO UPDATE SET fence = ((greatest(l.fence, rebase_fences.compactor) >> 32) + 1) << 32, taken_at = now()
    RETURNING fence INTO compactor_fence;
END
$$;

GRANT INSERT ON watershed_control.rebases TO watershed_archiver;
DO $$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['rebase_lock(oid)', 'rebase_rows(oid)', 'rebase_stream(oid, int, jsonb, bigint)',
                             'rebase_finish(oid, bigint, text, bigint)', 'rebase_fences(oid, bigint, bigint)'] LOOP
        EXECUTE 'REVOKE EXECUTE ON FUNCTION watershed_control.' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION watershed_control.' || f || ' TO watershed_archiver';
    END LOOP;
END
$$;
