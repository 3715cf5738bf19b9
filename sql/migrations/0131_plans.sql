-- watershed.queries shows the lake's plan of statements run under `SET watershed.log_plan = on`.

-- The view is replaced, not dropped: others may stand on it.
ALTER FUNCTION watershed_control.virtual_queries() RENAME TO virtual_queries_before;

CREATE FUNCTION watershed_control.virtual_queries()
RETURNS TABLE (
    id bigint, started_at timestamptz, pid int, usename text, datname text, protocol text, sql text, fingerprint text,
    route text, reasons text, classify_us bigint, probe_us bigint, plan_us bigint, tail_us bigint, first_row_us bigint,
    total_us bigint, rows bigint, bytes bigint, lake_version bigint, boundary text, lake_files bigint,
    lake_row_groups bigint, lake_bytes bigint, tail_rows bigint, fell_back bool, sqlstate text, error text, lake_plan text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('queries');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_queries() TO PUBLIC;

CREATE OR REPLACE VIEW watershed.queries AS
SELECT id, started_at, pid, usename, datname, protocol, sql, fingerprint, route, reasons, classify_us, probe_us, plan_us,
       tail_us, first_row_us, total_us, rows, bytes, lake_version, boundary, lake_files, lake_row_groups, lake_bytes,
       tail_rows, fell_back, sqlstate, error, lake_plan
FROM watershed_control.virtual_queries();
COMMENT ON VIEW watershed.queries IS 'the last statements the gateway saw: route, reasons, time of each stage, and the lake''s plan where watershed.log_plan was on';
DROP FUNCTION watershed_control.virtual_queries_before();
