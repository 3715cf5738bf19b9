-- Who gets verifiers, and what a session can do about the address that it was started with.
CREATE ROLE login_person LOGIN;
SET password_encryption = 'scram-sha-256';
ALTER ROLE login_person PASSWORD 'x';
CREATE ROLE login_old LOGIN;
SET password_encryption = 'md5';
ALTER ROLE login_old PASSWORD 'x';
GRANT pg_read_all_settings, pg_read_all_data TO login_person;
CREATE SCHEMA login_evil AUTHORIZATION login_person;

SET ROLE watershed_gateway;
SELECT check_that.equal('a verifier', left(watershed_control.scram_verifier('login_person'), 19), 'SCRAM-SHA-256$4096:');
SELECT check_that.equal('none of MD5', watershed_control.scram_verifier('login_old'), NULL);
SELECT check_that.equal('none of nobody', watershed_control.scram_verifier('login_nobody'), NULL);
SELECT check_that.refused('SELECT rolpassword FROM pg_catalog.pg_authid', '42501');
SET ROLE login_person;
SELECT check_that.refused('SELECT watershed_control.scram_verifier(''login_person'')', '42501');
SET ROLE watershed;
SELECT check_that.refused('SELECT watershed_control.scram_verifier(''login_person'')', '42501');
RESET ROLE;

SELECT check_that.equal('no address past the gateway', watershed.client_addr()::text, NULL);
\setenv PGOPTIONS '-c watershed.client_addr=192.0.2.7'
\c
\set QUIET on
\pset tuples_only on
\pset format unaligned
SET ROLE login_person;
SELECT check_that.equal('the address', watershed.client_addr()::text, '192.0.2.7/32');
SET watershed.client_addr = '192.0.2.8';
SELECT check_that.equal('the address after SET', watershed.client_addr()::text, '192.0.2.7/32');
SELECT check_that.equal('which stays as it is', current_setting('watershed.client_addr'), '192.0.2.8');
BEGIN;
SET LOCAL watershed.client_addr = 'nonsense';
SELECT check_that.equal('the address after SET LOCAL', watershed.client_addr()::text, '192.0.2.7/32');
SELECT check_that.equal('which stays as it is', current_setting('watershed.client_addr'), 'nonsense');
ROLLBACK;
CREATE FUNCTION login_evil.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR login_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = login_evil.same);
SET search_path = login_evil, pg_catalog;
SELECT check_that.equal('the address under a path of the user''s', watershed.client_addr()::text, '192.0.2.7/32');
RESET ALL;
SELECT check_that.equal('the setting after RESET ALL', current_setting('watershed.client_addr'), '192.0.2.7');
