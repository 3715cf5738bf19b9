-- What the tests say things with. Every check prints a line that begins with "ok", or ends the script.
\set QUIET on
\pset tuples_only on
\pset format unaligned
SET client_min_messages = warning;

CREATE SCHEMA check_that;
GRANT USAGE ON SCHEMA check_that TO PUBLIC;

-- The two texts are equal.
CREATE FUNCTION check_that.equal(what text, got text, expected text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF got IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'FAILED: %: got [%], expected [%]', what, got, expected;
    END IF;
    RETURN 'ok ' || what;
END
$$;

-- The statement fails with that SQLSTATE, a message like the pattern, and (where asked for) a hint like the other.
CREATE FUNCTION check_that.refused(statement text, state text, message_like text DEFAULT '%', hint_like text DEFAULT '%') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    got_state text; got_message text; got_hint text;
BEGIN
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS got_state = RETURNED_SQLSTATE, got_message = MESSAGE_TEXT, got_hint = PG_EXCEPTION_HINT;
        IF got_state <> state OR got_message NOT LIKE message_like OR got_hint NOT LIKE hint_like
           OR (state = '0A000' AND got_hint = '') THEN
            RAISE EXCEPTION 'FAILED: [%] raised % [%] hint [%]; expected % [%] hint [%]',
                statement, got_state, got_message, got_hint, state, message_like, hint_like;
        END IF;
        RETURN pg_catalog.format('ok refused %s: %s -- %s', statement, got_state, got_message);
    END;
    RAISE EXCEPTION 'FAILED: [%] was allowed; expected %', statement, state;
END
$$;

-- The statement works (and is undone).
CREATE FUNCTION check_that.allowed(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    got_state text; got_message text;
BEGIN
    BEGIN
        EXECUTE statement;
        RAISE EXCEPTION USING ERRCODE = 'ZZ001', MESSAGE = 'undo';
    EXCEPTION
        WHEN SQLSTATE 'ZZ001' THEN
            RETURN 'ok allowed ' || statement;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS got_state = RETURNED_SQLSTATE, got_message = MESSAGE_TEXT;
            RAISE EXCEPTION 'FAILED: [%] raised % [%]', statement, got_state, got_message;
    END;
END
$$;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA check_that TO PUBLIC;
