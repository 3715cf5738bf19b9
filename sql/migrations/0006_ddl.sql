-- DDL on tiered tables, by event triggers. They look at what the catalog says after a statement, not at the statement: whatever
-- way was found, the table must still be what attach_table made of it, but for what is allowed. Allowed are: a new nullable
-- column, renaming, comments, defaults of user columns, ordinary indexes and statistics, a new owner, and rights that open
-- neither partitions nor provenance.

-- Columns as the catalog has them against columns as recorded. Records a new one; returns whether anything changed.
CREATE FUNCTION watershed_control.check_columns(target regclass, label text) RETURNS bool
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    col pg_attribute;
    known watershed_control.lake_columns;
    changed bool := false;
    default_text text;
    holder record;
BEGIN
    FOR known IN SELECT * FROM watershed_control.lake_columns c WHERE c.relid = target ORDER BY c.attnum LOOP
        SELECT * INTO col FROM pg_attribute a WHERE a.attrelid = target AND a.attnum = known.attnum;
        IF col.attisdropped THEN
            PERFORM watershed_control.refuse(format('columns of tiered table %s cannot be dropped', label),
                'Leave the column; new rows may leave it NULL.');
        END IF;
        IF col.atttypid <> known.type_oid OR col.atttypmod <> known.typmod OR col.attcollation <> known.collation_oid THEN
            PERFORM watershed_control.refuse(format('the type of column %I of tiered table %s cannot change', col.attname, label),
                'Add a nullable column of the new type.');
        END IF;
        IF col.attnotnull <> known.not_null THEN
            PERFORM watershed_control.refuse(format('column %I of tiered table %s cannot %s NOT NULL', col.attname, label,
                    CASE WHEN col.attnotnull THEN 'become' ELSE 'cease to be' END),
                'What is NOT NULL is settled when the table is attached.');
        END IF;
        SELECT pg_get_expr(d.adbin, d.adrelid) INTO default_text FROM pg_attrdef d WHERE d.adrelid = target AND d.adnum = known.attnum;
        IF known.lake_name IN ('_xid', '_stream', '_offset') THEN
            IF col.attname <> known.lake_name OR default_text IS DISTINCT FROM
               (CASE known.lake_name WHEN '_xid' THEN 'pg_current_xact_id()' ELSE '0' END) THEN
                PERFORM watershed_control.refuse(format('provenance column %I of tiered table %s cannot change', known.lake_name, label),
                    'It says which transaction and which source a row came from, and is written by watershed.');
            END IF;
        ELSE
            PERFORM watershed_control.check_column(label, col);
        END IF;
    END LOOP;

    FOR col IN
        SELECT a.* FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped
        AND NOT EXISTS (SELECT FROM watershed_control.lake_columns c WHERE c.relid = target AND c.attnum = a.attnum) ORDER BY a.attnum
    LOOP
        PERFORM watershed_control.check_column(label, col);
        IF col.attnotnull THEN
            PERFORM watershed_control.refuse(format('a new column of tiered table %s must be nullable', label),
                format('Rows in the lake have no value for %I: add it without NOT NULL.', col.attname));
        END IF;
        -- The table itself stores nothing: its partitions hold the value that rows written before have.
        IF EXISTS (SELECT FROM watershed_control.partitions p JOIN pg_attribute a ON a.attrelid = p.part_relid
                   WHERE p.relid = target AND a.attname = col.attname AND a.atthasmissing) THEN
            PERFORM watershed_control.refuse(format('a new column of tiered table %s cannot give its default to the rows that are there', label),
                format('Rows in the lake have no value for %1$I: ALTER TABLE %2$s ADD COLUMN %1$I %3$s, ALTER COLUMN %1$I SET DEFAULT ...', col.attname, label, format_type(col.atttypid, col.atttypmod)));
        END IF;
        PERFORM watershed_control.record_column(col);
        -- Who may insert into every other column may insert into this one.
        FOR holder IN
            SELECT x.grantee, bool_and(x.is_grantable) AS grantable
            FROM pg_attribute a, aclexplode(a.attacl) x
            WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attnum <> col.attnum AND x.privilege_type = 'INSERT'
            GROUP BY x.grantee
            HAVING count(DISTINCT a.attnum) = (SELECT count(*) FROM watershed_control.lake_columns c
                                               WHERE c.relid = target AND c.attnum <> col.attnum AND c.lake_name NOT IN ('_xid', '_stream', '_offset'))
        LOOP
            EXECUTE format('GRANT INSERT (%I) ON TABLE %s TO %s%s', col.attname, target,
                CASE WHEN holder.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(holder.grantee)) END,
                CASE WHEN holder.grantable AND holder.grantee <> (SELECT relowner FROM pg_class WHERE oid = target) THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
        changed := true;
    END LOOP;
    RETURN changed;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_columns(regclass, text) FROM PUBLIC;

