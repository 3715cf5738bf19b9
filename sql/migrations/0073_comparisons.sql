-- watershed.comparisons as the catalog shows it, and the statements that are PostgreSQL's since an answer of the lake's differed.

CREATE FUNCTION watershed_control.virtual_comparisons()
RETURNS TABLE (
    id bigint, compared_at timestamptz, pid int, usename text, sql text, fingerprint text, verdict text, lake_us bigint,
    postgres_us bigint, rows bigint, detail text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('comparisons');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_comparisons() TO PUBLIC;

CREATE VIEW watershed.comparisons AS
SELECT id, compared_at, pid, usename, sql, fingerprint, verdict, lake_us, postgres_us, rows, detail
FROM watershed_control.virtual_comparisons();
COMMENT ON VIEW watershed.comparisons IS 'statements that both stores answered in one snapshot: equal, or the first difference';
GRANT SELECT ON watershed.comparisons TO PUBLIC;

CREATE TABLE watershed_control.quarantined (
    fingerprint text PRIMARY KEY,
    statement text NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE watershed_control.quarantined IS 'statements whose answer from the lake differed from PostgreSQL''s: they are PostgreSQL''s until their row is deleted';
GRANT SELECT, INSERT ON watershed_control.quarantined TO watershed_gateway;
