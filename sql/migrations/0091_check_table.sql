-- The check of a tiered table after DDL, now that its oldest part may be partitioned itself, with a foreign table for what is gone.

CREATE OR REPLACE FUNCTION watershed_control.check_table(target oid) RETURNS void
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
    FROM (SELECT relid::oid AS inhrelid FROM pg_partition_tree(target) WHERE level > 0) i
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
    FROM (SELECT target AS oid UNION ALL SELECT part_relid FROM watershed_control.partitions WHERE relid = target AND kind <> 'gone') c
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