-- Rights: INSERT never on the whole table nor on provenance, nothing on partitions, the services keep theirs.
CREATE FUNCTION watershed_control.check_rights(target regclass, label text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder name;
BEGIN
    SELECT coalesce(pg_get_userbyid(nullif(x.grantee, 0)), 'PUBLIC') INTO holder
    FROM (SELECT a.grantee FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
          WHERE c.oid = target AND a.privilege_type = 'INSERT'
          UNION ALL
          SELECT a.grantee FROM pg_attribute t, aclexplode(t.attacl) a
          WHERE t.attrelid = target AND t.attname IN ('_xid', '_stream', '_offset') AND a.privilege_type = 'INSERT') x
    WHERE x.grantee <> 'watershed_ingest'::regrole LIMIT 1;
    IF holder IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('INSERT on all of tiered table %s would open its provenance columns to %s', label, holder),
            format('GRANT INSERT (%s) ON %s TO %s.', watershed_control.user_columns(target), label,
                   CASE WHEN holder = 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(holder) END));
    END IF;
    IF EXISTS (SELECT FROM watershed_control.partitions p JOIN pg_class c ON c.oid = p.part_relid
               WHERE p.relid = target AND (c.relacl IS NULL OR cardinality(c.relacl) > 0))
       OR EXISTS (SELECT FROM watershed_control.partitions p JOIN pg_attribute a ON a.attrelid = p.part_relid
                  WHERE p.relid = target AND cardinality(a.attacl) > 0) THEN
        PERFORM watershed_control.refuse(format('nobody has rights on the partitions of tiered table %s', label), format('Grant on %s instead.', label));
    END IF;
    IF NOT has_table_privilege('watershed_archiver', target, 'SELECT') OR NOT has_table_privilege('watershed_ingest', target, 'INSERT') THEN
        PERFORM watershed_control.refuse(format('the services need their rights on tiered table %s', label),
            'watershed_archiver reads it, watershed_ingest inserts; name other roles in the REVOKE.');
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_rights(regclass, text) FROM PUBLIC;

