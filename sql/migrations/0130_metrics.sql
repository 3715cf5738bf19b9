-- watershed.metrics as the catalog shows it.

CREATE FUNCTION watershed_control.virtual_metrics()
RETURNS TABLE (name text, kind text, labels text, value float8)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('metrics');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_metrics() TO PUBLIC;

CREATE VIEW watershed.metrics AS
SELECT name, kind, labels, value
FROM watershed_control.virtual_metrics();
COMMENT ON VIEW watershed.metrics IS 'the figures of /metrics of the process that answers: labels as a JSON object, of histograms the number and the sum';
GRANT SELECT ON watershed.metrics TO PUBLIC;
