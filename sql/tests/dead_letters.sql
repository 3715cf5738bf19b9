-- Dead letters: who may write, mark and remove them, and that an old writer's columns are enough.
SET ROLE watershed_ingest;
INSERT INTO watershed.dead_letters (table_name, source, position, stage, reason, raw) VALUES ('public.logs', 'f', 'line 3', 'map', 'no ts', 'x');
SELECT check_that.equal('a letter begins untried', (SELECT complete || ' ' || attempts || ' ' || (replayed_at IS NULL) FROM watershed.dead_letters), 'true 0 true');
SELECT check_that.allowed('UPDATE watershed.dead_letters SET replayed_at = now(), replayed_rows = 1, attempts = 1');
SELECT check_that.allowed('DELETE FROM watershed.dead_letters');
SELECT check_that.refused('TRUNCATE watershed.dead_letters', '42501');
RESET ROLE; SET ROLE watershed_gateway;
SELECT check_that.allowed('SELECT headers, context, envelope, topic FROM watershed.dead_letters');
SELECT check_that.refused('DELETE FROM watershed.dead_letters', '42501');
RESET ROLE; SET ROLE watershed_analyst;
SELECT check_that.refused('SELECT * FROM watershed.dead_letters', '42501');
RESET ROLE;