-- Partitions belong to the owner of the table. After ALTER TABLE ... OWNER TO they follow.
CREATE FUNCTION watershed_control.follow_owner(target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := (SELECT relowner FROM pg_class WHERE oid = target);
    part regclass;
BEGIN
    FOR part IN SELECT c.oid FROM watershed_control.partitions p JOIN pg_class c ON c.oid = p.part_relid
                WHERE p.relid = target AND c.relowner <> owner LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', part, pg_get_userbyid(owner));
        PERFORM watershed_control.close_relation(part);
    END LOOP;
    IF NOT has_schema_privilege(owner, 'watershed_parts', 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON SCHEMA watershed_parts TO %I', pg_get_userbyid(owner));
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.follow_owner(regclass) FROM PUBLIC;

-- Both indexes that watershed itself leans on are there, and none that is unique or runs foreign code.
CREATE FUNCTION watershed_control.check_indexes(target regclass, label text, event_attnum int2) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ix record;
    by_xid bool := false;
    by_event bool := false;
    xid_attnum int2 := (SELECT attnum FROM pg_attribute WHERE attrelid = target AND attname = '_xid');
BEGIN
    FOR ix IN
        SELECT i.indexrelid, c.relname, i.indisunique, i.indisexclusion, i.indkey[0] AS first_key,
               i.indpred IS NULL AND i.indisvalid AND am.amname = 'btree' AS whole
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam WHERE i.indrelid = target
    LOOP
        IF ix.indisunique OR ix.indisexclusion THEN
            PERFORM watershed_control.refuse(format('tiered table %s cannot have unique index %I', label, ix.relname),
                'Create it without UNIQUE: part of the table may be in the lake only, where PostgreSQL cannot check it.');
        END IF;
        PERFORM watershed_control.check_functions('pg_class', ix.indexrelid, format('index %I of tiered table %s', ix.relname, label));
        by_xid := by_xid OR (ix.whole AND ix.first_key = xid_attnum);
        by_event := by_event OR (ix.whole AND ix.first_key = event_attnum);
    END LOOP;
    IF NOT by_xid OR NOT by_event THEN
        PERFORM watershed_control.refuse(
            format('tiered table %s needs its index on %s', label, CASE WHEN by_xid THEN 'the event time' ELSE '_xid' END),
            'Create another valid btree index that begins with that column first.');
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_indexes(regclass, text, int2) FROM PUBLIC;

-- The whole table: columns, names, constraints, triggers, partitions, indexes, rights.
CREATE FUNCTION watershed_control.check_table(target oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tiered watershed_control.tables;
    rel pg_class;
    label text;
    changed bool;
    found text;
BEGIN
    SELECT * INTO STRICT tiered FROM watershed_control.tables t WHERE t.relid = target;
    SELECT * INTO STRICT rel FROM pg_class WHERE oid = target;
    label := format('%s.%I', rel.relnamespace::regnamespace, rel.relname);

    IF rel.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = target) THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot be a partition of another table', label), 'Use a view with UNION ALL.');
    END IF;
    IF rel.reloftype <> 0 THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot be of a composite type', label), 'Leave it as it is.');
    END IF;
    IF rel.relrowsecurity OR rel.relforcerowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = target) THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot have row-level security', label), 'Views can limit what a role reads.');
    END IF;
    IF EXISTS (SELECT FROM pg_rewrite WHERE ev_class = target) THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot have rules', label), 'Create a view, and the rule on it.');
    END IF;

    -- Partitions before columns: DDL aimed at one of them shows there first.
    SELECT string_agg(coalesce(i.inhrelid, p.part_relid)::regclass::text, ', ') INTO found
    FROM (SELECT inhrelid FROM pg_inherits WHERE inhparent = target AND NOT inhdetachpending) i
    FULL JOIN (SELECT part_relid FROM watershed_control.partitions WHERE relid = target) p ON p.part_relid = i.inhrelid
    WHERE i.inhrelid IS NULL OR p.part_relid IS NULL;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('partitions of tiered table %s cannot be attached, detached or dropped', label),
            'watershed makes the day partitions itself; insert into the table.', format('Partitions: %s.', found));
    END IF;
    SELECT string_agg(t.tgname, ', ') INTO found FROM pg_trigger t
    WHERE t.tgrelid = target AND NOT t.tgisinternal AND t.tgfoid <> to_regprocedure('watershed_control.refuse_change()');
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot have triggers', label),
            'Rows also arrive by services and in the lake; act on them where they are read, or before they are inserted.', format('Triggers: %s.', found));
    END IF;
    -- One for rows, one for statements, on the table and on each partition, on whatever the session's replication role.
    SELECT string_agg(c.oid::regclass::text, ', ') INTO found
    FROM (SELECT target AS oid UNION ALL SELECT part_relid FROM watershed_control.partitions WHERE relid = target) c
    WHERE (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = to_regprocedure('watershed_control.refuse_change()')
           AND t.tgenabled = 'A' AND t.tgtype IN (27, 58)) <> 2;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('the triggers that keep tiered table %s append-only must stay', label), 'Leave them enabled.', format('Missing on: %s.', found));
    END IF;
    SELECT string_agg(format('%I', coalesce(c.conname, 'dropped')), ', ') INTO found
    FROM (SELECT oid, conname FROM pg_constraint WHERE conrelid = target) c
    FULL JOIN unnest(tiered.constraints) k(oid) ON k.oid = c.oid WHERE c.oid IS NULL OR k.oid IS NULL;
    IF found IS NOT NULL THEN
        PERFORM watershed_control.refuse(format('constraints of tiered table %s cannot be added or dropped', label),
            'Constraints are settled when the table is attached.', format('Constraints: %s.', found));
    END IF;

    changed := watershed_control.check_columns(target, label);
    PERFORM watershed_control.check_indexes(target, label, tiered.event_attnum);
    PERFORM watershed_control.follow_owner(target);
    PERFORM watershed_control.check_rights(target, label);
    PERFORM watershed_control.follow_names(target, changed);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.check_table(oid) FROM PUBLIC;

