//! CONTRACT used by session/lake.rs, route/ and catalog.rs: keep these names and fields, replace the bodies.

use lake::spec::TableSpec;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Catalog {
    pub tiered: HashMap<u32, Arc<TableSpec>>,
    /// Keyed by the OID of the stub's set-returning function.
    pub virtual_functions: HashMap<u32, Arc<VirtualTable>>,
    /// The database's collation is C, POSIX or C.UTF-8.
    pub default_collation_is_c: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualTable {
    pub name: String,
    /// name, type OID; in the order of the provider's schema
    pub columns: Vec<(String, u32)>,
}

impl From<&crate::virtual_tables::Definition> for VirtualTable {
    fn from(d: &crate::virtual_tables::Definition) -> Self {
        VirtualTable { name: d.name.into(), columns: d.columns.iter().map(|(n, o)| (n.to_string(), *o)).collect() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub timezone: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Aggregate,
    PointLookup,
    OrderLimit,
    Scan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableUse {
    pub relid: u32,
    /// ascending, without duplicates, may be empty (count(*))
    pub attnums: Vec<i16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamUse {
    /// n of $n
    pub number: i64,
    pub type_oid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// search_path-safe SQL of one expression
    pub sql: String,
    pub type_oid: u32,
}

#[derive(Debug)]
pub struct Analysis {
    pub tables: Vec<TableUse>,
    pub params: Vec<ParamUse>,
    pub folds: Vec<Fold>,
    pub shape: Shape,
    /// lower bound (inclusive, us since 1970) of the event time that every needed row has
    pub time_from_us: Option<i64>,
}

#[derive(Debug)]
pub enum Verdict {
    Lake(Analysis),
    Virtual(Analysis),
    Postgres(Vec<String>),
}

pub fn analyze(_tree: &str, _catalog: &Catalog, _settings: &Settings, _row: &[Field]) -> Verdict {
    Verdict::Postgres(vec!["not there yet".into()])
}
