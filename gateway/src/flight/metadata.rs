//! What Flight SQL's clients ask of the catalog: schemas, tables, keys, types, and what the server can do. Everything comes from
//! PostgreSQL's own catalog, as the user sees it. ✗ gRPC, statements of users.

use super::client::Client;
use super::failure::Failure;
use super::types::Column;
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::{GetTablesBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables, Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity,
    SqlSupportedTransaction, SqlTransactionIsolationLevel, SupportedSqlGrammar, XdbcDataType,
};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Kinds of relations, as clients filter by them. Partitions are shown to who asks for them.
pub const TABLE_TYPES: [&str; 8] =
    ["FOREIGN TABLE", "MATERIALIZED VIEW", "PARTITION", "SYSTEM TABLE", "SYSTEM VIEW", "TABLE", "TEMPORARY TABLE", "VIEW"];

const TYPE_NAME_KEY: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

const SCHEMAS: &str = "SELECT nspname FROM pg_catalog.pg_namespace \
    WHERE ($1::pg_catalog.text IS NULL OR nspname OPERATOR(pg_catalog.~~) $1) ORDER BY nspname";

const TABLES: &str = "SELECT * FROM (SELECT n.nspname, c.relname, CASE \
        WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN CASE WHEN c.relkind = 'v' THEN 'SYSTEM VIEW' ELSE 'SYSTEM TABLE' END \
        WHEN c.relispartition THEN 'PARTITION' \
        WHEN c.relpersistence = 't' THEN 'TEMPORARY TABLE' \
        WHEN c.relkind = 'v' THEN 'VIEW' WHEN c.relkind = 'm' THEN 'MATERIALIZED VIEW' WHEN c.relkind = 'f' THEN 'FOREIGN TABLE' \
        ELSE 'TABLE' END AS kind, c.oid \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
      AND ($1::pg_catalog.text IS NULL OR n.nspname OPERATOR(pg_catalog.~~) $1) \
      AND ($2::pg_catalog.text IS NULL OR c.relname OPERATOR(pg_catalog.~~) $2)) t \
    WHERE kind <> 'PARTITION' OR $3::pg_catalog.bool ORDER BY nspname, relname";

/// Domains as what they are of.
const COLUMNS: &str = "SELECT a.attrelid, a.attname, b.t, b.m, a.attnotnull, pg_catalog.format_type(a.atttypid, a.atttypmod) \
    FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL (WITH RECURSIVE base(t, m) AS (SELECT a.atttypid, a.atttypmod \
        UNION ALL SELECT ty.typbasetype, ty.typtypmod FROM base JOIN pg_catalog.pg_type ty ON ty.oid = base.t WHERE ty.typtype = 'd') \
        SELECT base.t, base.m FROM base JOIN pg_catalog.pg_type ty ON ty.oid = base.t WHERE ty.typtype <> 'd') b \
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY ($1::pg_catalog.oid[]) ORDER BY a.attrelid, a.attnum";

const PRIMARY_KEYS: &str = "SELECT n.nspname, c.relname, a.attname, k.n, con.conname \
    FROM pg_catalog.pg_constraint con JOIN pg_catalog.pg_class c ON c.oid = con.conrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    CROSS JOIN LATERAL pg_catalog.unnest(con.conkey) WITH ORDINALITY AS k(attnum, n) \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum \
    WHERE con.contype = 'p' AND c.relname = $2 AND CASE WHEN $1::pg_catalog.text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = $1 END \
    ORDER BY n.nspname, c.relname, con.conname, k.n";

