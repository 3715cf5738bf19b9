-- Tableau: its connector is JDBC now and was psqlODBC before; catalog queries of the latter from postgresql-interfaces/psqlodbc, info.c and
-- connection.c, as protocol-level tests of other servers have recorded them; then worksheets as its query pipeline writes them.

SET DateStyle = 'ISO';

SET extra_float_digits = 2;

show transaction_isolation;

select oid, typbasetype from pg_type where typname = 'lo';

select NULL, NULL, NULL;

show max_identifier_length;

select relname, nspname, relkind from pg_catalog.pg_class c, pg_catalog.pg_namespace n where relkind in ('r', 'v', 'm', 'f', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') and n.oid = relnamespace order by nspname, relname;

select n.nspname, c.relname, a.attname, a.atttypid, t.typname, a.attnum, a.attlen, a.atttypmod, a.attnotnull, c.relhasrules, c.relkind, c.oid, pg_get_expr(d.adbin, d.adrelid),
  case t.typtype when 'd' then t.typbasetype else 0 end, t.typtypmod, 0, '', c.relhassubclass
from (((pg_catalog.pg_class c inner join pg_catalog.pg_namespace n on n.oid = c.relnamespace and c.relname like 'logs' and n.nspname like 'public')
  inner join pg_catalog.pg_attribute a on (not a.attisdropped) and a.attnum > 0 and a.attrelid = c.oid)
  inner join pg_catalog.pg_type t on t.oid = a.atttypid) left outer join pg_attrdef d on a.atthasdef and d.adrelid = a.attrelid and d.adnum = a.attnum
order by n.nspname, c.relname, attnum;

select ta.attname, ia.attnum, ic.relname, n.nspname, tc.relname
from pg_catalog.pg_attribute ta, pg_catalog.pg_attribute ia, pg_catalog.pg_class tc, pg_catalog.pg_index i, pg_catalog.pg_namespace n, pg_catalog.pg_class ic
where tc.relname = 'kinds' AND n.nspname = 'public' AND tc.oid = i.indrelid AND n.oid = tc.relnamespace AND i.indisprimary = 't' AND ia.attrelid = i.indexrelid
  AND ta.attrelid = i.indrelid AND ta.attnum = i.indkey[ia.attnum-1] AND (NOT ta.attisdropped) AND (NOT ia.attisdropped) AND ic.oid = i.indexrelid
order by ia.attnum;

select 'watershed'::name as "PKTABLE_CAT", n2.nspname as "PKTABLE_SCHEM", c2.relname as "PKTABLE_NAME", a2.attname as "PKCOLUMN_NAME",
  n1.nspname as "FKTABLE_SCHEM", c1.relname as "FKTABLE_NAME", a1.attname as "FKCOLUMN_NAME", i::int2 as "KEY_SEQ",
  case confupdtype when 'c' then 0::int2 when 'n' then 2::int2 when 'd' then 4::int2 when 'r' then 1::int2 else 3::int2 end as "UPDATE_RULE",
  conname as "FK_NAME", cn.relname as "PK_NAME"
from ((((((( (select cn.oid, conrelid, conkey, confrelid, confkey, generate_series(array_lower(conkey, 1), array_upper(conkey, 1)) as i, confupdtype, confdeltype, conname
    from pg_catalog.pg_constraint cn, pg_catalog.pg_class c, pg_catalog.pg_namespace n
    where contype = 'f' and conrelid = c.oid and relname = 'notes' and n.oid = c.relnamespace and n.nspname = 'public') ref
  inner join pg_catalog.pg_class c1 on c1.oid = ref.conrelid)
  inner join pg_catalog.pg_namespace n1 on n1.oid = c1.relnamespace)
  inner join pg_catalog.pg_attribute a1 on a1.attrelid = c1.oid and a1.attnum = conkey[i])
  inner join pg_catalog.pg_class c2 on c2.oid = ref.confrelid)
  inner join pg_catalog.pg_namespace n2 on n2.oid = c2.relnamespace)
  inner join pg_catalog.pg_attribute a2 on a2.attrelid = c2.oid and a2.attnum = confkey[i])
  left outer join pg_catalog.pg_index x on x.indrelid = c2.oid and x.indisprimary)
  left outer join pg_catalog.pg_class cn on cn.oid = x.indexrelid
order by n2.nspname, c2.relname, i;

select c.relname, i.indkey, i.indisunique, i.indisclustered, a.amname, c.relhasrules, n.nspname, c.oid, 0, case when i.indoption[0] & 1 = 1 then 'D' else 'A' end
from pg_catalog.pg_index i, pg_catalog.pg_class c, pg_catalog.pg_class d, pg_catalog.pg_am a, pg_catalog.pg_namespace n
where d.relname = 'notes' and n.nspname = 'public' and n.oid = d.relnamespace and d.oid = i.indrelid and i.indexrelid = c.oid and c.relam = a.oid
order by i.indisprimary desc, i.indisunique, n.nspname, c.relname;

-- together
BEGIN;
declare "SQL_CUR04645D10" cursor with hold for select relname, nspname, relkind from pg_catalog.pg_class c, pg_catalog.pg_namespace n where relkind in ('r', 'v', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') and n.oid = relnamespace order by nspname, relname;
fetch 2048 in "SQL_CUR04645D10";
-- apart

fetch 2048 in "SQL_CUR04645D10";

close "SQL_CUR04645D10";

COMMIT;

SELECT CAST('2024-01-01' AS DATE) AS "x" FROM "public"."logs" LIMIT 1;

SELECT * FROM (SELECT "logs"."level" AS "level" FROM "public"."logs" "logs") "Tableau Temp" LIMIT 0;

-- lake
SELECT SUM(1) AS "cnt:logs:ok", "logs"."level" AS "level" FROM "public"."logs" "logs" GROUP BY 2 ORDER BY 2;

-- lake
SELECT "logs"."service" AS "service", COUNT(DISTINCT "logs"."host") AS "ctd:host:ok" FROM "public"."logs" "logs" GROUP BY 1 ORDER BY 1;

SELECT DATE_TRUNC( 'DAY', CAST("logs"."ts" AS TIMESTAMP) ) AS "tdy:ts:ok", COUNT(1) AS "cnt" FROM "public"."logs" "logs" WHERE (("logs"."level" IN ('ERROR', 'WARN')) AND (NOT ("logs"."service" IS NULL))) GROUP BY 1 ORDER BY 1;

-- lake
SELECT MIN("logs"."ts") AS "min", MAX("logs"."ts") AS "max" FROM "public"."logs" "logs" HAVING (COUNT(1) > 0);
