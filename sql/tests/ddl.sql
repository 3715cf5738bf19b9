-- DDL on a tiered table: what is allowed and leaves the control tables in step, and what is refused, for owner and superuser.
CREATE ROLE ddl_owner; CREATE ROLE ddl_writer; CREATE ROLE ddl_heir; CREATE ROLE ddl_reader;
GRANT ddl_heir TO ddl_owner;
CREATE SCHEMA d AUTHORIZATION ddl_owner;
GRANT CREATE, USAGE ON SCHEMA d TO ddl_heir, ddl_writer;
CREATE FUNCTION d.mine(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE TYPE d.comp AS (ts timestamptz, a int, j jsonb);
GRANT ALL ON FUNCTION d.mine(int) TO ddl_owner;
SET ROLE ddl_owner;
CREATE TABLE d.t (ts timestamptz, a int CHECK (a > 0), j jsonb, nn text NOT NULL DEFAULT '');
CREATE INDEX t_a ON d.t (a);
GRANT INSERT, SELECT ON d.t TO ddl_writer;
SELECT check_that.equal('attach', watershed.attach_table('d.t', 'ts', 'j')::text, 'd.t');
CREATE TABLE d.other (a int PRIMARY KEY); INSERT INTO d.other VALUES (1);
INSERT INTO d.t VALUES (now(), 1);
RESET ROLE;

CREATE FUNCTION check_that.epoch() RETURNS text LANGUAGE sql SECURITY DEFINER AS
$$SELECT schema_name || '.' || table_name || ' ' || event_time || ' ' || coalesce(overflow, '-') || ' ' || schema_epoch FROM watershed_control.tables WHERE relid = (SELECT min(relid) FROM watershed_control.tables WHERE lake_path = 'd.t')$$;
CREATE FUNCTION check_that.lake() RETURNS text LANGUAGE sql SECURITY DEFINER AS
$$SELECT string_agg(lake_name || ':' || type_oid::regtype, ' ' ORDER BY attnum) FROM watershed_control.lake_columns WHERE relid = (SELECT relid FROM watershed_control.tables WHERE lake_path = 'd.t')$$;
SELECT check_that.equal('at first', check_that.epoch(), 'd.t ts j 1');

-- refused, whoever asks
CREATE FUNCTION check_that.refused_ddl() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE c text[];
BEGIN
    FOREACH c SLICE 1 IN ARRAY ARRAY[
        ['ALTER TABLE d.t DROP COLUMN a', 'columns of tiered table d.t cannot be dropped'],
        ['ALTER TABLE d.t DROP COLUMN _stream', 'columns of tiered table d.t cannot be dropped'],
        ['ALTER TABLE d.t ALTER COLUMN a TYPE bigint', 'tiered table d.t cannot be rewritten'],
        ['ALTER TABLE d.t ALTER COLUMN nn TYPE varchar', 'the type of column nn%'],
        ['ALTER TABLE d.t ALTER COLUMN nn TYPE text COLLATE "C"', '%'],
        ['ALTER TABLE d.t ALTER COLUMN a SET NOT NULL', 'column a of tiered table d.t cannot become NOT NULL'],
        ['ALTER TABLE d.t ALTER COLUMN nn DROP NOT NULL', 'column nn of tiered table d.t cannot cease to be NOT NULL'],
        ['ALTER TABLE d.t ALTER COLUMN _xid DROP DEFAULT', 'provenance column _xid%'],
        ['ALTER TABLE d.t ALTER COLUMN _stream SET DEFAULT 7', 'provenance column _stream%'],
        ['ALTER TABLE d.t RENAME COLUMN _offset TO o', 'provenance column _offset%'],
        ['ALTER TABLE d.t RENAME COLUMN a TO _day', 'column name _day%'],
        ['ALTER TABLE d.t ADD COLUMN x int NOT NULL', '%'],
        ['ALTER TABLE d.t ADD COLUMN x int DEFAULT 5', '%cannot give its default%'],
        ['ALTER TABLE d.t ADD COLUMN x float8 DEFAULT random()', '%cannot be rewritten'],
        ['ALTER TABLE d.t ADD COLUMN x timestamptz DEFAULT now()', '%cannot give its default%'],
        ['ALTER TABLE d.t ADD COLUMN x int DEFAULT d.mine(NULL)', '%'],
        ['ALTER TABLE d.t ADD COLUMN x serial', '%'],
        ['ALTER TABLE d.t ADD COLUMN x int GENERATED ALWAYS AS (a) STORED', '%'],
        ['ALTER TABLE d.t ADD COLUMN x int GENERATED ALWAYS AS IDENTITY', '%'],
        ['ALTER TABLE d.t ADD COLUMN x inet', '%inet%'],
        ['ALTER TABLE d.t ADD COLUMN x int[]', '%integer[]%'],
        ['ALTER TABLE d.t ADD COLUMN "_Xid" int', 'column name%'],
        ['ALTER TABLE d.t ADD COLUMN x int CHECK (x > 0)', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t ADD COLUMN x int REFERENCES d.other', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t ADD CHECK (a < 100)', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t ADD CHECK (a < 100) NOT VALID', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t ADD UNIQUE (ts, a)', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t ADD PRIMARY KEY (ts, nn)', '%'],
        ['ALTER TABLE d.t ADD FOREIGN KEY (a) REFERENCES d.other', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t DROP CONSTRAINT watershed_xid', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t DROP CONSTRAINT watershed_event_time', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t DROP CONSTRAINT t_a_check', 'constraints of tiered table d.t%'],
        ['ALTER TABLE d.t DISABLE TRIGGER ALL', '%append-only%'],
        ['ALTER TABLE d.t DISABLE TRIGGER USER', '%append-only%'],
        ['ALTER TABLE d.t DISABLE TRIGGER watershed_append_only_row', '%append-only%'],
        ['ALTER TABLE d.t ENABLE TRIGGER watershed_append_only_statement', '%append-only%'],
        ['ALTER TABLE ONLY d.t DISABLE TRIGGER watershed_append_only_statement', '%append-only%'],
        ['DROP TRIGGER watershed_append_only_row ON d.t', '%append-only%'],
        ['DROP TRIGGER watershed_append_only_statement ON d.t', '%append-only%'],
        ['CREATE TRIGGER mine AFTER INSERT ON d.t FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger()', '%cannot have triggers'],
        ['CREATE TRIGGER mine BEFORE INSERT ON d.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()', '%'],
        ['ALTER TABLE d.t ENABLE ROW LEVEL SECURITY', '%row-level security'],
        ['ALTER TABLE d.t FORCE ROW LEVEL SECURITY', '%row-level security'],
        ['CREATE POLICY p ON d.t USING (true)', '%row-level security'],
        ['CREATE RULE r AS ON INSERT TO d.t DO INSTEAD NOTHING', '%cannot have rules'],
        ['CREATE UNIQUE INDEX ON d.t (ts)', '%unique index%'],
        ['CREATE INDEX ON d.t (d.mine(a))', '%uses function d.mine%'],
        ['CREATE INDEX ON ONLY d.t (nn) WHERE d.mine(a) = 1', '%uses function d.mine%'],
        ['DROP INDEX d.t__xid_idx', '%needs its index%'],
        ['DROP INDEX d.t_ts_idx', '%needs its index%'],
        ['DROP TABLE d.t', 'DROP TABLE of tiered table d.t is not supported'],
        ['DROP TABLE d.other, d.t', 'DROP TABLE of tiered table d.t is not supported'],
        ['DROP SCHEMA d CASCADE', 'DROP SCHEMA of tiered table d.t is not supported'],
        ['DROP OWNED BY ddl_owner CASCADE', 'DROP OWNED of tiered table%'],
        ['CREATE TABLE d.part PARTITION OF d.t FOR VALUES FROM (''1980-01-01'') TO (''1981-01-01'')', '%'],
        ['CREATE TABLE d.part PARTITION OF d.t DEFAULT', '%'],
        ['ALTER TABLE d.t ATTACH PARTITION d.other DEFAULT', '%'],
        ['ALTER TABLE d.t OF d.comp', '%'],
        ['GRANT INSERT ON d.t TO ddl_reader', 'INSERT on all of tiered table d.t would open its provenance columns to ddl_reader'],
        ['GRANT ALL ON d.t TO ddl_reader', 'INSERT on all of tiered table d.t%'],
        ['GRANT ALL ON ALL TABLES IN SCHEMA d TO ddl_reader', 'INSERT on all of tiered table d.t%'],
        ['GRANT INSERT ON d.t TO ddl_owner', 'INSERT on all of tiered table d.t%'],
        ['GRANT INSERT ON d.t TO PUBLIC', 'INSERT on all of tiered table d.t%PUBLIC'],
        ['GRANT INSERT (a, _xid) ON d.t TO ddl_reader', 'INSERT on all of tiered table d.t%'],
        ['GRANT INSERT (_offset) ON d.t TO ddl_owner', 'INSERT on all of tiered table d.t%'],
        ['REVOKE SELECT ON d.t FROM watershed_archiver', 'the services need their rights%'],
        ['REVOKE ALL ON d.t FROM watershed_ingest', 'the services need their rights%']
    ] LOOP
        IF c[2] = '%' THEN  -- PostgreSQL itself has a word here, whichever
            BEGIN
                EXECUTE c[1];
                RAISE EXCEPTION 'FAILED: [%] was allowed', c[1] USING ERRCODE = 'ZZ002';
            EXCEPTION WHEN SQLSTATE 'ZZ002' THEN RAISE;
                      WHEN OTHERS THEN RETURN NEXT 'ok refused ' || c[1] || ': ' || SQLSTATE || ' -- ' || SQLERRM;
            END;
        ELSE
            RETURN NEXT check_that.refused(c[1], '0A000', c[2]);
        END IF;
    END LOOP;
END
$$;
SET ROLE ddl_owner;
SELECT * FROM check_that.refused_ddl();
SET watershed.maintenance = 'on';
SELECT * FROM check_that.refused_ddl();
RESET watershed.maintenance;
RESET ROLE;
SELECT * FROM check_that.refused_ddl();
SET session_replication_role = replica;
SELECT * FROM check_that.refused_ddl();
RESET session_replication_role;

-- partitions: their owner cannot even name them; a superuser may not touch them
SET ROLE ddl_owner;
SELECT check_that.refused(replace(s, '$', 'watershed_parts.t_cold'), '42501') FROM unnest(ARRAY[
    'ALTER TABLE $ DISABLE TRIGGER ALL', 'GRANT ALL ON $ TO ddl_owner', 'DROP TABLE $', 'ALTER TABLE d.t DETACH PARTITION $',
    'ALTER TABLE d.t DETACH PARTITION $ CONCURRENTLY', 'CREATE INDEX ON $ (a)', 'COMMENT ON TABLE $ IS ''x''', 'SELECT 1 FROM $']) s
WHERE s NOT LIKE '%CONCURRENTLY';
SELECT check_that.refused('CREATE TABLE watershed_parts.mine (a int)', '0A000', '%watershed_parts%');
SELECT check_that.refused('CREATE VIEW watershed_parts.mine AS SELECT 1', '0A000', '%watershed_parts%');
RESET ROLE;
\set part watershed_parts.d_t_cold
SELECT check_that.refused(replace(s, '$', :'part'), '0A000') FROM unnest(ARRAY[
    'ALTER TABLE $ DISABLE TRIGGER ALL', 'GRANT ALL ON $ TO ddl_owner', 'GRANT SELECT (a) ON $ TO ddl_reader', 'DROP TABLE $', 'ALTER TABLE d.t DETACH PARTITION $',
    'CREATE INDEX ON $ (a)', 'DROP TRIGGER watershed_append_only_statement ON $', 'ALTER TABLE $ OWNER TO ddl_reader', 'ALTER TABLE $ RENAME TO x',
    'ALTER TABLE $ SET SCHEMA d', 'ALTER TABLE $ ENABLE ROW LEVEL SECURITY', 'ALTER TABLE $ ADD CHECK (a > 0)', 'DROP SCHEMA watershed_parts CASCADE',
    'CREATE TABLE d.heir () INHERITS ($)', 'CREATE TRIGGER x BEFORE INSERT ON $ FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
    'CREATE RULE r AS ON INSERT TO $ DO INSTEAD NOTHING']) s
WHERE s NOT LIKE 'CREATE TABLE d.heir%';
\set ON_ERROR_STOP off
ALTER TABLE d.t DETACH PARTITION watershed_parts.d_t_cold CONCURRENTLY;
\set detached :SQLSTATE
\set ON_ERROR_STOP on
SELECT check_that.equal('DETACH CONCURRENTLY', :'detached', '0A000');
SELECT check_that.equal('nothing is half detached', (SELECT count(*) FROM pg_inherits WHERE inhdetachpending)::text, '0');
SELECT check_that.refused('DROP FUNCTION watershed_control.refuse_change() CASCADE', '0A000', '%append-only%');
SELECT check_that.equal('untouched', check_that.epoch(), 'd.t ts j 1');

-- allowed
SET ROLE ddl_owner;
ALTER TABLE d.t ADD COLUMN later text;
SELECT check_that.equal('a new column', check_that.epoch() || ' ' || check_that.lake(), 'd.t ts j 2 ts:timestamp with time zone a:integer j:jsonb nn:text _xid:xid8 _stream:integer _offset:bigint later:text');
SELECT check_that.equal('the writer may fill it, the reader not', has_column_privilege('ddl_writer', 'd.t', 'later', 'INSERT')::text || has_column_privilege('ddl_owner', 'd.t', 'later', 'INSERT') || has_column_privilege('ddl_reader', 'd.t', 'later', 'INSERT'), 'truetruefalse');
ALTER TABLE d.t ALTER COLUMN later SET DEFAULT 'new';
INSERT INTO d.t (ts, a) VALUES (now(), 2);
SELECT check_that.equal('old rows stay NULL', (SELECT string_agg(coalesce(later, 'NULL'), ' ' ORDER BY a) FROM d.t), 'NULL new');
ALTER TABLE d.t ALTER COLUMN later DROP DEFAULT;
ALTER TABLE d.t RENAME COLUMN later TO "latest news";
SELECT check_that.equal('a renamed column keeps its lake name', check_that.epoch() || ' ' || right(check_that.lake(), 10), 'd.t ts j 2 later:text');
ALTER TABLE d.t ADD COLUMN later numeric(5,1), ADD COLUMN "LATER" int, ADD COLUMN IF NOT EXISTS a int;
SELECT check_that.equal('lake names are unique without case', check_that.epoch() || ' ' || substring(check_that.lake() FROM 'later:.*'), 'd.t ts j 3 later:text later_9:numeric LATER_10:integer');
ALTER TABLE d.t RENAME COLUMN ts TO at;
ALTER TABLE d.t RENAME COLUMN j TO rest;
SELECT check_that.equal('event time and overflow follow', check_that.epoch(), 'd.t at rest 5');
ALTER TABLE d.t RENAME TO u;
SELECT check_that.equal('the table''s name follows', check_that.epoch(), 'd.u at rest 6');
RESET ROLE;
ALTER SCHEMA d RENAME TO e;
SELECT check_that.equal('the schema''s name follows', check_that.epoch(), 'e.u at rest 7');
CREATE SCHEMA f AUTHORIZATION ddl_owner;
GRANT CREATE, USAGE ON SCHEMA f TO ddl_heir;
SET ROLE ddl_owner;
ALTER TABLE e.u SET SCHEMA f;
SELECT check_that.equal('SET SCHEMA follows', check_that.epoch(), 'f.u at rest 8');
COMMENT ON TABLE f.u IS 'new';
COMMENT ON COLUMN f.u.a IS 'new';
CREATE INDEX u_a_more ON f.u (a, nn);
CREATE INDEX ON f.u USING brin (at);
CREATE INDEX u_xid_more ON f.u (_xid);
DROP INDEX f.t__xid_idx;
SELECT check_that.refused('DROP INDEX f.u_xid_more', '0A000', '%needs its index on _xid');
DROP INDEX f.t_a;
CREATE STATISTICS f.some ON a, nn FROM f.u;
ALTER TABLE f.u ALTER COLUMN a SET STATISTICS 200, ALTER COLUMN nn SET STORAGE external;
ALTER TABLE f.u RENAME CONSTRAINT t_a_check TO u_a_check;
CREATE VIEW f.v AS SELECT * FROM f.u;
ANALYZE f.u;
GRANT SELECT ON f.u TO ddl_reader;
GRANT INSERT (at, a) ON f.u TO ddl_reader;
REVOKE INSERT (a) ON f.u FROM ddl_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA f TO ddl_reader;
GRANT UPDATE, DELETE, TRUNCATE ON f.u TO ddl_reader;
SELECT check_that.refused('DELETE FROM f.u', '0A000');
ALTER TABLE f.u ADD COLUMN last date;
SELECT check_that.equal('a column writer does not get new columns', has_column_privilege('ddl_reader', 'f.u', 'last', 'INSERT')::text, 'false');
ALTER TABLE f.u OWNER TO ddl_heir;
RESET ROLE;
SELECT check_that.equal('partitions follow the owner', (SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE oid IN (SELECT part_relid FROM watershed_control.partitions WHERE relid = 'f.u'::regclass)), 'ddl_heir');
SELECT check_that.equal('and stay closed', (SELECT count(*) FROM watershed_control.partitions WHERE relid = 'f.u'::regclass AND has_table_privilege('ddl_heir', part_relid, 'SELECT'))::text, '0');
SET ROLE ddl_heir;
ALTER TABLE f.u ADD COLUMN "one,more" text;
CREATE INDEX ON f.u (nn);
INSERT INTO f.u (at, a, "one,more") VALUES (now(), 5, 'x');
SELECT check_that.refused('INSERT INTO f.u (at, _stream) VALUES (now(), 5)', '42501');
RESET ROLE;
SELECT check_that.equal('a lake name is safe', substring(check_that.lake() FROM 'one_.*'), 'one_more:text');
REASSIGN OWNED BY ddl_heir TO ddl_owner;
SELECT check_that.equal('REASSIGN OWNED keeps table and partitions together', (SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE oid = 'f.u'::regclass OR oid IN (SELECT part_relid FROM watershed_control.partitions WHERE relid = 'f.u'::regclass)), 'ddl_owner');
SET ROLE ddl_owner;
SELECT check_that.refused($$SELECT watershed.drop_table('f.u')$$, '2BP01');
DROP VIEW f.v;
BEGIN;
SELECT check_that.equal('drop_table', watershed.drop_table('f.u'), 'd.t');
SELECT check_that.equal('gone', coalesce(to_regclass('f.u')::text, 'gone'), 'gone');
ROLLBACK;
SELECT check_that.equal('and back', (SELECT count(*) FROM f.u)::text, '3');
-- what does not concern tiered tables is as ever
CREATE TABLE f.mine (id int PRIMARY KEY, v text UNIQUE);
CREATE TABLE f.ref (id int REFERENCES f.mine);
ALTER TABLE f.mine ALTER COLUMN v TYPE varchar(10), ADD COLUMN x int NOT NULL DEFAULT 5;
GRANT ALL ON f.mine TO ddl_reader;
CREATE TEMP TABLE t (LIKE f.mine INCLUDING ALL);
DROP TABLE f.ref, f.mine;
CREATE TABLE f.p (a int) PARTITION BY LIST (a);
CREATE TABLE f.p1 PARTITION OF f.p DEFAULT;
ALTER TABLE f.p DETACH PARTITION f.p1;
DROP TABLE f.p, f.p1;
RESET ROLE;
SELECT check_that.refused($$SELECT watershed_control.check_ddl('ALTER TABLE')$$, '39P03');
