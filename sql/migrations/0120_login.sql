-- What a login through the gateway needs of PostgreSQL, and what it leaves there: verifiers for the exchange that cannot be relayed
-- (gateway/src/session/proof.rs), and the client's address.

-- The SCRAM verifier of a role, for the gateway alone; NULL where there is none. Who has it can test guesses of the password, but not log in.
CREATE FUNCTION watershed_control.scram_verifier(role text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = role::name AND rolpassword LIKE 'SCRAM-SHA-256$%'
$$;
REVOKE ALL ON FUNCTION watershed_control.scram_verifier(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION watershed_control.scram_verifier(text) TO watershed_gateway;

-- The gateway starts each session with the setting watershed.client_addr. A session may change the setting, but not the value it falls
-- back to, which the gateway gave: this is what the function looks at. Its own SET undoes everything when it returns.
CREATE FUNCTION watershed.client_addr() RETURNS inet
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET watershed.client_addr = '' AS $$
BEGIN
    RETURN nullif(pg_catalog.set_config('watershed.client_addr', NULL, true), '')::inet;
END
$$;
COMMENT ON FUNCTION watershed.client_addr() IS 'the address that this session''s client has towards the gateway; NULL on a connection past the gateway (which could also make one up)';
GRANT EXECUTE ON FUNCTION watershed.client_addr() TO PUBLIC;
