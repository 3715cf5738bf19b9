-- Roles and schemas. Knows who exists and who may look into which schema; grants on single tables stand beside the tables.
-- Runs as a superuser inside the product's own database. Passwords are never set here.

DO $$
DECLARE
    wanted record;
BEGIN
    IF pg_catalog.current_setting('server_version_num')::int < 150000 THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('PostgreSQL %s is too old for watershed', pg_catalog.current_setting('server_version')),
            HINT = 'Use PostgreSQL 15 or newer.';
    END IF;
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('database %I has encoding %s', pg_catalog.current_database(), pg_catalog.current_setting('server_encoding')),
            HINT = 'The lake keeps UTF-8 only: create the database with ENCODING ''UTF8''.';
    END IF;
    FOR wanted IN
        SELECT * FROM (VALUES
            ('watershed',          'LOGIN',           'owner of the database and of the standard tables; an ordinary role'),
            ('watershed_ingest',   'LOGIN',           'service: writes rows with their provenance, positions, loads, dead letters'),
            ('watershed_archiver', 'LOGIN BYPASSRLS', 'service: reads tiered tables, writes boundaries, leads archiver and compactor'),
            ('watershed_gateway',  'LOGIN',           'service: reads the control schema'),
            ('watershed_readonly', 'NOLOGIN',         'group: may read the standard tables'),
            ('watershed_analyst',  'LOGIN',           'a person who reads; member of watershed_readonly')
        ) AS r(name, attributes, about)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted.name, wanted.attributes);
            EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.about);
        END IF;
    END LOOP;
END
$$;

-- A role of that name that was here before must not be more than it should be.
ALTER ROLE watershed_archiver BYPASSRLS;
GRANT watershed_readonly TO watershed_analyst;

DO $$
BEGIN
    EXECUTE pg_catalog.format('ALTER DATABASE %I OWNER TO watershed', pg_catalog.current_database());
    EXECUTE pg_catalog.format('ALTER DATABASE %I SET watershed.route = %L', pg_catalog.current_database(), 'auto');
    -- The owner is named like a schema of ours: by the server's default path, its own tables would belong there.
    EXECUTE pg_catalog.format('ALTER ROLE watershed IN DATABASE %I SET search_path = public', pg_catalog.current_database());
END
$$;
GRANT SET ON PARAMETER watershed.route TO PUBLIC;

CREATE SCHEMA watershed;
COMMENT ON SCHEMA watershed IS 'what people use: attach_table, drop_table, dead letters, virtual tables';
GRANT USAGE ON SCHEMA watershed TO PUBLIC;

CREATE SCHEMA watershed_control;
COMMENT ON SCHEMA watershed_control IS 'the facts the services share; out of users'' reach but for the fence columns of tables';
GRANT USAGE ON SCHEMA watershed_control TO PUBLIC;

CREATE SCHEMA watershed_parts;
COMMENT ON SCHEMA watershed_parts IS 'the partitions of tiered tables; nobody names them, rows come and go through the parent';

-- The gateway reads every control table, those of later migrations too; the archiver and ingest read them to find their work.
ALTER DEFAULT PRIVILEGES IN SCHEMA watershed_control
    GRANT SELECT ON TABLES TO watershed_gateway, watershed_archiver, watershed_ingest;
