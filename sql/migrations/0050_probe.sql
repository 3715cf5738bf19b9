-- What the gateway's probe runs on the client's own connection.

-- Keeps the analyzed trees out of the server log: log_min_messages may be lowered for the two messages of a
-- probe, by nobody but the holder of the secret (clients run on the same connection and may call this), only
-- for the current transaction. Returns whether it did. The body holds the secret's SHA-256 only; the stored
-- one below can match no secret.
CREATE FUNCTION watershed_control.hush(secret text, level text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER VOLATILE AS $$
BEGIN
    RETURN false;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.hush(text, text) TO PUBLIC;

-- Puts the hash of a new secret into hush(). Superusers only: the bootstrap calls it.
CREATE FUNCTION watershed_control.set_probe_secret(secret text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF length(secret) < 32 THEN
        RAISE EXCEPTION 'the probe secret needs at least 32 characters' USING ERRCODE = '22023';
    END IF;
    EXECUTE format($body$
        CREATE OR REPLACE FUNCTION watershed_control.hush(secret text, level text) RETURNS boolean
        LANGUAGE plpgsql SECURITY DEFINER VOLATILE AS $f$
        BEGIN
            IF pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(secret, 'UTF8')), 'hex')
               OPERATOR(pg_catalog.=) %L THEN
                PERFORM pg_catalog.set_config('log_min_messages', level, true);
                RETURN true;
            END IF;
            RETURN false;
        END
        $f$ $body$, encode(sha256(convert_to(secret, 'UTF8')), 'hex'));
END
$$;
REVOKE ALL ON FUNCTION watershed_control.set_probe_secret(text) FROM PUBLIC;

-- Ends the client's transaction with an error that the lake's executor raised, so that PostgreSQL and the
-- client agree on the transaction's state. The gateway sends the client its own message.
CREATE FUNCTION watershed_control.fail(sqlstate text, message text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = message;
END
$$;
GRANT EXECUTE ON FUNCTION watershed_control.fail(text, text) TO PUBLIC;
