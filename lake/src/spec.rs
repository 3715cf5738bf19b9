//! What a tiered table is: its columns, its event time, its place in the lake. Reads `watershed_control`; changes nothing.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlx::{PgConnection, Row};

use crate::types::{self, ColType};
use crate::{Error, Result};

/// A column that both stores hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its number in PostgreSQL: what identifies it for good.
    pub attnum: i16,
    /// Its name in PostgreSQL now.
    pub name: String,
    /// Its name in the lake: the name it had when it was first seen.
    pub lake_name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// OID of the collation; 0 for types without one.
    pub collation: u32,
    pub not_null: bool,
    pub ty: ColType,
}

/// A tiered table, as `watershed_control` and the catalog describe it at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    pub relid: u32,
    pub schema: String,
    pub name: String,
    /// attnum of the event time.
    pub event_time: i16,
    /// Live user columns and `_xid`, `_stream`, `_offset`, by attnum.
    pub columns: Vec<Column>,
    /// The table's directory below the lake's root, such as `public.logs`.
    pub lake_path: String,
    pub schema_epoch: i32,
    pub lineage: String,
    /// Versions whose archive number is below lack rows that PostgreSQL no longer holds.
    pub min_archive: i64,
    /// Event time (µs since 1970) from which on PostgreSQL holds every row; `None`: it holds all.
    pub floor_us: Option<i64>,
    /// Lake names of the columns that single rows are looked up by: files get a bloom filter for each.
    pub keys: Vec<String>,
    /// The floor that is announced and will soon be in force, at or above [`Self::floor_us`]; `None`: none is.
    pub warned_us: Option<i64>,
    /// Midnight UTC before which rows are gone from both stores, whatever files still hold them; `None`: none are.
    pub lake_floor_us: Option<i64>,
}

/// The SQL condition, over alias `t`, under which a statement reads of a tiered table what PostgreSQL itself has. Without it, or an event
/// time restricted to what is above the floor, the table's tripwire raises 58P01. Readers of rows that they know to be there name it.
pub const PRESENT: &str = "watershed_control.cold_slot(t._stream, 0) OPERATOR(pg_catalog.=) 0";

/// The beginning of the name of a tripwire's file, in the error that the tripwire raises; the table's OID follows.
pub const TRIPWIRE: &str = "/proc/watershed/";

