-- watershed.attach_table makes an ordinary table tiered; watershed.drop_table removes a tiered one.
--
-- Each is an invoker-rights door over a definer-rights inside. The inside must know that the caller owns the table, and a
-- definer-rights function cannot see its caller. So the door proves it: as the caller, it writes a comment on the table that
-- names the running transaction, which PostgreSQL allows to owners only, and the inside looks for that comment.

-- One place for how a refusal reads.
CREATE FUNCTION watershed_control.refuse(message text, hint text, detail text DEFAULT NULL, state text DEFAULT '0A000') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF detail IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, HINT = hint;
    END IF;
    RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, HINT = hint, DETAIL = detail;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.refuse(text, text, text, text) TO PUBLIC;

-- NULL if the lake keeps values of this type; else what to do about it.
CREATE FUNCTION watershed_control.type_refusal(type_oid oid, typmod int) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    digits int;
    scale int;
BEGIN
    IF type_oid = 'pg_catalog.numeric'::regtype THEN
        IF typmod < 4 THEN
            RETURN NULL;
        END IF;
        digits := ((typmod - 4) >> 16) & 65535;
        scale := (((typmod - 4) & 2047) # 1024) - 1024;
        IF digits > 38 THEN
            RETURN 'The lake keeps up to 38 digits: use numeric without precision, or numeric(38, ' || scale || ').';
        ELSIF scale < 0 OR scale > digits THEN
            RETURN 'The lake keeps scales from 0 to the precision: use numeric without precision.';
        END IF;
        RETURN NULL;
    END IF;
    IF type_oid = ANY (ARRAY['bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'text', 'varchar', 'date', 'timestamp',
                             'timestamptz', 'uuid', 'jsonb', 'bytea']::regtype[]::oid[]) THEN
        RETURN NULL;
    END IF;
    RETURN CASE
        WHEN type_oid = 'pg_catalog.bpchar'::regtype THEN 'Use text or varchar.'
        WHEN type_oid = 'pg_catalog.json'::regtype THEN 'Use jsonb.'
        WHEN type_oid = 'pg_catalog.timetz'::regtype OR type_oid = 'pg_catalog.time'::regtype THEN 'Use timestamp, or keep it as text.'
        WHEN type_oid = 'pg_catalog.interval'::regtype THEN 'Use a number of seconds or microseconds, or keep it as text.'
        WHEN EXISTS (SELECT FROM pg_type WHERE oid = type_oid AND typtype = 'd') THEN 'Use the type below the domain, with a CHECK on the table.'
        WHEN EXISTS (SELECT FROM pg_type WHERE oid = type_oid AND typtype = 'e') THEN 'Use text, with a CHECK on the table.'
        WHEN EXISTS (SELECT FROM pg_type WHERE oid = type_oid AND typcategory = 'A') THEN 'Keep it in a jsonb column.'
        ELSE 'Keep it as text or in a jsonb column.'
    END || ' The lake keeps bool, int2, int4, int8, float4, float8, numeric, text, varchar, date, timestamp, timestamptz, uuid, jsonb and bytea.';
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.type_refusal(oid, int) FROM PUBLIC;

-- Refuses what would run functions of users when watershed itself writes or moves rows: CHECKs, indexes and defaults over
-- such functions. PostgreSQL's own leave no dependency; those of extensions were let in by an administrator.
CREATE FUNCTION watershed_control.check_functions(class regclass, object oid, what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    used text;
BEGIN
    SELECT pg_describe_object(d.refclassid, d.refobjid, 0) INTO used FROM pg_depend d
    WHERE d.classid = class AND d.objid = object AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e') LIMIT 1;
    IF used IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('%s uses %s', what, used),
            'Use functions and operators of PostgreSQL itself or of an extension there: watershed''s services write and move these rows and must not run code of users.');
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_functions(regclass, oid, text) FROM PUBLIC;

-- Refuses the column if the lake cannot keep it; used when a table is attached and when a column is added.
CREATE FUNCTION watershed_control.check_column(label text, col pg_catalog.pg_attribute) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    advice text;
BEGIN
    IF lower(col.attname) IN ('_xid', '_stream', '_offset', '_day') THEN
        PERFORM watershed_control.refuse(format('column name %I of table %s is taken', col.attname, label),
            'Rename it: watershed keeps its own _xid, _stream, _offset and _day beside the row.');
    END IF;
    IF col.attgenerated <> '' THEN
        PERFORM watershed_control.refuse(format('generated column %I of table %s cannot be kept', col.attname, label),
            format('ALTER TABLE %s ALTER COLUMN %I DROP EXPRESSION, and write the value with the row.', label, col.attname));
    END IF;
    IF col.attidentity <> '' THEN
        PERFORM watershed_control.refuse(format('identity column %I of table %s cannot be kept', col.attname, label),
            format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY; a DEFAULT nextval(...) may stay.', label, col.attname));
    END IF;
    advice := watershed_control.type_refusal(col.atttypid, col.atttypmod);
    IF advice IS NOT NULL THEN
        PERFORM watershed_control.refuse(
            format('column %I of table %s has type %s, which the lake does not keep', col.attname, label, format_type(col.atttypid, col.atttypmod)),
            advice);
    END IF;
    IF EXISTS (SELECT FROM pg_collation WHERE oid = col.attcollation AND NOT collisdeterministic) THEN
        PERFORM watershed_control.refuse(
            format('column %I of table %s has a nondeterministic collation', col.attname, label),
            format('ALTER TABLE %s ALTER COLUMN %I TYPE %s COLLATE "default".', label, col.attname, format_type(col.atttypid, col.atttypmod)));
    END IF;
    PERFORM watershed_control.check_functions('pg_attrdef', d.oid, format('the default of column %I of table %s', col.attname, label))
    FROM pg_attrdef d WHERE d.adrelid = col.attrelid AND d.adnum = col.attnum;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_column(text, pg_catalog.pg_attribute) FROM PUBLIC;

-- Records a column under the name it will have in the lake for ever: its name now, made safe for Delta and unique without case.
CREATE FUNCTION watershed_control.record_column(col pg_catalog.pg_attribute) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base text := regexp_replace(col.attname, '[][:cntrl:][ ,;{}()=."''`<>:/\\|%?#*&]', '_', 'g');
    candidate text;
    attempt int := 0;
BEGIN
    candidate := base;
    WHILE lower(candidate) = '_day' OR EXISTS (
        SELECT FROM watershed_control.lake_columns c WHERE c.relid = col.attrelid AND lower(c.lake_name) = lower(candidate))
    LOOP
        candidate := base || '_' || col.attnum || CASE WHEN attempt > 0 THEN '_' || attempt ELSE '' END;
        attempt := attempt + 1;
    END LOOP;
    INSERT INTO watershed_control.lake_columns (relid, attnum, lake_name, type_oid, typmod, collation_oid, not_null)
    VALUES (col.attrelid, col.attnum, candidate, col.atttypid, col.atttypmod, col.attcollation, col.attnotnull);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.record_column(pg_catalog.pg_attribute) FROM PUBLIC;

-- The columns of a tiered table that users write: all but the provenance.
CREATE FUNCTION watershed_control.user_columns(target regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('_xid', '_stream', '_offset')
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.user_columns(regclass) FROM PUBLIC;

-- Gives the new table the rights of the old one, with INSERT column by column and never on the provenance.
CREATE FUNCTION watershed_control.copy_rights(old_table regclass, new_table regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    right_ record;
    user_columns text := watershed_control.user_columns(new_table);
BEGIN
    PERFORM watershed_control.close_relation(new_table);
    FOR right_ IN
        SELECT a.grantee, a.privilege_type, bool_or(a.is_grantable) AS grantable, NULL::name AS col
        FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid = old_table GROUP BY 1, 2
        UNION ALL
        SELECT a.grantee, a.privilege_type, bool_or(a.is_grantable), t.attname
        FROM pg_attribute t, aclexplode(t.attacl) a
        WHERE t.attrelid = old_table AND t.attnum > 0 AND NOT t.attisdropped GROUP BY 1, 2, 4
    LOOP
        EXECUTE format('GRANT %s%s ON TABLE %s TO %s%s', right_.privilege_type,
            CASE WHEN right_.col IS NOT NULL THEN format(' (%I)', right_.col)
                 WHEN right_.privilege_type = 'INSERT' THEN format(' (%s)', user_columns)
                 ELSE '' END,
            new_table,
            CASE WHEN right_.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(right_.grantee)) END,
            CASE WHEN right_.grantable AND right_.grantee <> (SELECT relowner FROM pg_class WHERE oid = new_table)
                 THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
    EXECUTE format('GRANT SELECT ON TABLE %s TO watershed_archiver', new_table);
    EXECUTE format('GRANT INSERT ON TABLE %s TO watershed_ingest', new_table);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.copy_rights(regclass, regclass) FROM PUBLIC;

-- Everything that stands against making this table tiered; returns if nothing does.
CREATE FUNCTION watershed_control.check_attachable(target regclass, label text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rel pg_class;
    col pg_attribute;
    con record;
    found text;
BEGIN
    SELECT * INTO STRICT rel FROM pg_class WHERE oid = target;
    IF current_setting('server_encoding') <> 'UTF8' THEN
        PERFORM watershed_control.refuse(format('database encoding %s cannot be kept', current_setting('server_encoding')),
            'The lake keeps UTF-8 only: move the table to a database with ENCODING ''UTF8''.');
    END IF;
    IF rel.relpersistence <> 'p' THEN
        PERFORM watershed_control.refuse(
            format('%s table %s cannot be kept', CASE rel.relpersistence WHEN 't' THEN 'temporary' ELSE 'unlogged' END, label),
            CASE rel.relpersistence WHEN 't' THEN 'Create it as an ordinary table.' ELSE format('ALTER TABLE %s SET LOGGED.', label) END);
    END IF;
    IF EXISTS (SELECT FROM pg_namespace WHERE oid = rel.relnamespace
               AND (nspname ~ '^pg_' OR nspname IN ('information_schema', 'watershed', 'watershed_control', 'watershed_parts'))) THEN
        PERFORM watershed_control.refuse(format('table %s stands in a schema of the system', label), 'Create the table in a schema of your own.');
    END IF;
    IF rel.reloftype <> 0 THEN
        PERFORM watershed_control.refuse(format('table %s is of a composite type', label), format('ALTER TABLE %s NOT OF.', label));
    END IF;
    SELECT string_agg(i.other::regclass::text, ', ' ORDER BY i.other) INTO found FROM (
        SELECT inhparent AS other FROM pg_inherits WHERE inhrelid = target
        UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = target) i;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('table %s takes part in inheritance', label),
            format('ALTER TABLE ... NO INHERIT, or DETACH PARTITION; related: %s.', found));
    END IF;
    FOR con IN
        SELECT oid, conname, contype, connoinherit, conrelid FROM pg_constraint
        -- NOT NULL is a constraint of its own since PostgreSQL 18; it is kept.
        WHERE (conrelid = target AND contype <> 'n') OR (confrelid = target AND contype = 'f') ORDER BY contype <> 'p', conname
    LOOP
        IF con.contype = 'f' AND con.conrelid <> target THEN
            PERFORM watershed_control.refuse(format('foreign key %I of table %s refers to table %s', con.conname, con.conrelid::regclass, label),
                format('ALTER TABLE %s DROP CONSTRAINT %I.', con.conrelid::regclass, con.conname),
                'A tiered table has no unique key that another table could refer to.');
        ELSIF con.contype <> 'c' THEN
            PERFORM watershed_control.refuse(
                format('%s %I of table %s cannot be kept', CASE con.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique constraint'
                       WHEN 'x' THEN 'exclusion constraint' WHEN 'f' THEN 'foreign key' ELSE 'constraint trigger' END, con.conname, label),
                format('ALTER TABLE %s DROP CONSTRAINT %I;%s attach again.', label, con.conname,
                       CASE WHEN con.contype IN ('p', 'u') THEN ' an ordinary index may stay in its place;' ELSE '' END),
                'Part of a tiered table may be in the lake only, where PostgreSQL cannot check it.');
        ELSIF con.connoinherit THEN
            PERFORM watershed_control.refuse(format('constraint %I of table %s is NO INHERIT', con.conname, label),
                format('Drop it, or add it again without NO INHERIT: ALTER TABLE %s DROP CONSTRAINT %I.', label, con.conname));
        END IF;
        PERFORM watershed_control.check_functions('pg_constraint', con.oid, format('constraint %I of table %s', con.conname, label));
    END LOOP;
    SELECT string_agg(format('%I', tgname), ', ' ORDER BY tgname) INTO found FROM pg_trigger WHERE tgrelid = target AND NOT tgisinternal;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('table %s has triggers', label), format('DROP TRIGGER ... ON %s: %s.', label, found));
    END IF;
    SELECT string_agg(format('%I', rulename), ', ' ORDER BY rulename) INTO found FROM pg_rewrite WHERE ev_class = target;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('table %s has rules', label), format('DROP RULE ... ON %s: %s.', label, found));
    END IF;
    IF rel.relrowsecurity OR rel.relforcerowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = target) THEN
        PERFORM watershed_control.refuse(format('table %s has row-level security', label),
            format('Drop its policies and ALTER TABLE %s DISABLE ROW LEVEL SECURITY; views can limit what a role reads.', label));
    END IF;
    FOR col IN SELECT * FROM pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped ORDER BY attnum LOOP
        PERFORM watershed_control.check_column(label, col);
    END LOOP;
    FOR con IN SELECT i.indexrelid, i.indisunique, i.indisvalid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
               WHERE i.indrelid = target ORDER BY c.relname LOOP
        IF con.indisunique THEN
            PERFORM watershed_control.refuse(format('unique index %I of table %s cannot be kept', con.relname, label),
                format('DROP INDEX %s; an ordinary index may stay in its place.', con.indexrelid::regclass),
                'Part of a tiered table may be in the lake only, where PostgreSQL cannot check it.');
        END IF;
        PERFORM watershed_control.check_functions('pg_class', con.indexrelid, format('index %I of table %s', con.relname, label));
    END LOOP;
    SELECT string_agg(DISTINCT p.pubname::text, ', ') INTO found FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE r.prrelid = target;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('table %s is named in publications', label),
            format('ALTER PUBLICATION ... DROP TABLE %s, and add it again afterwards: %s.', label, found));
    END IF;
    -- Whatever else names the table or its row type would keep pointing at the old one. Its own parts come along.
    SELECT string_agg(DISTINCT named.what, ', ') INTO found FROM (
        SELECT coalesce((SELECT (CASE v.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END) || v.oid::regclass
                         FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid),
                        pg_describe_object(d.classid, d.objid, d.objsubid)) AS what
        FROM pg_depend d
        WHERE ((d.refclassid = 'pg_class'::regclass AND d.refobjid = target)
               OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT oid FROM pg_type WHERE oid = rel.reltype
                                                                        UNION ALL SELECT typarray FROM pg_type WHERE oid = rel.reltype)))
          AND NOT (d.classid = 'pg_type'::regclass AND d.deptype = 'i')
          AND NOT (d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = target))
          AND NOT (d.classid = 'pg_constraint'::regclass AND d.objid IN (SELECT oid FROM pg_constraint WHERE conrelid = target))
          AND NOT (d.classid = 'pg_statistic_ext'::regclass AND d.objid IN (SELECT oid FROM pg_statistic_ext WHERE stxrelid = target))
          AND NOT (d.classid = 'pg_class'::regclass AND (
                   d.objid IN (SELECT indexrelid FROM pg_index WHERE indrelid = target)
                   OR d.objid = rel.reltoastrelid
                   OR (d.deptype = 'a' AND d.objid IN (SELECT oid FROM pg_class WHERE relkind = 'S'))))
        LIMIT 20) named;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('other objects depend on table %s', label),
            'Drop them, attach, and create them again.', format('Depending: %s.', found), '2BP01');
    END IF;
    IF EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = target AND deptype = 'e') THEN
        PERFORM watershed_control.refuse(format('table %s belongs to an extension', label), 'Use a table of your own.');
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_attachable(regclass, text) FROM PUBLIC;

