-- The table of nasty data, and what stands around it.
CREATE TABLE public.zoo (
    ts timestamptz NOT NULL,
    id int8 NOT NULL,
    i2 int2,
    i4 int4,
    i8 int8,
    n numeric(10,2),
    nb numeric(28,10),
    nu numeric,
    b bool,
    t text,
    v varchar(24),
    d date,
    tm timestamp,
    tz timestamptz,
    u uuid,
    j jsonb,
    f8 float8,
    by bytea,
    "Odd Name" text,
    g int4 NOT NULL
);
SELECT watershed.attach_table('public.zoo', event_time => 'ts');

CREATE TABLE public.ant (
    ts timestamptz NOT NULL,
    id int8 NOT NULL,
    g int4,
    k int8,
    t text,
    v varchar(24),
    n numeric(10,2),
    nb numeric(28,10),
    b bool,
    d date,
    u uuid
);
SELECT watershed.attach_table('public.ant', event_time => 'ts');

CREATE VIEW zoo_view AS SELECT id, ts AS at, g AS kind, t AS label, n AS amount FROM zoo WHERE g < 8;
CREATE VIEW zoo_by_kind AS SELECT g AS kind, count(*) AS rows, sum(n) AS amount FROM zoo GROUP BY g;
CREATE TABLE kinds (g int4 PRIMARY KEY, name text NOT NULL);
INSERT INTO kinds SELECT g, 'kind ' || g FROM generate_series(0, 12) g;
CREATE FUNCTION own_add(int8, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
CREATE FUNCTION own_slow(int8) RETURNS int8 LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1; END';
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS 'SELECT ''2000-01-01 00:00+00''::timestamptz';

-- Times beyond what the lake knows of time zones to come, and before the common era.
CREATE TABLE public.far (ts timestamptz NOT NULL, id int4 NOT NULL, tz timestamptz, tm timestamp);
SELECT watershed.attach_table('public.far', event_time => 'ts');
INSERT INTO far VALUES
    ('2150-06-15 12:00:00+00', 1, '2150-07-01 00:00:00+00', '2150-07-01 00:00:00'),
    ('2150-12-15 12:00:00+00', 2, '2500-01-01 00:00:00+00', '9999-12-31 23:59:59'),
    ('9999-12-31 23:59:59.999999+00', 3, '10000-01-01 00:00:00+00', '10000-01-01 00:00:00'),
    ('1883-11-18 17:00:00+00', 4, '1883-11-18 16:00:00+00', '1883-11-18 12:00:00'),
    ('0001-01-01 00:00:00+00', 5, '0044-03-15 12:00:00+00 BC', '0044-03-15 12:00:00 BC'),
    ('4712-01-01 00:00:00+00 BC', 6, '4713-01-01 00:00:00+00 BC', '4713-01-01 00:00:00 BC'),
    ('294246-06-01 00:00:00+00', 7, 'infinity', '-infinity');
