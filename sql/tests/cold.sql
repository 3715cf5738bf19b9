-- The door to cold rows: who may switch it, what stands where, secrets, and what the fence says of a statement's snapshot.
CREATE ROLE cold_keeper;
CREATE ROLE cold_stranger;
CREATE ROLE "Odd ""name";
CREATE SCHEMA n AUTHORIZATION cold_keeper;
GRANT USAGE ON SCHEMA n TO cold_stranger, watershed_gateway;
SET timezone = 'UTC';
SELECT (now() AT TIME ZONE 'UTC')::date AS today \gset
SET ROLE cold_keeper;
CREATE TABLE n.t (ts timestamptz, a int, s text);
SELECT check_that.equal('attach', watershed.attach_table('n.t', 'ts', first_day => date :'today' - 10)::text, 'n.t');
GRANT SELECT (a, ts) ON n.t TO "Odd ""name";
INSERT INTO n.t (ts, a) SELECT date :'today' - d + time '12:00', d FROM unnest(ARRAY[400, 20, 11, 10, 9, 8, 2, 1, 0]) d;
SELECT check_that.refused('SELECT watershed_control.cold_switch(''/tmp'', 1)', '42501');
SELECT check_that.refused('SELECT watershed_control.cold_lay(''n.t''::regclass)', '42501');
SELECT check_that.refused('SELECT watershed_control.cold_secret(10)', '42501');
SELECT check_that.refused('SELECT watershed_control.cold_sync()', '42501');
SELECT check_that.refused('SELECT watershed_control.cold_fence(1, 1, 1, 1, '''')', '42501');
RESET ROLE;

-- Off: nothing of it is there, and a floor has its tripwire.
SELECT check_that.equal('off', (SELECT count(*) FROM watershed_control.cold_door) || ' ' || (SELECT count(*) FROM pg_foreign_server WHERE srvname = 'watershed_cold'), '0 0');
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
SELECT 'n.t'::regclass, 1, pg_current_snapshot()::text, watershed_control.current_lineage(), 1;
SELECT boundary FROM watershed_control.archives WHERE relid = 'n.t'::regclass AND number = 1 \gset
INSERT INTO n.t (ts, a) VALUES (date :'today' - 20 + time '13:00', 21);
SELECT schema_epoch AS epoch FROM watershed_control.tables WHERE relid = 'n.t'::regclass \gset
SELECT check_that.equal('a floor', watershed_control.raise_floor('n.t'::regclass, date :'today' - 8, 1, :'boundary', :epoch, '-infinity', 'test')::text, '1');
SELECT part_relid AS gone FROM watershed_control.partitions WHERE kind = 'gone' \gset
SELECT check_that.equal('the tripwire', watershed_control.is_door(:gone)::text, 'false');
SELECT check_that.equal('boundary', (SELECT min_boundary FROM watershed_control.tables WHERE relid = 'n.t'::regclass), :'boundary');

-- On.
SET ROLE watershed_gateway;
SELECT check_that.refused('SELECT watershed_control.cold_switch(''relative'', 1)', '22023');
SELECT watershed_control.cold_switch('/nowhere/at/all', 1);
SELECT check_that.equal('mappings', (watershed_control.cold_sync() > 2)::text, 'true');
SELECT watershed_control.cold_lay('n.t'::regclass);
SELECT check_that.equal('no more mappings', watershed_control.cold_sync()::text, '0');
RESET ROLE;
SELECT part_relid AS gone FROM watershed_control.partitions WHERE kind = 'gone' \gset
SELECT check_that.equal('the door', watershed_control.is_door(:gone)::text, 'true');
SELECT watershed_control.check_table('n.t'::regclass);
SELECT check_that.equal('all parts are known', (SELECT count(*)::text FROM pg_partition_tree('n.t') WHERE level > 0), (SELECT count(*)::text FROM watershed_control.partitions WHERE relid = 'n.t'::regclass));
SELECT check_that.equal('nobody has rights on it', (SELECT cardinality(relacl)::text FROM pg_class WHERE oid = :gone), '0');
SELECT check_that.equal('nobody may use the server', (SELECT count(*)::text FROM pg_roles r WHERE has_server_privilege(r.oid, 'watershed_cold', 'USAGE') AND NOT rolsuper AND rolname !~ '^pg_'), '0');
SELECT check_that.equal('nobody listens', (SELECT check_that.refused('SELECT count(*) FROM n.t', '08001') ~ '^ok')::text, 'true');
SELECT check_that.equal('above the floor', (SELECT count(*)::text FROM n.t WHERE ts >= date :'today' - 8), '4');
-- Secrets: for who may read, each its own, and shown to nobody.
CREATE VIEW holders AS SELECT r.rolname, m.umoptions FROM pg_user_mapping m JOIN pg_foreign_server s ON s.oid = m.umserver AND s.srvname = 'watershed_cold' JOIN pg_roles r ON r.oid = m.umuser;
SELECT check_that.equal('who reads has one', (SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM holders WHERE rolname IN ('cold_keeper', 'cold_stranger', 'Odd "name', 'watershed_archiver')), 'Odd "name cold_keeper watershed_archiver');
SELECT check_that.equal('all differ', (SELECT (count(*) = count(DISTINCT umoptions::text))::text FROM holders), 'true');
SET ROLE watershed_gateway;
SELECT check_that.equal('asked by the gateway', length(watershed_control.cold_secret('cold_keeper'::regrole))::text, '64');
SELECT check_that.equal('none', coalesce(watershed_control.cold_secret('cold_stranger'::regrole), 'none'), 'none');
RESET ROLE; SET ROLE cold_keeper;
SELECT check_that.equal('hidden', (SELECT count(*)::text FROM pg_user_mappings WHERE umoptions IS NOT NULL), '0');
-- They come and go with rights.
GRANT SELECT ON n.t TO cold_stranger;
RESET ROLE;
SELECT check_that.equal('granted', (SELECT count(*)::text FROM holders WHERE rolname = 'cold_stranger'), '1');
REVOKE SELECT ON n.t FROM cold_stranger;
REVOKE SELECT (a, ts) ON n.t FROM "Odd ""name";
SELECT check_that.equal('revoked', (SELECT count(*)::text FROM holders WHERE rolname IN ('cold_stranger', 'Odd "name')), '0');
DROP ROLE "Odd ""name";

-- The fence, of this very backend: a statement sees the last change, an older transaction does not.
SELECT pg_backend_pid() AS pid, 'n.t'::regclass::oid AS relid, 'cold_keeper'::regrole::oid AS cold_keeper, 'cold_stranger'::regrole::oid AS cold_stranger \gset
CREATE FUNCTION fence(who oid, archive bigint DEFAULT 1) RETURNS jsonb LANGUAGE sql AS $$
    SELECT watershed_control.cold_fence('n.t'::regclass, pg_backend_pid(), who, archive, (SELECT boundary FROM watershed_control.archives WHERE number = 1)) - 'columns'
$$;
SELECT check_that.equal('fence', (SELECT string_agg(key || '=' || value, ' ' ORDER BY key) FROM jsonb_each_text(fence(:cold_keeper)) WHERE key IN ('fits', 'in_statement', 'sees_fence', 'may_read', 'both_have', 'expired', 'min_archive')),
    'both_have=false expired=false fits=true in_statement=true may_read=true min_archive=1 sees_fence=true');
SELECT check_that.equal('rights', fence(:cold_stranger) ->> 'may_read', 'false');
SELECT check_that.equal('another archive does not fit', fence(:cold_keeper, 2) ->> 'fits', 'false');
SELECT check_that.equal('no such backend', watershed_control.cold_fence('n.t'::regclass, 1, :cold_keeper, 1, :'boundary') ->> 'in_statement', 'false');
SELECT check_that.equal('no such table', coalesce(watershed_control.cold_fence(1, :pid, :cold_keeper, 1, '')::text, 'none'), 'none');
SELECT check_that.equal('columns', (SELECT string_agg(c ->> 'name', ' ') FROM jsonb_array_elements(watershed_control.cold_fence('n.t'::regclass, :pid, :cold_keeper, 1, :'boundary') -> 'columns') c), 'ts a s _xid _stream _offset');
BEGIN;
UPDATE watershed_control.tables SET lake_floor = date :'today' - 390 WHERE relid = 'n.t'::regclass;
SELECT check_that.equal('a change of the fence takes its number', (SELECT (fence_xid = pg_current_xact_id())::text FROM watershed_control.tables WHERE relid = 'n.t'::regclass), 'true');
SELECT check_that.equal('which nobody sees before it ends', fence(:cold_keeper) ->> 'sees_fence', 'false');
ROLLBACK;
-- Rows in both stores, and rows that nobody may see.
BEGIN;
SET LOCAL watershed.maintenance = on;
SELECT part_relid::regclass AS late FROM watershed_control.partitions WHERE kind = 'late' \gset
INSERT INTO :late (ts, a, _xid) VALUES (date :'today' - 20, 99, '3');
SELECT check_that.equal('both have it', fence(:cold_keeper) ->> 'both_have', 'true');
ROLLBACK;
BEGIN;
UPDATE watershed_control.tables SET lake_floor = date :'today' - 12 WHERE relid = 'n.t'::regclass;
SELECT check_that.equal('expired', fence(:cold_keeper) ->> 'expired', 'true');
ROLLBACK;

-- A raise lets the late rows go that its boundary sees, and only these; the leaving of late rows moves the fence even where the archive is the same.
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
SELECT 'n.t'::regclass, 2, pg_current_snapshot()::text, watershed_control.current_lineage(), 1;
SELECT boundary FROM watershed_control.archives WHERE relid = 'n.t'::regclass AND number = 2 \gset
INSERT INTO n.t (ts, a) VALUES (date :'today' - 30, 22);
SELECT check_that.equal('raised', watershed_control.raise_floor('n.t'::regclass, date :'today' - 7, 2, :'boundary', :epoch, (date :'today' - 8)::timestamptz, 'test')::text, '0');
SELECT check_that.equal('late rows', (SELECT string_agg(a::text, ' ') FROM :late), '22');
SELECT check_that.equal('its boundary', (SELECT min_boundary FROM watershed_control.tables WHERE relid = 'n.t'::regclass), :'boundary');
SELECT fence_xid AS before FROM watershed_control.tables WHERE relid = 'n.t'::regclass \gset
SELECT check_that.equal('nothing to leave', watershed_control.forget_late('n.t'::regclass, 2, :'boundary', :epoch, (date :'today' - 7)::timestamptz)::text, '0');
SELECT check_that.equal('nothing moved', (SELECT fence_xid::text FROM watershed_control.tables WHERE relid = 'n.t'::regclass), :'before');
SET watershed.maintenance = on;
INSERT INTO :late (ts, a, _xid) VALUES (date :'today' - 20, 99, '3');
RESET watershed.maintenance;
SELECT check_that.equal('one to leave', watershed_control.forget_late('n.t'::regclass, 2, :'boundary', :epoch, (date :'today' - 7)::timestamptz)::text, '1');
SELECT check_that.equal('the fence moved', (SELECT (fence_xid::text <> :'before')::text FROM watershed_control.tables WHERE relid = 'n.t'::regclass), 'true');

-- A table that gets its first floor while the door is open.
SET ROLE cold_keeper;
CREATE TABLE n.u (ts timestamptz, a int);
SELECT check_that.equal('attach', watershed.attach_table('n.u', 'ts', first_day => date :'today' - 10)::text, 'n.u');
RESET ROLE;
INSERT INTO watershed_control.archives (relid, number, boundary, lineage, fence)
SELECT 'n.u'::regclass, 1, pg_current_snapshot()::text, watershed_control.current_lineage(), 1;
SELECT boundary FROM watershed_control.archives WHERE relid = 'n.u'::regclass AND number = 1 \gset
SELECT watershed_control.raise_floor('n.u'::regclass, date :'today' - 8, 1, :'boundary', 1, '-infinity', 'test');
SELECT check_that.equal('the door at once', (SELECT watershed_control.is_door(part_relid)::text FROM watershed_control.partitions WHERE kind = 'gone' AND relid = 'n.u'::regclass), 'true');

-- Off again.
SET ROLE watershed_gateway;
SELECT watershed_control.cold_switch(NULL, NULL);
SELECT watershed_control.cold_lay('n.t'::regclass), watershed_control.cold_lay('n.u'::regclass), watershed_control.cold_lay('pg_class'::regclass);
SELECT check_that.equal('mappings go', (watershed_control.cold_sync() > 2)::text, 'true');
RESET ROLE;
SELECT check_that.equal('no secret is left', (SELECT count(*)::text FROM holders), '0');
SELECT check_that.refused('SELECT count(*) FROM n.t', '58P01');
SELECT check_that.equal('all are tripwires', (SELECT count(*)::text FROM watershed_control.partitions WHERE kind = 'gone' AND watershed_control.is_door(part_relid)), '0');
SELECT watershed_control.check_table('n.t'::regclass);
