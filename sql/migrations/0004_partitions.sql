-- The partitions of a tiered table: one a UTC day, `cold` below the first day, `future` above the last. They stand in schema
-- watershed_parts, belong to the table's owner (so that ALTER TABLE on the parent reaches them), and nobody has a right on them.

CREATE FUNCTION watershed_control.utc_today() RETURNS date
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (now() AT TIME ZONE 'UTC')::date
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.utc_today() FROM PUBLIC;

-- Midnight UTC of a day as a literal of the event time's type. NULL is the open end named by `otherwise`.
CREATE FUNCTION watershed_control.day_bound(event_type oid, day date, otherwise text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN day IS NULL THEN otherwise
        WHEN event_type = 'pg_catalog.timestamptz'::regtype THEN quote_literal(to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00')
        WHEN event_type = 'pg_catalog.timestamp'::regtype THEN quote_literal(to_char(day, 'YYYY-MM-DD') || ' 00:00:00')
        ELSE quote_literal(to_char(day, 'YYYY-MM-DD'))
    END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.day_bound(oid, date, text) FROM PUBLIC;

-- Takes every right on the relation away, the owner's own too.
CREATE FUNCTION watershed_control.close_relation(target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder record;
BEGIN
    FOR holder IN
        SELECT DISTINCT a.grantee FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid = target
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %s CASCADE', target,
            CASE WHEN holder.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(holder.grantee)) END);
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.close_relation(regclass) FROM PUBLIC;

-- Makes one partition holding [from_day, to_day), NULL being the open end; to be called under maintenance.
CREATE FUNCTION watershed_control.add_partition(parent regclass, kind text, from_day date, to_day date) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tiered watershed_control.tables;
    event_type oid;
    part text;
    owner name;
BEGIN
    SELECT * INTO STRICT tiered FROM watershed_control.tables t WHERE t.relid = parent;
    SELECT a.atttypid, pg_get_userbyid(c.relowner) INTO STRICT event_type, owner
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attrelid = parent AND a.attnum = tiered.event_attnum;
    part := format('watershed_parts.%I', tiered.part_prefix || '_' || CASE kind WHEN 'day' THEN to_char(from_day, 'YYYYMMDD') ELSE kind END);
    EXECUTE format('CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (%s) TO (%s)', part, parent,
        watershed_control.day_bound(event_type, from_day, 'MINVALUE'), watershed_control.day_bound(event_type, to_day, 'MAXVALUE'));
    -- Row triggers come with the parent; statement triggers do not.
    EXECUTE format('CREATE TRIGGER watershed_append_only_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION watershed_control.refuse_change()', part);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER watershed_append_only_statement', part);
    EXECUTE format('ALTER TABLE %s OWNER TO %I', part, owner);
    PERFORM watershed_control.close_relation(part::regclass);
    INSERT INTO watershed_control.partitions (part_relid, relid, kind, day)
    VALUES (part::regclass, parent, kind, CASE kind WHEN 'day' THEN from_day END);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.add_partition(regclass, text, date, date) FROM PUBLIC;

-- Makes day partitions until `ahead` days from today (UTC) exist; returns how many it made. Needs ACCESS EXCLUSIVE on the
-- table when there is something to make: call it seldom (when fewer than 30 days are left), under lock_timeout, and try again.
-- Rows that stood in `future` for one of the new days move there and keep their _xid, so no boundary sees them twice.
-- A transaction that took its snapshot before the move and opens the table after it may miss such rows: the layout of
-- partitions is not versioned (the same holds for any DETACH in PostgreSQL).
CREATE FUNCTION watershed_control.ensure_days(relid oid, ahead int DEFAULT 60) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
#variable_conflict use_column
DECLARE
    parent regclass := ensure_days.relid::regclass;
    tiered watershed_control.tables;
    wanted date := watershed_control.utc_today() + ensure_days.ahead;
    last_day date;
    next_day date;
    future regclass;
    event_type oid;
    columns text;
    made int := 0;
BEGIN
    IF ensure_days.ahead IS NULL OR ensure_days.ahead NOT BETWEEN 1 AND 366 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('cannot keep %s days ahead', ensure_days.ahead), HINT = 'Give 1 to 366 days.';
    END IF;
    IF NOT EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = parent) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('%s is not a tiered table', ensure_days.relid);
    END IF;
    SELECT max(p.day) INTO last_day FROM watershed_control.partitions p WHERE p.relid = parent;
    IF last_day >= wanted THEN
        RETURN 0;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', parent);
    SELECT * INTO STRICT tiered FROM watershed_control.tables t WHERE t.relid = parent;
    SELECT max(p.day) INTO last_day FROM watershed_control.partitions p WHERE p.relid = parent;
    next_day := coalesce(last_day + 1, tiered.first_day);
    IF next_day > wanted THEN
        RETURN 0;
    END IF;
    SELECT p.part_relid INTO STRICT future FROM watershed_control.partitions p WHERE p.relid = parent AND p.kind = 'future';
    SELECT atttypid INTO STRICT event_type FROM pg_attribute WHERE attrelid = parent AND attnum = tiered.event_attnum;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO STRICT columns
    FROM pg_attribute WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped;

    EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, future);
    WHILE next_day <= wanted LOOP
        PERFORM watershed_control.add_partition(parent, 'day', next_day, next_day + 1);
        next_day := next_day + 1;
        made := made + 1;
    END LOOP;
    EXECUTE format('WITH stray AS (DELETE FROM %1$s WHERE %2$I < %3$s RETURNING %4$s) INSERT INTO %5$s (%4$s) SELECT %4$s FROM stray',
        future, tiered.event_time, watershed_control.day_bound(event_type, next_day, NULL), columns, parent);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (MAXVALUE)', parent, future,
        watershed_control.day_bound(event_type, next_day, NULL));
    RETURN made;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.ensure_days(oid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.ensure_days(oid, int) TO watershed_archiver;
