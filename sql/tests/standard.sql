-- Roles, control tables, the standard tables: who may do what.
SELECT check_that.equal('roles', string_agg(rolname || ':' || rolsuper || rolcanlogin || rolbypassrls || rolcreaterole || rolcreatedb || rolreplication, ' ' ORDER BY rolname),
    'watershed:falsetruefalsefalsefalsefalse watershed_analyst:falsetruefalsefalsefalsefalse watershed_archiver:falsetruetruefalsefalsefalse watershed_gateway:falsetruefalsefalsefalsefalse watershed_ingest:falsetruefalsefalsefalsefalse watershed_readonly:falsefalsefalsefalsefalsefalse')
FROM pg_roles WHERE rolname LIKE 'watershed%' AND rolname <> 'watershed_admin';
SELECT check_that.equal('database owner', (SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()), 'watershed');
SELECT check_that.equal('standard tables', (SELECT string_agg(relid::regclass || ' ' || event_time || ' ' || overflow || ' ' || lake_path || ' ' || relowner::regrole, ', ' ORDER BY lake_path) FROM watershed_control.tables JOIN pg_class c ON c.oid = relid),
    'events ts event_data public.events watershed, logs ts metadata public.logs watershed');
SELECT check_that.equal('logs', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum), 'ts timestamp with time zone, level text, service text, host text, message text, metadata jsonb, ingested_at timestamp with time zone, _xid xid8, _stream integer, _offset bigint')
FROM pg_attribute WHERE attrelid = 'logs'::regclass AND attnum > 0;
SELECT check_that.equal('events', string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum), 'event_id uuid, ts timestamp with time zone, user_id text, session_id text, event_type text, event_data jsonb, device jsonb, ingested_at timestamp with time zone, _xid xid8, _stream integer, _offset bigint')
FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0;
SELECT check_that.equal('no row trigger on INSERT', (SELECT count(*)::text FROM pg_trigger WHERE tgtype & 4 <> 0 AND tgrelid IN (SELECT relid FROM watershed_control.tables UNION ALL SELECT part_relid FROM watershed_control.partitions)), '0');

CREATE ROLE standard_anybody;
SET ROLE standard_anybody;
SELECT check_that.allowed('SELECT relid, min_archive, floor, schema_epoch, lineage FROM watershed_control.tables');
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['SELECT * FROM watershed_control.tables', 'SELECT lake_path FROM watershed_control.tables',
    'UPDATE watershed_control.tables SET floor = now()', 'SELECT * FROM watershed_control.lake_columns', 'SELECT * FROM watershed_control.partitions',
    'SELECT * FROM watershed_control.archives', 'INSERT INTO watershed_control.archives VALUES (1, 1, ''1:1:'', ''x'', 1)', 'SELECT * FROM watershed_control.leaders',
    'SELECT * FROM watershed_control.streams', 'SELECT * FROM watershed_control.positions', 'UPDATE watershed_control.positions SET next_offset = 5',
    'SELECT * FROM watershed_control.lake_paths', 'SELECT * FROM watershed.dead_letters', 'INSERT INTO watershed.dead_letters (reason) VALUES (''x'')',
    'SELECT watershed_control.current_lineage()', 'CREATE TABLE watershed.mine (a int)', 'CREATE TABLE watershed_control.mine (a int)', 'CREATE TABLE watershed_parts.mine (a int)',
    'SELECT watershed_control.ensure_days(1, 70)', 'SELECT watershed_control.check_table(1)', 'SELECT watershed_control.follow_owner(1)', 'SELECT watershed_control.close_relation(1)',
    'SELECT watershed_control.copy_rights(1, 1)', 'SELECT watershed_control.add_partition(1, ''day'', NULL, NULL)', 'SELECT count(*) FROM logs', 'INSERT INTO logs (ts) VALUES (now())']) s;
RESET ROLE; SET ROLE watershed_analyst;
SELECT check_that.allowed('SELECT count(*) FROM logs');
SELECT check_that.allowed('SELECT _xid, _stream, _offset FROM events');
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['INSERT INTO logs (ts) VALUES (now())', 'DELETE FROM logs', 'UPDATE logs SET level = 1', 'TRUNCATE logs', 'CREATE TABLE public.mine (a int)',
    'SELECT watershed.drop_table(''logs'')', 'SELECT watershed.attach_table(''logs'', ''ts'')', 'SELECT * FROM watershed.dead_letters', 'GRANT SELECT ON logs TO PUBLIC']) s
