-- watershed.functions as the catalog shows it: what may run where. Its rows are the gateway's own table of functions.

CREATE FUNCTION watershed_control.virtual_functions()
RETURNS TABLE (kind text, oid bigint, name text, signature text, result text, lake text, reason text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM watershed_control.refuse_virtual('functions');
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.virtual_functions() TO PUBLIC;

CREATE VIEW watershed.functions AS
SELECT kind, oid, name, signature, result, lake, reason FROM watershed_control.virtual_functions();
COMMENT ON VIEW watershed.functions IS 'functions, operators, aggregates and casts: whether the lake may compute them, and why not';
GRANT SELECT ON watershed.functions TO PUBLIC;
