-- Asks a forward's condition about one row, so that a row which it fails on (a cast, a division) costs only itself.

CREATE FUNCTION watershed_control.judge(condition text, subject anyelement) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
    holds bool;
BEGIN
    -- On lines of its own: a comment at its end must not take the parenthesis along.
    EXECUTE E'SELECT true FROM (SELECT ($1).*) t WHERE (\n' || condition || E'\n)' INTO holds USING subject;
    RETURN CASE WHEN holds THEN '' END;
EXCEPTION WHEN data_exception OR raise_exception THEN
    RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION watershed_control.judge(text, anyelement) IS 'empty: the condition holds; null: it does not; else why PostgreSQL cannot tell';
REVOKE EXECUTE ON FUNCTION watershed_control.judge(text, anyelement) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.judge(text, anyelement) TO watershed_archiver;