WHERE s NOT LIKE 'GRANT%';
RESET ROLE; SET ROLE watershed_gateway;
SELECT check_that.allowed('SELECT * FROM ' || t) FROM unnest(ARRAY['watershed_control.tables', 'watershed_control.lake_columns', 'watershed_control.archives', 'watershed_control.streams', 'watershed_control.positions', 'watershed.dead_letters']) t;
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['SELECT count(*) FROM logs', 'UPDATE watershed_control.tables SET min_archive = 1', 'INSERT INTO watershed_control.leaders VALUES (1, ''archiver'', 1)']) s;
RESET ROLE; SET ROLE watershed_archiver;
SELECT check_that.allowed('SELECT count(*) FROM logs');
SELECT check_that.allowed('SELECT watershed_control.current_lineage()');
SELECT check_that.allowed('INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence) SELECT relid, 1, pg_current_snapshot(), lineage, 1 FROM watershed_control.tables');
SELECT check_that.allowed('INSERT INTO watershed_control.leaders (relid, kind, fence) SELECT relid, ''archiver'', 1 FROM watershed_control.tables ON CONFLICT (relid, kind) DO UPDATE SET fence = leaders.fence + 1');
SELECT check_that.refused('INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence) SELECT relid, 1, ''soon'', lineage, 1 FROM watershed_control.tables', '23514');
SELECT check_that.refused('UPDATE watershed_control.archives SET boundary = ''1:1:''', '42501');
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['INSERT INTO logs (ts) VALUES (now())', 'UPDATE watershed_control.positions SET next_offset = 5', 'UPDATE watershed_control.tables SET min_archive = 1']) s;
INSERT INTO watershed_control.leaders (relid, kind, fence) SELECT relid, 'compactor', 5 FROM watershed_control.tables;
SELECT check_that.refused('UPDATE watershed_control.leaders SET fence = 4', '55000', '%may not fall%');
SELECT check_that.allowed('UPDATE watershed_control.leaders SET fence = 6');
RESET ROLE; SET ROLE watershed_ingest;
SELECT check_that.allowed('INSERT INTO logs (ts, _stream, _offset) VALUES (now(), 1, 5)');
SELECT check_that.allowed('UPDATE watershed_control.positions SET next_offset = 5 WHERE stream = 1 AND next_offset = 0');
SELECT check_that.allowed('INSERT INTO watershed.dead_letters (table_name, source, position, stage, reason, raw) VALUES (''logs'', ''f'', ''line 3'', ''map'', ''no ts'', ''x'')');
SELECT check_that.allowed('INSERT INTO watershed_control.streams (kind, relid, topic, partition, start_offset) VALUES (''kafka'', ''logs''::regclass, ''logs.raw'', 0, 0)');
SELECT check_that.allowed('SELECT * FROM watershed_control.lake_columns, watershed_control.tables');
SELECT check_that.refused(s, '42501') FROM unnest(ARRAY['SELECT count(*) FROM logs', 'DELETE FROM logs', 'INSERT INTO watershed_control.archives VALUES (1, 1, ''1:1:'', ''x'', 1)', 'UPDATE watershed_control.tables SET floor = now()']) s;
RESET ROLE; SET ROLE watershed;
SELECT check_that.allowed('SELECT * FROM watershed.dead_letters');
SELECT check_that.allowed('DELETE FROM watershed.dead_letters');
SELECT check_that.allowed('INSERT INTO logs VALUES (now(), ''INFO'')');
SELECT check_that.allowed('CREATE TABLE public.mine (a int)');
SELECT check_that.refused('INSERT INTO logs (ts, _offset) VALUES (now(), 3)', '42501');
SELECT check_that.refused('SELECT * FROM watershed_control.archives', '42501');
SELECT check_that.refused('ALTER EVENT TRIGGER watershed_ddl_end DISABLE', '42501');
SELECT check_that.equal('lineage', (SELECT (lineage ~ '^[0-9]+/1$')::text FROM watershed_control.tables LIMIT 1), 'true');
RESET ROLE;
