-- Fewer days ahead: every partition, empty or not, is planned for in each statement that does not name a time. With sixty of them a
-- count(*) took three times as long to plan as with twelve. The archiver makes new days when fewer than seven are left.

DO $$
DECLARE
    attach text := pg_get_functiondef((SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'watershed_control'::regnamespace AND position('today + 60' IN p.prosrc) > 0));
    ensure text := pg_get_functiondef('watershed_control.ensure_days(oid, int)'::regprocedure);
BEGIN
    IF position('today + 60' IN attach) = 0 OR position('DEFAULT 60' IN ensure) = 0 THEN
        RAISE EXCEPTION 'the functions that make days are not those of 0004 and 0005';
    END IF;
    EXECUTE replace(attach, 'today + 60', 'today + 15');
    EXECUTE replace(ensure, 'DEFAULT 60', 'DEFAULT 15');
END
$$;

-- Empty days at the end go back into `future`, which has none of their rows.
DO $$
DECLARE
    tiered record;
    part record;
    future regclass;
    event_type oid;
    first_free date;
    has_rows bool;
BEGIN
    PERFORM set_config('watershed.maintenance', 'on', true);
    FOR tiered IN SELECT t.relid::regclass AS parent, t.event_attnum FROM watershed_control.tables t LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tiered.parent);
        SELECT p.part_relid INTO STRICT future FROM watershed_control.partitions p WHERE p.relid = tiered.parent AND p.kind = 'future';
        SELECT atttypid INTO STRICT event_type FROM pg_attribute WHERE attrelid = tiered.parent AND attnum = tiered.event_attnum;
        first_free := NULL;
        EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', tiered.parent, future);
        FOR part IN SELECT p.part_relid, p.day FROM watershed_control.partitions p
                    WHERE p.relid = tiered.parent AND p.kind = 'day' AND p.day > watershed_control.utc_today() + 15 ORDER BY p.day DESC LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part.part_relid::regclass) INTO has_rows;
            EXIT WHEN has_rows;
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', tiered.parent, part.part_relid::regclass);
            EXECUTE format('DROP TABLE %s', part.part_relid::regclass);
            DELETE FROM watershed_control.partitions p WHERE p.part_relid = part.part_relid;
            first_free := part.day;
        END LOOP;
        IF first_free IS NULL THEN
            SELECT max(p.day) + 1 INTO STRICT first_free FROM watershed_control.partitions p WHERE p.relid = tiered.parent AND p.kind = 'day';
        END IF;
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (MAXVALUE)', tiered.parent, future,
            watershed_control.day_bound(event_type, first_free, NULL));
    END LOOP;
    PERFORM set_config('watershed.maintenance', 'off', true);
END
$$;
