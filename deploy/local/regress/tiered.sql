-- Turns the tables that test_setup made into views over tiered ones, column for column, so that the tests ask the lake. Types that
-- the lake does not keep (name, char(n)) are text there; tables that have others, or take part in inheritance, stay.
-- Run twice: with :part 1 three rows of four are moved, to be archived; with :part 2 the fourth, which stay tail.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT set_config('regress.part', :'part', false) \g /dev/null
DO $$
DECLARE
    part int := current_setting('regress.part');
    item record;
    definitions text;
    names text;
BEGIN
    IF part = 1 THEN
        CREATE SCHEMA tiered;
        CREATE SCHEMA untiered;
        GRANT USAGE ON SCHEMA tiered TO PUBLIC;
    END IF;
    FOR item IN
        SELECT c.oid, c.relname FROM pg_class c
        WHERE c.relkind = 'r' AND c.relnamespace = (CASE part WHEN 1 THEN 'public' ELSE 'untiered' END)::regnamespace
          AND c.relname NOT IN ('logs', 'events')
          AND NOT EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
          AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                          AND a.atttypid NOT IN ('name'::regtype, 'bpchar'::regtype)
                          AND watershed_control.type_refusal(a.atttypid, a.atttypmod) IS NOT NULL)
        ORDER BY c.relname
    LOOP
        SELECT string_agg(format('%I %s', a.attname, CASE WHEN a.atttypid IN ('name'::regtype, 'bpchar'::regtype) THEN 'text'
                                 ELSE format_type(a.atttypid, a.atttypmod) END), ', ' ORDER BY a.attnum),
               string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
        INTO definitions, names FROM pg_attribute a WHERE a.attrelid = item.oid AND a.attnum > 0;
        IF part = 1 THEN
            EXECUTE format('ALTER TABLE public.%I SET SCHEMA untiered', item.relname);
            EXECUTE format('CREATE TABLE tiered.%I (%s, ts timestamptz NOT NULL DEFAULT ''2024-04-01 UTC'')', item.relname, definitions);
        END IF;
        EXECUTE format('INSERT INTO tiered.%I (%s, ts) SELECT %2$s, timestamptz ''2024-02-01 UTC'' + n %% 40 * interval ''1 day''
                        FROM (SELECT *, row_number() OVER (ORDER BY ctid) AS n FROM untiered.%1$I) numbered
                        WHERE (n %% 4 = 0) = %3$L ORDER BY n', item.relname, names, part = 2);
        IF part = 1 THEN
            PERFORM watershed.attach_table(format('tiered.%I', item.relname)::regclass, event_time => 'ts', first_day => current_date);
            EXECUTE format('CREATE VIEW public.%I AS SELECT %s FROM tiered.%1$I', item.relname, names);
        ELSE
            EXECUTE format('DROP TABLE untiered.%I', item.relname);
        END IF;
    END LOOP;
    IF part = 2 THEN
        DROP SCHEMA untiered;
    END IF;
END
$$;
ANALYZE;
