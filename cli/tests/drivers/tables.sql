-- What the drivers work on: the demo's tables with some rows, one with a column of each type, one that they write to, and
-- plain tables for what catalogs say about keys and indexes. Every value is a function of the row's number.
CREATE TABLE samples (
    ts timestamptz NOT NULL,
    id int8 NOT NULL,
    i2 int2,
    i4 int4,
    n numeric(12,3),
    nu numeric,
    b bool,
    t text,
    v varchar(20),
    d date,
    tm timestamp,
    tz timestamptz,
    u uuid,
    j jsonb,
    f8 float8,
    by bytea,
    kind text NOT NULL
);
COMMENT ON TABLE samples IS 'a column of each type';
COMMENT ON COLUMN samples.n IS 'three digits';
CREATE INDEX samples_id_idx ON samples (id);
SELECT watershed.attach_table('public.samples', event_time => 'ts');

CREATE TABLE journal (ts timestamptz NOT NULL DEFAULT now(), who text NOT NULL, n int8, note text);
CREATE INDEX journal_who_idx ON journal (who);
SELECT watershed.attach_table('public.journal', event_time => 'ts');

CREATE TABLE heavy (ts timestamptz NOT NULL, a int4);
SELECT watershed.attach_table('public.heavy', event_time => 'ts');

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN short_text AS varchar(12) CHECK (VALUE <> '');
CREATE TABLE kinds (
    kind text PRIMARY KEY,
    rank int4 NOT NULL UNIQUE,
    feeling mood DEFAULT 'ok',
    label short_text,
    tags text[],
    price numeric(8,2) DEFAULT 1.50,
    CONSTRAINT kinds_rank_positive CHECK (rank >= 0)
);
COMMENT ON TABLE kinds IS 'kinds of samples';
CREATE TABLE notes (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL REFERENCES kinds ON DELETE CASCADE,
    body text,
    made timestamptz DEFAULT now()
);
CREATE INDEX notes_kind_body_idx ON notes (kind, lower(body) DESC) WHERE body IS NOT NULL;
CREATE VIEW sample_kinds AS SELECT kind, count(*) AS rows, max(ts) AS latest FROM samples GROUP BY kind;
INSERT INTO kinds (kind, rank, feeling, label, tags)
SELECT 'kind ' || g, g, (ARRAY['sad', 'ok', 'happy', NULL])[1 + g % 4]::mood, 'no ' || g, ARRAY['a', NULL, 'x' || g] FROM generate_series(0, 4) g;
INSERT INTO notes (kind, body, made) SELECT 'kind ' || g % 5, 'note ' || g, '2024-05-01 00:00:00+00' FROM generate_series(1, 12) g;