-- The inside of watershed.attach_table. `proof` must be the comment the table carries.
CREATE FUNCTION watershed_control.attach_proven(target regclass, event_time name, overflow name, first_day date,
                                                proof text, table_comment text) RETURNS regclass
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
    rel pg_class;
    schema_name name;
    label text;
    owner name;
    event pg_attribute;
    over pg_attribute;
    today date := watershed_control.utc_today();
    new_table regclass;
    prefix text;
    path text;
    columns text;
    moved bigint;
    item record;
    later text[] := '{}';
    event_indexed bool := false;
    day date;
    stream int;
BEGIN
    -- One at a time: two of them would grant on the same schema, and PostgreSQL lets the second fail.
    PERFORM pg_advisory_xact_lock(hashtext('watershed/attach'));
    IF proof IS DISTINCT FROM 'watershed: attached by transaction ' || pg_current_xact_id()
       OR obj_description(target, 'pg_class') IS DISTINCT FROM proof THEN
        PERFORM watershed_control.refuse('watershed_control.attach_proven is not to be called directly', 'Call watershed.attach_table.', NULL, '42501');
    END IF;
    SELECT * INTO STRICT rel FROM pg_class WHERE oid = target;
    SELECT nspname INTO STRICT schema_name FROM pg_namespace WHERE oid = rel.relnamespace;
    label := format('%I.%I', schema_name, rel.relname);
    owner := pg_get_userbyid(rel.relowner);

    PERFORM watershed_control.check_attachable(target, label);

    SELECT * INTO event FROM pg_attribute a WHERE a.attrelid = target AND a.attname = event_time AND a.attnum > 0 AND NOT a.attisdropped;
    IF event IS NULL THEN
        PERFORM watershed_control.refuse(format('column %I of table %s does not exist', event_time, label),
            'event_time names the column that holds when the row''s event happened.', NULL, '42703');
    END IF;
    IF event.atttypid NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN
        PERFORM watershed_control.refuse(
            format('event time %I of table %s has type %s', event_time, label, format_type(event.atttypid, event.atttypmod)),
            'Use a column of type timestamptz (or timestamp or date, taken as UTC).', NULL, '42804');
    END IF;
    IF overflow IS NOT NULL THEN
        SELECT * INTO over FROM pg_attribute a WHERE a.attrelid = target AND a.attname = overflow AND a.attnum > 0 AND NOT a.attisdropped;
        IF over IS NULL THEN
            PERFORM watershed_control.refuse(format('column %I of table %s does not exist', overflow, label),
                'overflow names the jsonb column that takes the keys without a column of their own; leave it out if there is none.', NULL, '42703');
        END IF;
        IF over.atttypid <> 'jsonb'::regtype THEN
            PERFORM watershed_control.refuse(format('overflow column %I of table %s has type %s', overflow, label, format_type(over.atttypid, over.atttypmod)),
                'Use a column of type jsonb.', NULL, '42804');
        END IF;
    END IF;
    first_day := coalesce(first_day, today - 7);
    IF NOT isfinite(first_day) OR first_day > today OR first_day < today - 1830 THEN
        PERFORM watershed_control.refuse(format('first day %s is out of range', first_day),
            format('Give a day from %s to %s (UTC): from it on each day has a partition; earlier rows stand together in one.', today - 1830, today),
            NULL, '22023');
    END IF;
    EXECUTE format('SELECT count(*) FROM ONLY %s WHERE %I IS NULL OR NOT isfinite(%2$I)', target, event_time) INTO moved;
    IF moved > 0 THEN
        PERFORM watershed_control.refuse(format('%s rows of table %s have no finite %I', moved, label, event_time),
            format('Every row needs a time: UPDATE %s SET %I = ... WHERE %2$I IS NULL OR NOT isfinite(%2$I).', label, event_time),
            NULL, '23502');
    END IF;

    -- A prefix that no other tiered table has, short enough for _YYYYMMDD behind it; a folder that no table ever had.
    prefix := CASE WHEN schema_name = 'public' THEN '' ELSE schema_name || '_' END || rel.relname;
    WHILE octet_length(prefix) > 40 LOOP
        prefix := left(prefix, -1);
    END LOOP;
    IF EXISTS (SELECT FROM watershed_control.tables t WHERE t.part_prefix = prefix)
       OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = 'watershed_parts' AND starts_with(c.relname, prefix || '_')) THEN
        prefix := prefix || '_' || target::oid;
    END IF;
    path := regexp_replace(schema_name || '.' || rel.relname, '[^A-Za-z0-9_.-]', '_', 'g');
    IF EXISTS (SELECT FROM watershed_control.lake_paths p WHERE lower(p.lake_path) = lower(path)) THEN
        path := path || '.' || target::oid;
    END IF;

    -- What is put back by its own definition once the new table has the name.
    FOR item IN
        SELECT i.indexrelid, c.relname, pg_get_indexdef(i.indexrelid) AS def, obj_description(i.indexrelid, 'pg_class') AS about,
               i.indkey[0] = event.attnum AND i.indpred IS NULL AND am.amname = 'btree' AS by_event
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam
        WHERE i.indrelid = target AND i.indisvalid ORDER BY c.relname
    LOOP
        later := later || item.def;
        IF item.about IS NOT NULL THEN
            later := later || format('COMMENT ON INDEX %I.%I IS %L', schema_name, item.relname, item.about);
        END IF;
        event_indexed := event_indexed OR item.by_event;
    END LOOP;
    FOR item IN
        SELECT s.oid, s.stxname, n.nspname, pg_get_userbyid(s.stxowner) AS owner FROM pg_statistic_ext s
        JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = target ORDER BY s.oid
    LOOP
        later := later || pg_get_statisticsobjdef(item.oid) || format('ALTER STATISTICS %I.%I OWNER TO %I', item.nspname, item.stxname, item.owner);
    END LOOP;
    IF rel.reloptions IS NOT NULL THEN
        RAISE NOTICE 'storage parameters of table % are not kept: %', label, array_to_string(rel.reloptions, ', ');
    END IF;

    EXECUTE format(
        'CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS INCLUDING STORAGE INCLUDING COMPRESSION,
             _xid pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
             _stream pg_catalog.int4 NOT NULL DEFAULT 0,
             _offset pg_catalog.int8 NOT NULL DEFAULT 0,
             CONSTRAINT watershed_xid CHECK (_xid = pg_catalog.pg_current_xact_id()
                 OR pg_catalog.current_setting(''watershed.maintenance'', true) IS NOT DISTINCT FROM ''on''),
             CONSTRAINT watershed_event_time CHECK (pg_catalog.isfinite(%I))
         ) PARTITION BY RANGE (%4$I)',
        schema_name, 'watershed_attach_' || target::oid, target, event_time);
    new_table := format('%I.%I', schema_name, 'watershed_attach_' || target::oid)::regclass;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', new_table, event_time);
    -- Values for which the lake's types have no equal: one of them would stop the table's archiving for good.
    FOR item IN
        SELECT a.attname, a.attnum, CASE
                WHEN a.atttypid = 'pg_catalog.numeric'::regtype THEN '%1$I <> ''NaN'''
                ELSE '%1$I < ''294247-01-01 UTC'' OR NOT pg_catalog.isfinite(%1$I)' END AS condition
        FROM pg_attribute a
        WHERE a.attrelid = new_table AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.atttypid = 'pg_catalog.numeric'::regtype AND a.atttypmod >= 4
               OR a.atttypid IN ('pg_catalog.timestamptz'::regtype, 'pg_catalog.timestamp'::regtype))
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s)', new_table, 'watershed_keeps_' || item.attnum,
            format(item.condition, item.attname));
    END LOOP;
    EXECUTE format('ALTER TABLE %s OWNER TO %I', new_table, owner);
    FOR item IN
        SELECT a.attname, a.attstattarget, a.attoptions FROM pg_attribute a
        WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND (a.attstattarget >= 0 OR a.attoptions IS NOT NULL)
    LOOP
        IF item.attstattarget >= 0 THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', new_table, item.attname, item.attstattarget);
        END IF;
        IF item.attoptions IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET (%s)', new_table, item.attname, array_to_string(item.attoptions, ', '));
        END IF;
    END LOOP;
    EXECUTE format('CREATE TRIGGER watershed_append_only_row BEFORE UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION watershed_control.refuse_change()', new_table);
    EXECUTE format('CREATE TRIGGER watershed_append_only_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION watershed_control.refuse_change()', new_table);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER watershed_append_only_row, ENABLE ALWAYS TRIGGER watershed_append_only_statement', new_table);

    INSERT INTO watershed_control.tables (relid, schema_name, table_name, event_time, event_attnum, overflow, overflow_attnum,
                                          lake_path, lineage, first_day, part_prefix, constraints)
    SELECT new_table, schema_name, rel.relname, event_time, e.attnum, overflow, o.attnum,
           path, watershed_control.current_lineage(), first_day, prefix,
           ARRAY(SELECT c.oid FROM pg_constraint c WHERE c.conrelid = new_table ORDER BY c.oid)
    FROM pg_attribute e LEFT JOIN pg_attribute o ON o.attrelid = new_table AND o.attname = overflow
    WHERE e.attrelid = new_table AND e.attname = event_time;
    INSERT INTO watershed_control.lake_paths (lake_path, relid) VALUES (path, new_table);
    PERFORM watershed_control.record_column(a) FROM (
        SELECT a FROM pg_attribute a WHERE a.attrelid = new_table AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attname NOT IN ('_xid', '_stream', '_offset'), a.attnum) ordered(a);

    PERFORM watershed_control.add_partition(new_table, 'cold', NULL, first_day);
    day := first_day;
    WHILE day <= today + 60 LOOP
        PERFORM watershed_control.add_partition(new_table, 'day', day, day + 1);
        day := day + 1;
    END LOOP;
    PERFORM watershed_control.add_partition(new_table, 'future', day, NULL);

    -- The rows, as rows of this transaction.
    columns := watershed_control.user_columns(new_table);
    EXECUTE format('INSERT INTO %s (%s) SELECT %2$s FROM ONLY %s', new_table, columns, target);
    GET DIAGNOSTICS moved = ROW_COUNT;

    PERFORM watershed_control.copy_rights(target, new_table);
    FOR item IN
        SELECT s.oid::regclass AS sequence, a.attname FROM pg_depend d
        JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        JOIN pg_attribute a ON a.attrelid = target AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = target AND d.deptype = 'a'
    LOOP
        EXECUTE format('ALTER SEQUENCE %s OWNED BY %s.%I', item.sequence, new_table, item.attname);
    END LOOP;
    EXECUTE format('DROP TABLE %s', target);
    EXECUTE format('ALTER TABLE %s RENAME TO %I', new_table, rel.relname);
    EXECUTE format('COMMENT ON TABLE %s IS %L', new_table, table_comment);
    EXECUTE format('CREATE INDEX ON %s (_xid)', new_table);
    IF NOT event_indexed THEN
        EXECUTE format('CREATE INDEX ON %s (%I)', new_table, event_time);
    END IF;
    FOR n IN 1 .. cardinality(later) LOOP
        EXECUTE later[n];
    END LOOP;

    INSERT INTO watershed_control.streams (kind, relid) VALUES ('loads', new_table) RETURNING id INTO stream;
    INSERT INTO watershed_control.positions (stream, next_offset) VALUES (stream, 0);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO watershed_ingest, watershed_archiver', schema_name);
    -- CREATE INDEX on the parent makes indexes beside the partitions. Without USAGE nothing there can be named.
    EXECUTE format('GRANT CREATE ON SCHEMA watershed_parts TO %I', owner);
    IF moved > 0 THEN
        EXECUTE format('ANALYZE %s', new_table);
    END IF;
    RETURN new_table;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.attach_proven(regclass, name, name, date, text, text) TO PUBLIC;