/// Keys between two tables, each by schema and name, or any.
const FOREIGN_KEYS: &str = "SELECT pn.nspname, pc.relname, pa.attname, fn.nspname, fc.relname, fa.attname, k.n, con.conname, idx.relname, \
        con.confupdtype, con.confdeltype \
    FROM pg_catalog.pg_constraint con \
    JOIN pg_catalog.pg_class pc ON pc.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace \
    JOIN pg_catalog.pg_class fc ON fc.oid = con.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace \
    LEFT JOIN pg_catalog.pg_class idx ON idx.oid = con.conindid \
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(con.confkey), pg_catalog.unnest(con.conkey)) WITH ORDINALITY AS k(p, f, n) \
    JOIN pg_catalog.pg_attribute pa ON pa.attrelid = pc.oid AND pa.attnum = k.p \
    JOIN pg_catalog.pg_attribute fa ON fa.attrelid = fc.oid AND fa.attnum = k.f \
    WHERE con.contype = 'f' AND con.conparentid = 0 \
      AND ($2::pg_catalog.text IS NULL OR pc.relname = $2) AND ($4::pg_catalog.text IS NULL OR fc.relname = $4) \
      AND CASE WHEN $1::pg_catalog.text IS NULL THEN $2 IS NULL OR pg_catalog.pg_table_is_visible(pc.oid) ELSE pn.nspname = $1 END \
      AND CASE WHEN $3::pg_catalog.text IS NULL THEN $4 IS NULL OR pg_catalog.pg_table_is_visible(fc.oid) ELSE fn.nspname = $3 END \
    ORDER BY 1, 2, 4, 5, con.conname, k.n";

type Answer = Result<RecordBatch, Failure>;

fn made<E: std::fmt::Display>(result: Result<RecordBatch, E>) -> Answer {
    result.map_err(|e| Failure::new("XX000", format!("the catalog's answer cannot be made: {e}")))
}

fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or("")
}

/// A session sees one database.
fn is_here(catalog: Option<&str>, database: &str) -> bool {
    catalog.is_none_or(|c| c.is_empty() || c == database)
}

pub fn catalogs(query: CommandGetCatalogs, database: &str) -> Answer {
    let mut builder = query.into_builder();
    builder.append(database);
    made(builder.build())
}

pub async fn schemas(client: &mut Client, query: CommandGetDbSchemas, database: &str) -> Answer {
    let rows = match is_here(query.catalog.as_deref(), database) {
        true => client.query(SCHEMAS, &[query.db_schema_filter_pattern.as_deref()]).await?,
        false => Vec::new(),
    };
    let mut builder = CommandGetDbSchemas::default().into_builder();
    rows.iter().for_each(|row| builder.append(database, text(row, 0)));
    made(builder.build())
}

pub async fn tables(client: &mut Client, query: CommandGetTables, database: &str) -> Answer {
    let partitions = query.table_types.iter().any(|t| t == "PARTITION");
    let mut rows = match is_here(query.catalog.as_deref(), database) {
        true => {
            let params =
                [query.db_schema_filter_pattern.as_deref(), query.table_name_filter_pattern.as_deref(), Some(if partitions { "t" } else { "f" })];
            client.query(TABLES, &params).await?
        }
        false => Vec::new(),
    };
    rows.retain(|row| query.table_types.is_empty() || query.table_types.iter().any(|t| t == text(row, 2)));
    let mut fields: HashMap<String, Vec<Field>> = HashMap::new();
    if query.include_schema {
        let oids: Vec<&str> = rows.iter().map(|row| text(row, 3)).collect();
        let oids = format!("{{{}}}", oids.join(","));
        for row in client.query(COLUMNS, &[Some(&oids)]).await? {
            let number = |at| text(&row, at).parse::<i64>().unwrap_or(0);
            let field = Column::new(number(2) as u32, number(3) as i32).field(text(&row, 1)).with_nullable(text(&row, 4) != "t");
            let mut metadata = field.metadata().clone();
            metadata.insert(TYPE_NAME_KEY.into(), text(&row, 5).into());
            fields.entry(text(&row, 0).into()).or_default().push(field.with_metadata(metadata));
        }
    }
    // What the filters say was asked of PostgreSQL.
    let mut builder = GetTablesBuilder::new(None::<String>, None::<String>, None::<String>, Vec::<String>::new(), query.include_schema);
    for row in &rows {
        let schema = Schema::new(fields.remove(text(row, 3)).unwrap_or_default());
        builder.append(database, text(row, 0), text(row, 1), text(row, 2), &schema).map_err(|e| Failure::new("XX000", e.to_string()))?;
    }
    made(builder.build())
}

