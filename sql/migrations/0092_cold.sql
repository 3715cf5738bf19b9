-- The tripwire's successor: a foreign table of postgres_fdw over the lake's rows below the floor, served by a door of the gateway
-- (gateway/src/cold_door), so that PostgreSQL itself answers what is not proven. Off until a gateway switches it on; then it stands in
-- the tripwire's place. ARCHITECTURE.md tells why its answers are whole. Knows no files.

-- What the door must know of a table, beside the fence: under which boundary rows left PostgreSQL, and which transaction was the last to
-- change what PostgreSQL lacks. A snapshot that sees that one sees every row that the boundary sees, and none that it let go.
ALTER TABLE watershed_control.tables
    ADD COLUMN fence_xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN min_boundary text;
COMMENT ON COLUMN watershed_control.tables.fence_xid IS 'the last transaction that changed which rows PostgreSQL lacks';
COMMENT ON COLUMN watershed_control.tables.min_boundary IS 'the boundary of min_archive, kept when the archive''s own row is forgotten';
UPDATE watershed_control.tables t SET min_boundary = a.boundary
FROM watershed_control.archives a WHERE a.relid = t.relid AND a.number = t.min_archive;

CREATE FUNCTION watershed_control.follow_fence() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.floor, NEW.lake_floor, NEW.min_archive, NEW.lineage) IS DISTINCT FROM (OLD.floor, OLD.lake_floor, OLD.min_archive, OLD.lineage) THEN
        NEW.fence_xid := pg_current_xact_id();
        NEW.min_boundary := (SELECT a.boundary FROM watershed_control.archives a WHERE a.relid = NEW.relid AND a.number = NEW.min_archive);
        IF NEW.min_boundary IS NULL AND NEW.min_archive = OLD.min_archive THEN
            NEW.min_boundary := OLD.min_boundary;
        END IF;
    END IF;
    RETURN NEW;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.follow_fence() FROM PUBLIC;
CREATE TRIGGER follow_fence BEFORE UPDATE ON watershed_control.tables
    FOR EACH ROW EXECUTE FUNCTION watershed_control.follow_fence();

