-- Virtual tables as the catalog shows them. Their rows live in the gateway; PostgreSQL knows the shape only, and says so
-- rather than show an empty answer. Each has its own function, so that the gateway can tell them apart in a query tree.

CREATE FUNCTION watershed_control.refuse_virtual(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = format('PostgreSQL cannot answer this statement over the virtual table watershed.%s', name),
        HINT = 'Its rows live in the watershed gateway: connect through the gateway, and read it with a plain SELECT (filter, group, order) outside functions and cursors.';
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.refuse_virtual(text) TO PUBLIC;

CREATE FUNCTION watershed_control.virtual_queries()
RETURNS TABLE (
    id bigint, started_at timestamptz, pid int, usename text, datname text, protocol text, sql text, fingerprint text,
    route text, reasons text, classify_us bigint, probe_us bigint, plan_us bigint, tail_us bigint, first_row_us bigint,
    total_us bigint, rows bigint, bytes bigint, lake_version bigint, boundary text, lake_files bigint,
    lake_row_groups bigint, lake_bytes bigint, tail_rows bigint, fell_back bool, sqlstate text, error text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('queries');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_queries() TO PUBLIC;

CREATE FUNCTION watershed_control.virtual_route_stats()
RETURNS TABLE (
    fingerprint text, route text, sample_sql text, calls bigint, rows bigint, mean_us bigint, p50_us bigint,
    p95_us bigint, p99_us bigint, min_us bigint, max_us bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('route_stats');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_route_stats() TO PUBLIC;

CREATE VIEW watershed.queries AS
SELECT id, started_at, pid, usename, datname, protocol, sql, fingerprint, route, reasons, classify_us, probe_us, plan_us,
       tail_us, first_row_us, total_us, rows, bytes, lake_version, boundary, lake_files, lake_row_groups, lake_bytes,
       tail_rows, fell_back, sqlstate, error
FROM watershed_control.virtual_queries();
COMMENT ON VIEW watershed.queries IS 'the last statements the gateway saw: route, reasons, time of each stage';
GRANT SELECT ON watershed.queries TO PUBLIC;

CREATE VIEW watershed.route_stats AS
SELECT fingerprint, route, sample_sql, calls, rows, mean_us, p50_us, p95_us, p99_us, min_us, max_us
FROM watershed_control.virtual_route_stats();
COMMENT ON VIEW watershed.route_stats IS 'time by statement shape and route';
GRANT SELECT ON watershed.route_stats TO PUBLIC;