/// The schema of `GetTables`' answer.
pub fn tables_schema(include_schema: bool) -> SchemaRef {
    GetTablesBuilder::new(None::<String>, None::<String>, None::<String>, Vec::<String>::new(), include_schema).schema()
}

pub fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
}

pub fn foreign_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// A table as Flight SQL names it.
#[derive(Debug, Clone, Default)]
pub struct Named {
    pub catalog: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
}

pub async fn primary_keys(client: &mut Client, of: Named, database: &str) -> Answer {
    let rows = match is_here(of.catalog.as_deref(), database) {
        true => client.query(PRIMARY_KEYS, &[of.schema.as_deref(), of.table.as_deref()]).await?,
        false => Vec::new(),
    };
    let column = |at| strings(rows.iter().map(|r| text(r, at)));
    let columns = vec![strings(rows.iter().map(|_| database)), column(0), column(1), column(2), numbers(rows.iter().map(|r| text(r, 3))), column(4)];
    made(RecordBatch::try_new(primary_keys_schema(), columns))
}

/// Keys that refer to `referred`, from `referring`; either may be any table.
pub async fn foreign_keys(client: &mut Client, referred: Named, referring: Named, database: &str) -> Answer {
    let rows = match is_here(referred.catalog.as_deref(), database) && is_here(referring.catalog.as_deref(), database) {
        true => {
            let of = |n: &Named| (n.schema.clone(), n.table.clone());
            let ((ps, pt), (fs, ft)) = (of(&referred), of(&referring));
            client.query(FOREIGN_KEYS, &[ps.as_deref(), pt.as_deref(), fs.as_deref(), ft.as_deref()]).await?
        }
        false => Vec::new(),
    };
    let column = |at| strings(rows.iter().map(|r| text(r, at)));
    let here = || strings(rows.iter().map(|_| database));
    let rules = |at| -> ArrayRef { Arc::new(UInt8Array::from_iter_values(rows.iter().map(|r| rule(text(r, at))))) };
    let columns = vec![
        here(),
        column(0),
        column(1),
        column(2),
        here(),
        column(3),
        column(4),
        column(5),
        numbers(rows.iter().map(|r| text(r, 6))),
        column(7),
        column(8),
        rules(9),
        rules(10),
    ];
    made(RecordBatch::try_new(foreign_keys_schema(), columns))
}

fn strings<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.map(|v| v.parse::<i32>().unwrap_or(0))))
}

/// `pg_constraint.confupdtype` as `UpdateDeleteRules`.
fn rule(action: &str) -> u8 {
    match action {
        "c" => 0,
        "r" => 1,
        "n" => 2,
        "d" => 4,
        _ => 3,
    }
}