CREATE FUNCTION watershed.attach_table("table" regclass, event_time name, overflow name DEFAULT NULL, first_day date DEFAULT NULL)
RETURNS regclass
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rel pg_class;
    label text;
    proof text;
    about text;
BEGIN
    IF "table" IS NULL OR event_time IS NULL THEN
        PERFORM watershed_control.refuse('attach_table needs a table and its event time',
            'SELECT watershed.attach_table(''public.t'', event_time => ''ts'').', NULL, '22004');
    END IF;
    SELECT * INTO rel FROM pg_class WHERE oid = "table";
    IF rel IS NULL THEN
        PERFORM watershed_control.refuse(format('table %s does not exist', "table"), 'Name an existing table.', NULL, '42P01');
    END IF;
    label := format('%s.%I', rel.relnamespace::regnamespace, rel.relname);
    IF NOT pg_has_role(current_user, rel.relowner, 'USAGE') THEN
        PERFORM watershed_control.refuse(format('must be owner of table %s', label),
            format('Its owner is %I.', pg_get_userbyid(rel.relowner)), NULL, '42501');
    END IF;
    IF rel.relkind = 'p' AND EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = "table") THEN
        PERFORM watershed_control.refuse(format('table %s is already tiered', label), 'There is nothing to do.', NULL, '42710');
    ELSIF rel.relkind <> 'r' OR rel.relispartition THEN
        PERFORM watershed_control.refuse(
            format('%s is %s', label, CASE WHEN rel.relispartition THEN 'a partition' ELSE
                CASE rel.relkind WHEN 'p' THEN 'a partitioned table' WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                                 WHEN 'f' THEN 'a foreign table' WHEN 'S' THEN 'a sequence' WHEN 'c' THEN 'a composite type'
                                 ELSE 'not a table' END END),
            'Only an ordinary table can be made tiered: watershed partitions it by day itself.');
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', "table");
    about := obj_description("table", 'pg_class');
    proof := 'watershed: attached by transaction ' || pg_current_xact_id();
    EXECUTE format('COMMENT ON TABLE %s IS %L', "table", proof);
    RETURN watershed_control.attach_proven("table", event_time, overflow, first_day, proof, about);