-- Brings the recorded names in step with the catalog's, and raises the epoch if a name changed or `changed` says so.
CREATE FUNCTION watershed_control.follow_names(target oid, changed bool) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE watershed_control.tables t
    SET schema_name = n.nspname, table_name = c.relname, event_time = e.attname, overflow = o.attname, schema_epoch = t.schema_epoch + 1
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_attribute e, watershed_control.tables u
    LEFT JOIN pg_attribute o ON o.attrelid = u.relid AND o.attnum = u.overflow_attnum
    WHERE t.relid = target AND u.relid = target AND c.oid = target AND e.attrelid = target AND e.attnum = t.event_attnum
      AND (changed OR (t.schema_name, t.table_name, t.event_time, t.overflow) IS DISTINCT FROM (n.nspname, c.relname, e.attname, o.attname))
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.follow_names(oid, bool) FROM PUBLIC;

CREATE FUNCTION watershed_control.check_ddl(tag text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
DECLARE
    command record;
    touched oid;
    tables oid[] := '{}';
    everything bool := tag IN ('GRANT', 'REVOKE', 'DROP OWNED', 'ALTER SCHEMA', 'REASSIGN OWNED');
BEGIN
    FOR command IN SELECT classid, objid, objsubid, object_type, schema_name, object_identity, command_tag FROM pg_event_trigger_ddl_commands() LOOP
        CONTINUE WHEN command.objid IS NULL;
        touched := CASE command.classid
            WHEN 'pg_class'::regclass THEN coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = command.objid), command.objid)
            WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = command.objid)
            WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = command.objid)
            WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = command.objid)
            WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = command.objid)
            WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = command.objid)
        END;
        IF command.command_tag <> 'COMMENT' AND (command.schema_name = 'watershed_parts'
           OR EXISTS (SELECT FROM watershed_control.partitions p WHERE p.part_relid = touched)) THEN
            PERFORM watershed_control.refuse(format('%s is not supported in schema watershed_parts', tag),
                'It holds the partitions of tiered tables, which watershed keeps itself: work on the table.');
        END IF;
        IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = touched
                   AND (EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = i.inhparent)
                        OR EXISTS (SELECT FROM watershed_control.partitions p WHERE p.part_relid = i.inhparent))
                   AND NOT EXISTS (SELECT FROM watershed_control.partitions p WHERE p.part_relid = i.inhrelid)) THEN
            PERFORM watershed_control.refuse('a tiered table takes no partitions but its own', 'watershed makes the day partitions itself; insert into the table.');
        END IF;
        IF EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = touched) AND touched <> ALL (tables) THEN
            tables := tables || touched;
        END IF;
    END LOOP;
    IF everything THEN
        SELECT coalesce(array_agg(relid), '{}') INTO tables FROM watershed_control.tables;
    END IF;
    FOREACH touched IN ARRAY tables LOOP
        PERFORM watershed_control.check_table(touched);
    END LOOP;
END
$$;