/// What the server is and can do.
pub static SQL_INFO: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| {
    let mut b = SqlInfoDataBuilder::new();
    b.append(SqlInfo::FlightSqlServerName, "Watershed");
    b.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    b.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    b.append(SqlInfo::FlightSqlServerReadOnly, false);
    b.append(SqlInfo::FlightSqlServerSql, true);
    b.append(SqlInfo::FlightSqlServerSubstrait, false);
    b.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    b.append(SqlInfo::FlightSqlServerCancel, true);
    b.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    b.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    b.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    b.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    b.append(SqlInfo::SqlDdlCatalog, false);
    b.append(SqlInfo::SqlDdlSchema, true);
    b.append(SqlInfo::SqlDdlTable, true);
    b.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    b.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    b.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    b.append(SqlInfo::SqlAllTablesAreSelectable, false);
    b.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    b.append(SqlInfo::SqlSupportsColumnAliasing, true);
    b.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    b.append(SqlInfo::SqlSupportedGrammar, 1i32 << SupportedSqlGrammar::SqlCoreGrammar as i32);
    b.append(SqlInfo::SqlTransactionsSupported, true);
    b.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(SqlTransactionIsolationLevel::SqlTransactionReadCommitted as i32));
    b.append(
        SqlInfo::SqlSupportedTransactionsIsolationLevels,
        [
            SqlTransactionIsolationLevel::SqlTransactionReadCommitted,
            SqlTransactionIsolationLevel::SqlTransactionRepeatableRead,
            SqlTransactionIsolationLevel::SqlTransactionSerializable,
        ]
        .into_iter()
        .fold(0i32, |bits, level| bits | 1 << level as i32),
    );
    b.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    b.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    b.append(SqlInfo::SqlSavepointsSupported, true);
    b.append(SqlInfo::SqlBatchUpdatesSupported, true);
    b.append(SqlInfo::SqlMaxColumnNameLength, 63i64);
    b.append(SqlInfo::SqlDbSchemaNameLength, 63i64);
    b.append(SqlInfo::SqlMaxTableNameLength, 63i64);
    b.append(SqlInfo::SqlMaxTablesInSelect, 0i64);
    b.append(SqlInfo::SqlSupportedUnions, 3i32);
    b.build().ok()
});

/// The types that columns may have, by their number in XDBC.
pub static TYPE_INFO: LazyLock<Option<XdbcTypeInfoData>> = LazyLock::new(|| {
    use XdbcDataType as X;
    let mut b = XdbcTypeInfoDataBuilder::new();
    let types: [(&str, X, Option<i32>, bool); 16] = [
        ("bool", X::XdbcBit, Some(1), false),
        ("bytea", X::XdbcVarbinary, None, true),
        ("int8", X::XdbcBigint, Some(19), false),
        ("int2", X::XdbcSmallint, Some(5), false),
        ("int4", X::XdbcInteger, Some(10), false),
        ("text", X::XdbcLongvarchar, None, true),
        ("varchar", X::XdbcVarchar, Some(10_485_760), true),
        ("bpchar", X::XdbcChar, Some(10_485_760), true),
        ("float4", X::XdbcReal, Some(6), false),
        ("float8", X::XdbcDouble, Some(15), false),
        ("numeric", X::XdbcNumeric, Some(1000), false),
        ("date", X::XdbcDate, Some(13), true),
        ("time", X::XdbcTime, Some(15), true),
        ("timestamp", X::XdbcTimestamp, Some(29), true),
        ("timestamptz", X::XdbcTimestamp, Some(35), true),
        ("interval", X::XdbcInterval, Some(49), true),
    ];
    for (name, data_type, size, quoted) in types {
        let quote = || quoted.then(|| "'".to_owned());
        let number = !quoted && name != "bool";
        b.append(XdbcTypeInfo {
            type_name: name.into(),
            data_type,
            column_size: size,
            literal_prefix: quote(),
            literal_suffix: quote(),
            create_params: match name {
                "numeric" => Some(vec!["precision".into(), "scale".into()]),
                "varchar" | "bpchar" => Some(vec!["length".into()]),
                _ => None,
            },
            nullable: Nullable::NullabilityNullable,
            case_sensitive: matches!(name, "text" | "varchar" | "bpchar"),
            searchable: Searchable::Full,
            unsigned_attribute: number.then_some(false),
            fixed_prec_scale: false,
            auto_increment: Some(false),
            local_type_name: Some(name.into()),
            minimum_scale: (name == "numeric").then_some(0),
            maximum_scale: (name == "numeric").then_some(1000),
            sql_data_type: data_type,
            datetime_subcode: None,
            num_prec_radix: number.then_some(10),
            interval_precision: None,
        });
    }
    b.build().ok()
});