END
$$;
COMMENT ON FUNCTION watershed.attach_table(regclass, name, name, date) IS
    'makes an ordinary table tiered: partitioned by UTC day of event_time, append-only, archived to the lake';
GRANT EXECUTE ON FUNCTION watershed.attach_table(regclass, name, name, date) TO PUBLIC;

-- The inside of watershed.drop_table.
CREATE FUNCTION watershed_control.drop_proven(target regclass, proof text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
DECLARE
    path text;
BEGIN
    IF proof IS DISTINCT FROM 'watershed: dropped by transaction ' || pg_current_xact_id()
       OR obj_description(target, 'pg_class') IS DISTINCT FROM proof THEN
        PERFORM watershed_control.refuse('watershed_control.drop_proven is not to be called directly', 'Call watershed.drop_table.', NULL, '42501');
    END IF;
    EXECUTE format('DROP TABLE %s', target);
    DELETE FROM watershed_control.tables t WHERE t.relid = target RETURNING t.lake_path INTO path;
    UPDATE watershed_control.lake_paths p SET retired_at = now() WHERE p.lake_path = path;
    RETURN path;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.drop_proven(regclass, text) TO PUBLIC;

CREATE FUNCTION watershed.drop_table("table" regclass) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rel pg_class;
    label text;
    proof text;
BEGIN
    SELECT * INTO rel FROM pg_class WHERE oid = "table";
    label := format('%s.%I', rel.relnamespace::regnamespace, rel.relname);
    IF rel IS NULL OR NOT EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = "table") THEN
        PERFORM watershed_control.refuse(format('%s is not a tiered table', coalesce(label, "table"::text, 'NULL')), 'Use DROP TABLE.', NULL, '42809');
    END IF;
    IF NOT pg_has_role(current_user, rel.relowner, 'USAGE') THEN
        PERFORM watershed_control.refuse(format('must be owner of table %s', label),
            format('Its owner is %I.', pg_get_userbyid(rel.relowner)), NULL, '42501');
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', "table");
    proof := 'watershed: dropped by transaction ' || pg_current_xact_id();
    EXECUTE format('COMMENT ON TABLE %s IS %L', "table", proof);
    RETURN watershed_control.drop_proven("table", proof);
END
$$;
COMMENT ON FUNCTION watershed.drop_table(regclass) IS
    'drops a tiered table from PostgreSQL; returns the folder below the lake root where its files stay, never to be used again';
GRANT EXECUTE ON FUNCTION watershed.drop_table(regclass) TO PUBLIC;
