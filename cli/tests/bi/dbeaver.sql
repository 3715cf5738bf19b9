-- DBeaver: connection and navigator, from dbeaver/dbeaver, plugins/org.jkiss.dbeaver.ext.postgresql, model/PostgreDataSource.java,
-- PostgreDatabase.java, PostgreSchema.java, PostgreDataTypeCache.java and PostgreTableBase.java; its driver is pgjdbc. Then a grid and a count.

SET extra_float_digits = 3;

SET application_name = 'DBeaver 24.0.0 - Main <watershed>';

SELECT version();

SELECT current_schema(),session_user;

SHOW search_path;

SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate ORDER BY db.datname;

SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass WHERE nspname NOT LIKE 'pg\_temp%' AND nspname NOT LIKE 'pg\_toast%' ORDER BY nspname;

SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem
LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C') ORDER BY t.oid;

SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid='mood'::regtype ORDER BY e.enumsortorder;

SELECT a.oid,a.rolname,a.rolsuper,a.rolinherit,a.rolcreaterole,a.rolcreatedb,a.rolcanlogin,a.rolreplication,a.rolconnlimit,a.rolbypassrls FROM pg_catalog.pg_roles a ORDER BY a.rolname;

SELECT t.oid,t.*,pg_tablespace_location(t.oid) loc FROM pg_catalog.pg_tablespace t ORDER BY t.oid;

SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid;

SELECT l.oid,l.* FROM pg_catalog.pg_language l ORDER BY l.oid;

SELECT c.oid,c.collname,pg_catalog.pg_encoding_to_char(c.collencoding) FROM pg_catalog.pg_collation c WHERE c.collnamespace='pg_catalog'::regnamespace ORDER BY c.oid LIMIT 40;

select c.oid,pg_catalog.pg_encoding_to_char(c.contoencoding) as encoding from pg_catalog.pg_conversion c order by c.oid limit 40;

SELECT e.oid,e.* FROM pg_catalog.pg_extension e ORDER BY e.oid;

SELECT c.oid,c.relname,c.relnamespace,c.reltype,c.relowner,c.relkind,c.relpersistence,c.relnatts,c.relchecks,c.relhasrules,c.relhastriggers,c.relispartition,c.reloptions,d.description,
  pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr, pg_catalog.pg_get_partkeydef(c.oid) as partition_key
FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
WHERE c.relnamespace='public'::regnamespace AND c.relkind not in ('i','I','c') ORDER BY c.oid;

SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.oid='logs'::regclass ORDER BY a.attnum;

SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description
FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
WHERE NOT a.attisdropped AND c.relnamespace='public'::regnamespace AND c.relkind not in ('i','I','c') AND NOT c.relispartition ORDER BY c.oid, a.attnum;

SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then "substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy
FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
WHERE c.conrelid IN ('kinds'::regclass, 'notes'::regclass, 'logs'::regclass) ORDER BY c.oid;

SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr
FROM pg_catalog.pg_index i
INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid
INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid
LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
WHERE i.indrelid IN ('kinds'::regclass, 'notes'::regclass, 'logs'::regclass) ORDER BY tc.relname, c.relname;

select pg_catalog.pg_get_indexdef('notes_kind_body_idx'::regclass, 2, true);

SELECT p.oid,p.proname,p.pronamespace,p.proowner,p.prolang,p.prokind,p.provolatile,p.prorettype,p.proargtypes,p.proallargtypes,p.proargmodes,p.proargnames,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description
FROM pg_catalog.pg_proc p
LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0
WHERE p.pronamespace='watershed'::regnamespace ORDER BY p.proname, p.oid;

SELECT i.*,c.relnamespace FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhrelid='logs'::regclass AND c.oid=i.inhparent ORDER BY i.inhseqno;

SELECT c.oid,c.relname,pg_catalog.pg_get_expr(c.relpartbound, c.oid) FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhparent='logs'::regclass AND c.oid=i.inhrelid ORDER BY c.relname;

SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description FROM pg_catalog.pg_trigger x LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0 WHERE x.tgrelid='logs'::regclass AND NOT x.tgisinternal ORDER BY x.oid;

select pg_catalog.pg_get_viewdef('sample_kinds'::regclass, true);

select c.relacl from pg_catalog.pg_class c where c.oid='logs'::regclass;

SELECT x.* FROM public.logs x ORDER BY x.ts LIMIT 200;

-- lake
SELECT COUNT(*) FROM public.logs x;

-- lake
SELECT level, COUNT(*) AS n FROM public.logs GROUP BY level ORDER BY level;

-- lake
SELECT service, MIN(ts), MAX(ts), COUNT(host) FROM public.logs WHERE level = 'ERROR' GROUP BY service ORDER BY service;
