-- Grafana, data source PostgreSQL: what its query builder asks, from grafana/grafana,
-- public/app/plugins/datasource/grafana-postgresql-datasource/postgresMetaQuery.ts; then panels over the demo's tables, with its macros
-- ($__timeGroup, $__timeFilter, $__unixEpochGroup) as they are expanded by pkg/tsdb/grafana-postgresql-datasource/macros.go.

SELECT 1;

SELECT current_setting('server_version_num')::int/100 as version;

SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';

SELECT schema_name AS "name"
FROM information_schema.schemata
WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache', '_timescaledb_catalog',
                          '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental')
ORDER BY schema_name;

SELECT quote_ident(table_name) AS "table" FROM information_schema.tables WHERE quote_ident(table_schema) = 'public' ORDER BY 1;

SELECT
    CASE WHEN quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
                               array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
               string_to_array(current_setting('search_path'),',') s)
      THEN quote_ident(table_name)
      ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
    END AS "table"
FROM information_schema.tables
WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog',
                                        '_timescaledb_internal', '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental')
ORDER BY CASE WHEN quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
                               array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
               string_to_array(current_setting('search_path'),',') s) THEN 0 ELSE 1 END, 1;

SELECT quote_ident(column_name) AS "column", data_type AS "type"
FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('logs'),1) = 2
    THEN quote_ident(table_schema) = (parse_ident('logs'))[1] AND quote_ident(table_name) = (parse_ident('logs'))[2]
    ELSE quote_ident(table_name) = 'logs' AND quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1),
                               array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
               string_to_array(current_setting('search_path'),',') s)
    END;

SELECT floor(extract(epoch from "ts")/3600)*3600 AS "time", count(*) AS "value" FROM logs
WHERE "ts" BETWEEN '2024-03-10T00:00:00Z' AND '2024-03-15T00:00:00Z' GROUP BY 1 ORDER BY 1;

-- lake
SELECT level AS metric, count(*) AS "value" FROM logs
WHERE "ts" BETWEEN '2024-03-10T00:00:00Z' AND '2024-03-15T00:00:00Z' GROUP BY level ORDER BY 2 DESC, 1 LIMIT 50;

-- lake
SELECT date_trunc('hour', ts) AS time, service AS metric, count(*) FILTER (WHERE level = 'ERROR') AS errors FROM logs
WHERE ts >= '2024-03-10T00:00:00Z' AND ts < '2024-03-12T00:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2;

SELECT ts AS time, message AS text, level AS tags FROM logs WHERE ts BETWEEN '2024-03-10T00:00:00Z' AND '2024-03-11T00:00:00Z' ORDER BY ts DESC LIMIT 100;

-- lake
SELECT DISTINCT service FROM logs ORDER BY service;
