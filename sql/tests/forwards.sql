-- What the forwarder relies on: its own table, letters that carry their transaction, and nobody else's hand on either.
SET ROLE watershed_archiver;
INSERT INTO watershed_control.forwards (name, boundary) VALUES ('alerts', pg_current_snapshot()::text);
SELECT check_that.refused('INSERT INTO watershed_control.forwards (name, boundary) VALUES (''other'', ''soon'')', '23514');
SELECT check_that.refused('INSERT INTO watershed_control.forwards (name, boundary) VALUES ('''', ''1:1:'')', '23514');
SELECT check_that.refused('UPDATE watershed_control.forwards SET pending = ''now''', '23514');
SELECT check_that.refused('DELETE FROM watershed_control.forwards', '42501');
SELECT check_that.allowed('SELECT count(*) FROM watershed.dead_letters');
SELECT check_that.refused('DELETE FROM watershed.dead_letters', '42501');
RESET ROLE;
SET ROLE watershed_ingest;
INSERT INTO watershed.dead_letters (reason) VALUES ('new');
SELECT check_that.refused('UPDATE watershed_control.forwards SET boundary = ''1:1:''', '42501');
RESET ROLE;
SELECT check_that.equal('a letter carries its transaction', (SELECT (_xid::text::bigint > 0 AND NOT pg_visible_in_snapshot(_xid, (SELECT boundary::pg_snapshot FROM watershed_control.forwards)))::text
    FROM watershed.dead_letters), 'true');
SET ROLE watershed_analyst;
SELECT check_that.refused('SELECT * FROM watershed_control.forwards', '42501');
RESET ROLE;