CREATE FUNCTION watershed_control.check_drop(tag text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET watershed.maintenance = 'on' AS $$
DECLARE
    gone record;
    label text;
    tables oid[] := '{}';
    touched oid;
BEGIN
    FOR gone IN SELECT classid, objid, objsubid, object_type, schema_name, object_name, object_identity, is_temporary, address_names
                FROM pg_event_trigger_dropped_objects() LOOP
        CONTINUE WHEN gone.is_temporary;
        IF gone.classid = 'pg_class'::regclass THEN
            SELECT format('%I.%I', t.schema_name, t.table_name) INTO label FROM watershed_control.tables t
            WHERE t.relid = gone.objid OR t.relid = (SELECT p.relid FROM watershed_control.partitions p WHERE p.part_relid = gone.objid);
            IF FOUND AND gone.objsubid <> 0 THEN
                PERFORM watershed_control.refuse(format('columns of tiered table %s cannot be dropped', label), 'Leave the column; new rows may leave it NULL.');
            ELSIF FOUND AND EXISTS (SELECT FROM watershed_control.tables t WHERE t.relid = gone.objid) THEN
                PERFORM watershed_control.refuse(format('%s of tiered table %s is not supported', tag, label),
                    format('SELECT watershed.drop_table(%L); its files in the lake stay.', label));
            ELSIF FOUND THEN
                PERFORM watershed_control.refuse(format('partitions of tiered table %s cannot be attached, detached or dropped', label),
                    'watershed keeps the partitions itself.');
            END IF;
        END IF;
        IF gone.object_type = 'index' THEN
            SELECT coalesce(array_agg(t.relid), '{}') INTO tables FROM watershed_control.tables t;
        ELSIF cardinality(gone.address_names) >= 3 THEN
            SELECT tables || t.relid INTO tables FROM watershed_control.tables t
            WHERE t.relid = to_regclass(format('%I.%I', gone.address_names[1], gone.address_names[2]))
               OR t.relid = (SELECT p.relid FROM watershed_control.partitions p
                             WHERE p.part_relid = to_regclass(format('%I.%I', gone.address_names[1], gone.address_names[2])))
            UNION ALL SELECT tables LIMIT 1;
        END IF;
    END LOOP;
    FOR touched IN SELECT DISTINCT unnest(tables) LOOP
        PERFORM watershed_control.check_table(touched);
    END LOOP;
END
$$;

CREATE FUNCTION watershed_control.check_rewrite() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target oid := pg_event_trigger_table_rewrite_oid();
    label text;
BEGIN
    SELECT format('%I.%I', t.schema_name, t.table_name) INTO label FROM watershed_control.tables t
    WHERE t.relid = target OR t.relid = (SELECT p.relid FROM watershed_control.partitions p WHERE p.part_relid = target);
    IF FOUND THEN
        PERFORM watershed_control.refuse(format('tiered table %s cannot be rewritten', label),
            'Types stay as they are, and a new column comes without a volatile default: add a nullable column.');
    END IF;
END
$$;

-- The event triggers themselves run as the caller, who is exempt only where it is watershed's own maintenance.
CREATE FUNCTION watershed_control.on_ddl_end() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT watershed_control.in_maintenance() THEN
        PERFORM watershed_control.check_ddl(TG_TAG);
    END IF;
END
$$;
CREATE FUNCTION watershed_control.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT watershed_control.in_maintenance() THEN
        PERFORM watershed_control.check_drop(TG_TAG);
    END IF;
END
$$;
CREATE FUNCTION watershed_control.on_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT watershed_control.in_maintenance() THEN
        PERFORM watershed_control.check_rewrite();
    END IF;
END
$$;
-- DETACH CONCURRENTLY commits half of itself before an end trigger runs. Only roles that may name partitions come this far.
CREATE FUNCTION watershed_control.on_alter_start() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT watershed_control.in_maintenance() AND current_query() ~* '\mdetach\M.*\mwatershed_parts\M.*\mconcurrently\M' THEN
        PERFORM watershed_control.refuse('partitions of tiered tables cannot be detached', 'watershed keeps the partitions itself.');
    END IF;
END
$$;

CREATE EVENT TRIGGER watershed_alter_start ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION watershed_control.on_alter_start();
CREATE EVENT TRIGGER watershed_drop ON sql_drop EXECUTE FUNCTION watershed_control.on_drop();
CREATE EVENT TRIGGER watershed_rewrite ON table_rewrite EXECUTE FUNCTION watershed_control.on_rewrite();
CREATE EVENT TRIGGER watershed_ddl_end ON ddl_command_end EXECUTE FUNCTION watershed_control.on_ddl_end();
ALTER EVENT TRIGGER watershed_alter_start ENABLE ALWAYS;
ALTER EVENT TRIGGER watershed_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER watershed_rewrite ENABLE ALWAYS;
ALTER EVENT TRIGGER watershed_ddl_end ENABLE ALWAYS;
