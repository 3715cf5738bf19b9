-- Append-only: what UPDATE, DELETE and TRUNCATE meet on a tiered table and on every partition of it, whoever asks.
-- There is no INSERT trigger: it would cost COPY a third of its speed.

-- Our own moves of rows: a superuser's function under the maintenance setting. The setting alone opens nothing.
CREATE FUNCTION watershed_control.in_maintenance() RETURNS bool
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT current_setting('watershed.maintenance', true) IS NOT DISTINCT FROM 'on'
       AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
$$;

CREATE FUNCTION watershed_control.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tiered text;
BEGIN
    IF watershed_control.in_maintenance() THEN
        IF TG_LEVEL = 'ROW' AND TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    SELECT format('%I.%I', n.nspname, c.relname) INTO tiered
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = coalesce(pg_partition_root(TG_RELID), TG_RELID);
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = format('%s is not supported on tiered table %s', TG_OP, tiered),
        DETAIL = 'Rows of a tiered table are also kept in the lake; they are only ever added.',
        HINT = format('Insert a correcting row instead. To remove the whole table use SELECT watershed.drop_table(%L).', tiered);
END
$$;
REVOKE EXECUTE ON FUNCTION watershed_control.refuse_change() FROM PUBLIC;