impl TableSpec {
    /// The columns in order, under their lake names. The partition column `_day` is not among them.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns
                .iter()
                // Nullable throughout: files written before a column was added lack it, and readers of the lake see it as NULL.
                .map(|c| Field::new(&c.lake_name, c.ty.arrow(), true))
                .collect::<Vec<_>>(),
        ))
    }

    /// The schema with the partition column `_day` at its end: the Delta table's.
    pub fn arrow_schema_with_day(&self) -> SchemaRef {
        let mut fields: Vec<_> = self.arrow_schema().fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(types::DAY, DataType::Date32, true)));
        Arc::new(Schema::new(fields))
    }

    /// The types of the columns, in order.
    pub fn types(&self) -> Vec<ColType> {
        self.columns.iter().map(|c| c.ty).collect()
    }

    /// The column with number `attnum`.
    pub fn column(&self, attnum: i16) -> Option<&Column> {
        self.columns.iter().find(|c| c.attnum == attnum)
    }

    /// The position in `columns` of the column with lake name `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.lake_name == name)
    }

    /// The event time's column. `load_specs` admits no table without one.
    pub fn event_column(&self) -> Result<&Column> {
        self.column(self.event_time).ok_or_else(|| Error::Schema {
            table: self.qualified(),
            what: "its event time is not among its columns".into(),
        })
    }

    /// `schema.name`, for messages.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// `"schema"."name"`, for SQL.
    pub fn sql_name(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// An identifier, quoted for SQL.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

const TABLES: &str = "\
SELECT t.relid::oid AS relid, n.nspname::text AS schema, c.relname::text AS name, t.event_attnum::int2 AS event_attnum,
       t.lake_path::text AS lake_path, t.schema_epoch::int4 AS schema_epoch, t.lineage::text AS lineage, t.min_archive::int8 AS min_archive,
       CASE WHEN pg_catalog.isfinite(t.floor) THEN (EXTRACT(epoch FROM t.floor) * 1000000)::int8 END AS floor_us,
       CASE WHEN pg_catalog.isfinite(t.warned) THEN (EXTRACT(epoch FROM t.warned) * 1000000)::int8 END AS warned_us,
       CASE WHEN pg_catalog.isfinite(t.lake_floor) THEN (EXTRACT(epoch FROM t.lake_floor) * 1000000)::int8 END AS lake_floor_us
FROM watershed_control.tables t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname";

const COLUMNS: &str = "\
SELECT l.relid::oid AS relid, a.attnum::int2 AS attnum, a.attname::text AS name, l.lake_name::text AS lake_name,
       a.atttypid AS type_oid, a.atttypmod AS typmod, a.attcollation AS collation, a.attnotnull AS not_null,
       a.attnum = ANY (t.lake_keys) AS is_key
FROM watershed_control.lake_columns l
JOIN watershed_control.tables t ON t.relid = l.relid
JOIN pg_catalog.pg_attribute a ON a.attrelid = l.relid AND a.attnum = l.attnum
WHERE NOT a.attisdropped
ORDER BY l.relid, a.attnum";

/// Every tiered table, ordered by schema and name, as the connection's next statements see them. The two statements are of one
/// snapshot only inside a REPEATABLE READ transaction.
///
/// Errors: PostgreSQL's; [`Error::Schema`] if a column's type cannot be kept or a provenance column is missing.
pub async fn load_specs(conn: &mut PgConnection) -> Result<Vec<TableSpec>> {
    let mut specs = Vec::new();
    for row in sqlx::query(TABLES).fetch_all(&mut *conn).await? {
        specs.push(TableSpec {
            relid: row.try_get::<sqlx::postgres::types::Oid, _>("relid")?.0,
            schema: row.try_get("schema")?,
            name: row.try_get("name")?,
            event_time: row.try_get("event_attnum")?,
            columns: Vec::new(),
            lake_path: row.try_get("lake_path")?,
            schema_epoch: row.try_get("schema_epoch")?,
            lineage: row.try_get("lineage")?,
            min_archive: row.try_get("min_archive")?,
            floor_us: row.try_get("floor_us")?,
            keys: Vec::new(),
            warned_us: row.try_get("warned_us")?,
            lake_floor_us: row.try_get("lake_floor_us")?,
        });
    }
    for row in sqlx::query(COLUMNS).fetch_all(&mut *conn).await? {
        let relid = row.try_get::<sqlx::postgres::types::Oid, _>("relid")?.0;
        // A table attached between the two statements is seen at the next look.
        let Some(spec) = specs.iter_mut().find(|s| s.relid == relid) else {
            continue;
        };
        let type_oid = row.try_get::<sqlx::postgres::types::Oid, _>("type_oid")?.0;
        let typmod: i32 = row.try_get("typmod")?;
        let name: String = row.try_get("name")?;
        let ty = ColType::from_pg(type_oid, typmod).ok_or_else(|| Error::Schema {
            table: format!("{}.{}", spec.schema, spec.name),
            what: format!("the type of column {name} (OID {type_oid}) cannot be kept in the lake"),
        })?;
        if row.try_get("is_key")? {
            spec.keys.push(row.try_get("lake_name")?);
        }
        spec.columns.push(Column {
            attnum: row.try_get("attnum")?,
            name,
            lake_name: row.try_get("lake_name")?,
            type_oid,
            typmod,
            collation: row.try_get::<sqlx::postgres::types::Oid, _>("collation")?.0,
            not_null: row.try_get("not_null")?,
            ty,
        });
    }
    for spec in &specs {
        check(spec)?;
    }
    Ok(specs)
}

fn check(spec: &TableSpec) -> Result<()> {
    let problem = |what: String| Error::Schema { table: spec.qualified(), what };
    if !spec.event_column()?.ty.is_event_time() {
        return Err(problem("its event time is not a date or timestamp".into()));
    }
    for (name, ty) in
        [(types::XID, ColType::Xid8), (types::STREAM, ColType::Int4), (types::OFFSET, ColType::Int8)]
    {
        match spec.columns.iter().find(|c| c.lake_name == name) {
            Some(c) if c.ty == ty => {}
            _ => return Err(problem(format!("it lacks the provenance column {name}"))),
        }
    }
    if spec.columns.iter().any(|c| c.lake_name == types::DAY) {
        return Err(problem(format!(
            "a column is named {}, which is the lake's partition column",
            types::DAY
        )));
    }
    // Lake names are what Parquet and Delta find columns by, and Delta compares them without case.
    let mut names: Vec<String> = spec.columns.iter().map(|c| c.lake_name.to_lowercase()).collect();
    names.sort_unstable();
    if names.windows(2).any(|w| w[0] == w[1]) {
        return Err(problem("two columns share a name in the lake".into()));
    }
    Ok(())
}
