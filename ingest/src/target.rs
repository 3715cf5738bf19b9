//! The table that rows go to, as the catalog describes it now. Knows columns and the loads stream; knows no records.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::{Error, Result};

/// How values of a column are checked and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// text, varchar, char and name: PostgreSQL checks lengths.
    Text,
    Json,
    TimestampTz,
    Timestamp,
    Date,
    Uuid,
    Bytea,
    /// Any other type: PostgreSQL reads the text.
    Other,
}

impl Kind {
    /// By the OID of a built-in type.
    pub fn from_oid(oid: u32) -> Kind {
        match oid {
            16 => Kind::Bool,
            21 => Kind::Int2,
            23 => Kind::Int4,
            20 => Kind::Int8,
            700 => Kind::Float4,
            701 => Kind::Float8,
            1700 => Kind::Numeric,
            25 | 1043 | 1042 | 19 => Kind::Text,
            3802 | 114 => Kind::Json,
            1184 => Kind::TimestampTz,
            1114 => Kind::Timestamp,
            1082 => Kind::Date,
            2950 => Kind::Uuid,
            17 => Kind::Bytea,
            _ => Kind::Other,
        }
    }
}

/// A column that records may fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetColumn {
    pub name: String,
    pub kind: Kind,
    pub not_null: bool,
    /// Left out of the row where the record has no such key, so that the default applies.
    pub has_default: bool,
}

/// A tiered table as a destination of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub relid: u32,
    pub schema: String,
    pub name: String,
    /// Columns in attribute order, without the provenance columns and generated ones.
    pub columns: Vec<TargetColumn>,
    /// Index of the event-time column.
    pub event_time: usize,
    /// Index of the jsonb column that takes unknown keys.
    pub overflow: Option<usize>,
    /// The table's `loads` stream.
    pub stream: i32,
}

/// `"name"`, with quotes doubled.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Target {
    /// Schema and name, unquoted, for people.
    pub fn display(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Schema and name, quoted for SQL.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }

    /// Looks a table up by a name as SQL has it (`logs`, `public.logs`, `"My Schema".t`).
    ///
    /// # Errors
    /// [`Error::UnknownTable`] if there is none of that name or it is not attached.
    pub async fn find(conn: &mut PgConnection, name: &str) -> Result<Target> {
        let unknown = || Error::UnknownTable(name.to_owned());
        let found = sqlx::query(
            "SELECT c.oid::int8, n.nspname::text, c.relname::text, t.event_attnum, t.overflow_attnum, s.id \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN watershed_control.tables t ON t.relid = c.oid \
             LEFT JOIN watershed_control.streams s ON s.relid = c.oid AND s.kind = 'loads' \
             WHERE c.oid = pg_catalog.to_regclass($1)",
        )
        .bind(name)
        .fetch_optional(&mut *conn)
        .await;
        let row = match found {
            Ok(row) => row.ok_or_else(unknown)?,
            // A name that is no name: syntax error, too many dots, another database, an unreadable schema.
            Err(e)
                if crate::error::sqlstate(&e)
                    .is_some_and(|s| s.starts_with("42") || s == "0A000" || s == "22023") =>
            {
                return Err(unknown());
            }
            Err(e) => return Err(e.into()),
        };
        let relid: i64 = row.try_get(0)?;
        let (schema, table): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let (event_attnum, overflow_attnum): (i16, Option<i16>) = (row.try_get(3)?, row.try_get(4)?);
        let broken = |what: &str| Error::Target { table: format!("{schema}.{table}"), what: what.to_owned() };
        let stream: Option<i32> = row.try_get(5)?;
        let stream = stream.ok_or_else(|| broken("has no loads stream"))?;
        let rows = sqlx::query(AssertSqlSafe(format!(
            "SELECT a.attnum, a.attname::text, \
                    (CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END)::int8, \
                    a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL \
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = {relid}::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
               AND a.attidentity <> 'a' AND a.attname NOT IN ('_xid', '_stream', '_offset') \
             ORDER BY a.attnum"
        )))
        .fetch_all(&mut *conn)
        .await?;
        let mut columns = Vec::with_capacity(rows.len());
        let (mut event_time, mut overflow) = (None, None);
        for r in rows {
            let attnum: i16 = r.try_get(0)?;
            let oid: i64 = r.try_get(2)?;
            if attnum == event_attnum {
                event_time = Some(columns.len());
            }
            if Some(attnum) == overflow_attnum {
                overflow = Some(columns.len());
            }
            columns.push(TargetColumn {
                name: r.try_get(1)?,
                kind: Kind::from_oid(oid as u32),
                not_null: r.try_get(3)?,
                has_default: r.try_get(4)?,
            });
        }
        let event_time = event_time.ok_or_else(|| broken("has no event-time column"))?;
        Ok(Target { relid: relid as u32, schema, name: table, columns, event_time, overflow, stream })
    }
}

/// `logs` as the standard migrations make it, for tests and benches without a server.
#[cfg(test)]
pub(crate) fn standard_logs() -> Target {
    let column = |name: &str, kind, not_null, has_default| TargetColumn {
        name: name.into(),
        kind,
        not_null,
        has_default,
    };
    Target {
        relid: 1,
        schema: "public".into(),
        name: "logs".into(),
        columns: vec![
            column("ts", Kind::TimestampTz, true, false),
            column("level", Kind::Text, false, false),
            column("service", Kind::Text, false, false),
            column("host", Kind::Text, false, false),
            column("message", Kind::Text, false, false),
            column("metadata", Kind::Json, false, false),
            column("ingested_at", Kind::TimestampTz, false, true),
        ],
        event_time: 0,
        overflow: Some(5),
        stream: 1,
    }
}