-- Where the door is: one row while it is switched on.
CREATE TABLE watershed_control.cold_door (
    one         bool PRIMARY KEY DEFAULT true CHECK (one),
    socket_dir  text NOT NULL,
    port        int NOT NULL CHECK (port BETWEEN 1 AND 65535),
    opened_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE watershed_control.cold_door IS 'the gateway''s door to cold rows: a Unix socket; no row: switched off, and the tripwire stands';

-- Whether a part is the door's, and not the tripwire's.
CREATE FUNCTION watershed_control.is_door(part oid) RETURNS bool
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = part AND s.srvname = 'watershed_cold')
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.is_door(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.is_door(oid) TO watershed_gateway;

-- What stands for the rows that left: the door where it is open, else the tripwire.
CREATE FUNCTION watershed_control.lay_gone(parent regclass, cold regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    prefix name := (SELECT t.part_prefix FROM watershed_control.tables t WHERE t.relid = parent);
    part text := format('watershed_parts.%I', prefix || '_gone');
BEGIN
    IF EXISTS (SELECT FROM watershed_control.cold_door) THEN
        EXECUTE format('CREATE FOREIGN TABLE %s PARTITION OF %s FOR VALUES IN (-1)
                        SERVER watershed_cold OPTIONS (schema_name ''watershed_cold'', table_name %L)', part, cold, prefix || '_' || parent::oid);
    ELSE
        PERFORM watershed_control.tripwire_server();
        EXECUTE format('CREATE FOREIGN TABLE %s PARTITION OF %s FOR VALUES IN (-1)
                        SERVER watershed_gone OPTIONS (filename %L, format ''csv'')', part, cold, watershed_control.tripwire_file(parent));
    END IF;
    PERFORM watershed_control.adopt_part(part::regclass, parent, 'gone');
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.lay_gone(regclass, regclass) FROM PUBLIC;

-- Puts the door in the tripwire's place, or back. Needs ACCESS EXCLUSIVE for a moment: call it under lock_timeout.
CREATE FUNCTION watershed_control.cold_lay(relid oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
#variable_conflict use_column
DECLARE
    parent regclass := (SELECT t.relid::regclass FROM watershed_control.tables t WHERE t.relid = cold_lay.relid);
    gone regclass;
    cold regclass;
BEGIN
    IF parent IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', parent);
    SELECT p.part_relid INTO gone FROM watershed_control.partitions p WHERE p.relid = parent AND p.kind = 'gone';
    SELECT p.part_relid INTO cold FROM watershed_control.partitions p WHERE p.relid = parent AND p.kind = 'cold';
    IF gone IS NULL OR watershed_control.is_door(gone) = EXISTS (SELECT FROM watershed_control.cold_door) THEN
        RETURN;
    END IF;
    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', cold, gone);
    EXECUTE format('DROP FOREIGN TABLE %s', gone);
    DELETE FROM watershed_control.partitions p WHERE p.part_relid = gone;
    PERFORM watershed_control.lay_gone(parent, cold);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.cold_lay(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.cold_lay(oid) TO watershed_gateway;

-- Every role that may read a tiered table has a user mapping with a secret of its own, and no other role has one. The user's name at the
-- door is the role's number, which renaming leaves. Nobody has USAGE on the server, without which PostgreSQL shows a mapping's options to
-- superusers only. Returns how many mappings came or went.
CREATE FUNCTION watershed_control.cold_sync() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET pg_stat_statements.track = 'none' AS $$
DECLARE
    who record;
    opened bool := EXISTS (SELECT FROM watershed_control.cold_door);
    changed int := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'watershed_cold')
       OR NOT pg_try_advisory_xact_lock(hashtext('watershed/cold_sync'), 0) THEN
        RETURN 0;
    END IF;
    FOR who IN
        SELECT coalesce(w.oid, m.umuser) AS oid, m.umuser IS NULL AS comes
        FROM (SELECT r.oid FROM pg_roles r
              WHERE opened AND r.rolname !~ '^pg_'
                AND EXISTS (SELECT FROM watershed_control.tables t WHERE has_any_column_privilege(r.oid, t.relid, 'SELECT'))) w
        FULL JOIN (SELECT u.umuser FROM pg_user_mapping u JOIN pg_foreign_server s ON s.oid = u.umserver WHERE s.srvname = 'watershed_cold') m
            ON m.umuser = w.oid
        WHERE w.oid IS NULL OR m.umuser IS NULL
    LOOP
        -- What fails here must not show its statement, and the secret in it, to any log.
        BEGIN
            IF who.comes THEN
                EXECUTE format('CREATE USER MAPPING FOR %I SERVER watershed_cold OPTIONS (user %L, password %L)',
                    pg_get_userbyid(who.oid), who.oid, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
            ELSE
                EXECUTE format('DROP USER MAPPING FOR %I SERVER watershed_cold', pg_get_userbyid(who.oid));
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = format('the user mapping of role %s cannot be changed', who.oid);
        END;
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.cold_sync() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.cold_sync() TO watershed_gateway;

-- Rights on tables come and go by DDL that event triggers see; memberships do not: the gateway looks again every other second.
CREATE FUNCTION watershed_control.on_rights() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM watershed_control.cold_door) THEN
        PERFORM watershed_control.cold_sync();
    END IF;
END
$$;
CREATE EVENT TRIGGER watershed_rights ON ddl_command_end WHEN TAG IN ('GRANT', 'REVOKE', 'ALTER TABLE')
    EXECUTE FUNCTION watershed_control.on_rights();
ALTER EVENT TRIGGER watershed_rights ENABLE ALWAYS;

-- Switches the door on, at this Unix socket; or off, without one. The tables follow by cold_lay.
CREATE FUNCTION watershed_control.cold_switch(socket_dir text, port int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET client_min_messages = warning AS $$
#variable_conflict use_column
BEGIN
    IF cold_switch.socket_dir IS NULL THEN
        DELETE FROM watershed_control.cold_door;
        RETURN;
    END IF;
    IF cold_switch.socket_dir !~ '^/' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'the door is a Unix socket: name its directory by an absolute path';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw') THEN
        PERFORM watershed_control.refuse('cold rows cannot be answered by PostgreSQL without its extension postgres_fdw',
            'Install PostgreSQL''s contrib modules, or set retention.cold = false.');
    END IF;
    CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA watershed_control;
    IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'watershed_cold') THEN
        EXECUTE format('CREATE SERVER watershed_cold FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L,
                        fetch_size ''2000'', use_remote_estimate ''false'', truncatable ''false'', async_capable ''false'',
                        connect_timeout ''10'')', cold_switch.socket_dir, cold_switch.port, current_database());
        IF current_setting('server_version_num')::int >= 160000 THEN
            ALTER SERVER watershed_cold OPTIONS (ADD analyze_sampling 'off');
        END IF;
    ELSE
        EXECUTE format('ALTER SERVER watershed_cold OPTIONS (SET host %L, SET port %L, SET dbname %L)',
            cold_switch.socket_dir, cold_switch.port, current_database());
    END IF;
    INSERT INTO watershed_control.cold_door (socket_dir, port) VALUES (cold_switch.socket_dir, cold_switch.port)
    ON CONFLICT (one) DO UPDATE SET socket_dir = EXCLUDED.socket_dir, port = EXCLUDED.port, opened_at = now();
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.cold_switch(text, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.cold_switch(text, int) TO watershed_gateway;

-- What the role with this number must prove at the door.
CREATE FUNCTION watershed_control.cold_secret(roleid oid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.option_value FROM pg_user_mapping u JOIN pg_foreign_server s ON s.oid = u.umserver, pg_options_to_table(u.umoptions) o
    WHERE s.srvname = 'watershed_cold' AND u.umuser = cold_secret.roleid AND o.option_name = 'password'
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.cold_secret(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.cold_secret(oid) TO watershed_gateway;

-- The door's fence, in one snapshot: what PostgreSQL lacks of the table, and whether a statement that backend `pid` is executing must see
-- it so. To be called outside of any longer transaction: statistics of backends are remembered for one. Every snapshot of a backend sees
-- all transactions below its xmin as ended.
CREATE FUNCTION watershed_control.cold_fence(relid oid, pid int, roleid oid, archive bigint, boundary text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
#variable_conflict use_column
DECLARE
    tiered watershed_control.tables;
    backend record;
    next_xid numeric := pg_snapshot_xmax(pg_current_snapshot())::text::numeric;
    backend_xmin numeric;
    event_type oid;
    late regclass;
    both_have bool := true;
    expired bool := false;
BEGIN
    SELECT * INTO tiered FROM watershed_control.tables t WHERE t.relid = cold_fence.relid;
    IF tiered IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT a.datid, a.backend_xmin INTO backend FROM pg_stat_get_activity(cold_fence.pid) a;
    IF backend.datid = (SELECT oid FROM pg_database WHERE datname = current_database()) THEN
        backend_xmin := next_xid - mod(mod(next_xid, 4294967296) - backend.backend_xmin::text::numeric + 4294967296, 4294967296);
    END IF;
    SELECT p.part_relid INTO late FROM watershed_control.partitions p WHERE p.relid = cold_fence.relid AND p.kind = 'late';
    IF late IS NULL THEN
        both_have := false;
    ELSIF tiered.min_boundary IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE _xid < %L::xid8 AND NOT %s)', late,
                       pg_snapshot_xmax(tiered.min_boundary::pg_snapshot), watershed_control.beyond(tiered.min_boundary)) INTO both_have;
    END IF;
    IF late IS NOT NULL AND isfinite(tiered.lake_floor) THEN
        SELECT atttypid INTO STRICT event_type FROM pg_attribute WHERE attrelid = cold_fence.relid AND attnum = tiered.event_attnum;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I < %s)', late, tiered.event_time,
                       watershed_control.day_bound(event_type, (tiered.lake_floor AT TIME ZONE 'UTC')::date, NULL)) INTO expired;
    END IF;
    RETURN jsonb_build_object(
        'floor_us', CASE WHEN isfinite(tiered.floor) THEN (EXTRACT(epoch FROM tiered.floor) * 1000000)::bigint END,
        'lake_floor_us', CASE WHEN isfinite(tiered.lake_floor) THEN (EXTRACT(epoch FROM tiered.lake_floor) * 1000000)::bigint END,
        'min_archive', tiered.min_archive,
        'min_boundary', tiered.min_boundary,
        'schema_epoch', tiered.schema_epoch,
        'fits', tiered.min_archive = 0 OR watershed_control.fits(cold_fence.relid, cold_fence.archive, cold_fence.boundary),
        'in_statement', backend_xmin IS NOT NULL,
        'sees_fence', coalesce(backend_xmin > tiered.fence_xid::text::numeric, false),
        'may_read', coalesce(has_any_column_privilege(cold_fence.roleid, cold_fence.relid, 'SELECT'), false),
        'both_have', both_have,
        'expired', expired,
        'columns', (SELECT jsonb_agg(jsonb_build_object('attnum', a.attnum, 'name', a.attname,
                        'type', format_type(a.atttypid, a.atttypmod),
                        'collation', (SELECT format('%I.%I', n.nspname, c.collname) FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                                      WHERE c.oid = a.attcollation AND c.collname <> 'default'),
                        'equal_is_same', coalesce((SELECT c.collisdeterministic FROM pg_collation c WHERE c.oid = a.attcollation), true),
                        'byte_order', coalesce((SELECT CASE WHEN c.collname = 'default' AND c.collnamespace = 'pg_catalog'::regnamespace
                                    THEN (SELECT d.datlocprovider = 'c' AND d.datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8') FROM pg_database d
                                          WHERE d.datname = current_database())
                                    ELSE c.collprovider = 'c' AND c.collcollate IN ('C', 'POSIX') END
                            FROM pg_collation c WHERE c.oid = a.attcollation), false))
                        ORDER BY a.attnum)
                    FROM pg_attribute a WHERE a.attrelid = cold_fence.relid AND a.attnum > 0 AND NOT a.attisdropped));
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.cold_fence(oid, int, oid, bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.cold_fence(oid, int, oid, bigint, text) TO watershed_gateway;

-- The steps of retention, as in 0090 but for this: they say which transaction changed what PostgreSQL lacks, and a raise lets go the late
-- rows that its boundary sees, so that a row is either among the late ones or behind the door.

CREATE OR REPLACE FUNCTION watershed_control.raise_floor(relid oid, to_day date, archive bigint, boundary text, schema_epoch int, old_floor timestamptz, reason text)
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
        PERFORM watershed_control.lay_gone(parent, cold);
    END IF;
    FOR part IN SELECT unnest(gone) AS relation LOOP
        EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM %s WHERE %s', late, columns, part.relation, watershed_control.beyond(raise_floor.boundary));
        GET DIAGNOSTICS touched = ROW_COUNT;
        moved := moved + touched;
        EXECUTE format('DROP TABLE %s', part.relation);
        DELETE FROM watershed_control.partitions p WHERE p.part_relid = part.relation;
    END LOOP;
    -- Late rows that the boundary sees, which the caller has found in the lake as well: from now on the lake has these alone.
    EXECUTE format('DELETE FROM %s WHERE NOT %s', late, watershed_control.beyond(raise_floor.boundary));
    UPDATE watershed_control.tables t
    SET floor = to_day::timestamptz, warned = greatest(t.warned, to_day::timestamptz), min_archive = greatest(t.min_archive, raise_floor.archive),
        fence_xid = pg_current_xact_id(), floor_raised_at = now(), floor_reason = raise_floor.reason, retention_note = NULL
    WHERE t.relid = parent;
    RETURN moved;
END
$$;


CREATE OR REPLACE FUNCTION watershed_control.forget_late(relid oid, archive bigint, boundary text, schema_epoch int, old_floor timestamptz) RETURNS bigint
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
    UPDATE watershed_control.tables t
    SET min_archive = greatest(t.min_archive, forget_late.archive), fence_xid = pg_current_xact_id()
    WHERE t.relid = forget_late.relid AND touched > 0;
    RETURN touched;
END
$$;


CREATE OR REPLACE FUNCTION watershed_control.raise_lake_floor(relid oid, to_day date DEFAULT NULL) RETURNS bigint
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
        UPDATE watershed_control.tables t SET fence_xid = pg_current_xact_id() WHERE t.relid = raise_lake_floor.relid AND touched > 0;
    END IF;
    RETURN touched;
END
$$;
