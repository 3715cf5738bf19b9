//! Nodes that few statements have: rows, subscripts, XML, SQL/JSON, table functions, samples, row marks, SEARCH and CYCLE. Their fields, and how they are read.

use super::build::{Result, boxed, expr, exprs, optional, required};
use super::clauses::references;
use super::Expr;
use crate::oid;
use crate::read::{Item, Node, ReadError};

/// `SubscriptingRef`
#[derive(Debug, Clone, PartialEq)]
pub struct Subscript {
    pub container_type: u32,
    pub element_type: u32,
    pub type_oid: u32,
    pub typmod: i32,
    pub collation: u32,
    /// The index of each dimension, or the upper bound of a slice's; a bound that is left out is None.
    pub upper: Vec<Option<Expr>>,
    /// Empty where no dimension is a slice.
    pub lower: Vec<Option<Expr>>,
    pub container: Expr,
    /// What UPDATE and INSERT put there.
    pub assigned: Option<Expr>,
}

/// `XmlExprOp`, in its order
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlOp {
    Concat,
    Element,
    Forest,
    Parse,
    Pi,
    Root,
    Serialize,
    Document,
}

/// `XmlExpr`
#[derive(Debug, Clone, PartialEq)]
pub struct Xml {
    pub op: XmlOp,
    pub name: Option<String>,
    pub named_args: Vec<Expr>,
    pub args: Vec<Expr>,
    /// What XMLSERIALIZE gives, and xml else.
    result: u32,
}

impl Xml {
    pub fn type_oid(&self) -> u32 {
        match self.op {
            XmlOp::Document => oid::BOOL,
            XmlOp::Serialize => self.result,
            _ => 142,
        }
    }
}

/// Which node of SQL/JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `JsonValueExpr`: an argument and how it is to be read.
    Value,
    /// `JsonConstructorExpr`: JSON_OBJECT, JSON_ARRAY, JSON_SCALAR and so on.
    Constructor,
    /// `JsonIsPredicate`
    Is,
    /// `JsonExpr`: JSON_VALUE, JSON_QUERY, JSON_EXISTS.
    Query,
    /// `JsonBehavior`: ON EMPTY, ON ERROR.
    Behavior,
}

/// The SQL/JSON nodes of versions 16 and newer, as far as what they hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Json {
    pub kind: JsonKind,
    /// Every expression in it, in the order of its fields.
    pub args: Vec<Expr>,
    /// 0 where the node itself does not say.
    pub type_oid: u32,
}

/// `TableFunc`
#[derive(Debug, Clone, PartialEq)]
pub struct TableFunction {
    /// JSON_TABLE, else XMLTABLE.
    pub json: bool,
    pub document: Option<Expr>,
    pub rows: Option<Expr>,
    pub namespaces: Vec<Expr>,
    /// Of each column, where it has one: its path, its default, and its expression.
    pub columns: Vec<Option<Expr>>,
    pub defaults: Vec<Option<Expr>>,
    pub values: Vec<Option<Expr>>,
    pub passed: Vec<Expr>,
    /// Paths of JSON_TABLE, nested ones too.
    pub paths: Vec<Expr>,
    pub types: Vec<u32>,
    pub collations: Vec<u32>,
}

/// `TableSampleClause`
#[derive(Debug, Clone, PartialEq)]
pub struct TableSample {
    /// The function that samples.
    pub handler: u32,
    pub args: Vec<Expr>,
    pub repeatable: Option<Expr>,
}

/// `RowMarkClause`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMark {
    pub rtindex: usize,
    /// `LockClauseStrength`: 1 KEY SHARE to 4 UPDATE.
    pub strength: i64,
    /// `LockWaitPolicy`: 0 waits, 1 SKIP LOCKED, 2 NOWAIT.
    pub wait: i64,
    pub pushed_down: bool,
}

/// `CTESearchClause`; the rewriter has put what it says into the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CteSearch {
    pub breadth_first: bool,
    pub column: Option<String>,
}

/// `CTECycleClause`; likewise.
#[derive(Debug, Clone, PartialEq)]
pub struct CteCycle {
    pub column: Option<String>,
    pub value: Option<Expr>,
    pub default: Option<Expr>,
    /// Its inequality.
    pub operator: u32,
}

fn wrong(node: &Node<'_>, field: &'static str) -> ReadError {
    ReadError::Field(field, node.name.to_owned())
}

/// The node of an optional field.
fn inner<'n, 'a>(node: &'n Node<'a>, field: &'static str, name: &str) -> Result<Option<&'n Node<'a>>> {
    match node.get(field) {
        None | Some(Item::Null) => Ok(None),
        Some(Item::Node(inner)) if inner.name == name => Ok(Some(inner)),
        Some(_) => Err(wrong(node, field)),
    }
}

/// A list in which NULLs have a meaning.
fn sparse(node: &Node<'_>, field: &'static str) -> Result<Vec<Option<Expr>>> {
    node.list(field)?.iter().map(|item| if *item == Item::Null { Ok(None) } else { expr(item).map(Some) }).collect()
}

/// What other versions may lack.
fn if_there<'a, T: Default>(node: &Node<'a>, field: &'static str, read: impl Fn(&Node<'a>, &'static str) -> Result<T>) -> Result<T> {
    if node.get(field).is_some() { read(node, field) } else { Ok(T::default()) }
}

pub(super) fn subscript(node: &Node<'_>) -> Result<Subscript> {
    Ok(Subscript {
        container_type: node.oid("refcontainertype")?,
        element_type: node.oid("refelemtype")?,
        type_oid: node.oid("refrestype")?,
        typmod: node.int4("reftypmod")?,
        collation: node.oid("refcollid")?,
        upper: sparse(node, "refupperindexpr")?,
        lower: sparse(node, "reflowerindexpr")?,
        container: required(node, "refexpr")?,
        assigned: optional(node, "refassgnexpr")?,
    })
}

pub(super) fn row_compare(node: &Node<'_>) -> Result<Expr> {
    Ok(Expr::RowCompare {
        // Another name since 18.
        compare: if node.get("rctype").is_some() { node.int("rctype")? } else { node.int("cmptype")? },
        ops: references(node, "opnos")?,
        collations: references(node, "inputcollids")?,
        left: exprs(node, "largs")?,
        right: exprs(node, "rargs")?,
    })
}

pub(super) fn xml(node: &Node<'_>) -> Result<Xml> {
    use XmlOp::*;
    const ORDER: [XmlOp; 8] = [Concat, Element, Forest, Parse, Pi, Root, Serialize, Document];
    let op = usize::try_from(node.int("op")?).ok().and_then(|n| ORDER.get(n).copied());
    Ok(Xml {
        op: op.ok_or_else(|| wrong(node, "op"))?,
        name: node.name("name")?,
        named_args: exprs(node, "named_args")?,
        args: exprs(node, "args")?,
        result: node.oid("type")?,
    })
}

/// Which of them a node is.
pub(super) fn json_kind(name: &str) -> Option<JsonKind> {
    Some(match name {
        "JSONVALUEEXPR" => JsonKind::Value,
        "JSONCONSTRUCTOREXPR" => JsonKind::Constructor,
        "JSONISPREDICATE" => JsonKind::Is,
        "JSONEXPR" => JsonKind::Query,
        "JSONBEHAVIOR" => JsonKind::Behavior,
        _ => return None,
    })
}

pub(super) fn json(kind: JsonKind, node: &Node<'_>) -> Result<Json> {
    const HOLDING: [&str; 12] = [
        "raw_expr", "formatted_expr", "args", "func", "coercion", "expr", "path_spec", "passing_values", "on_empty", "on_error", "coercion_expr",
        "item_coercions",
    ];
    let mut args = Vec::new();
    for (name, item) in node.fields() {
        if HOLDING.contains(&name) {
            match item {
                Item::List(_, items) => args.extend(items.iter().map(expr).collect::<Result<Vec<_>>>()?),
                Item::Node(_) => args.push(expr(item)?),
                _ => {}
            }
        }
    }
    let type_oid = match (kind, inner(node, "returning", "JSONRETURNING")?) {
        (JsonKind::Is, _) => oid::BOOL,
        (_, Some(returning)) => returning.oid("typid")?,
        (JsonKind::Value | JsonKind::Behavior, None) => args.last().map_or(0, Expr::type_oid),
        (_, None) => 0,
    };
    Ok(Json { kind, args, type_oid })
}

pub(super) fn table_function(node: &Node<'_>) -> Result<TableFunction> {
    Ok(TableFunction {
        json: if_there(node, "functype", Node::int)? == 1,
        document: optional(node, "docexpr")?,
        rows: optional(node, "rowexpr")?,
        namespaces: exprs(node, "ns_uris")?,
        columns: sparse(node, "colexprs")?,
        defaults: sparse(node, "coldefexprs")?,
        values: if_there(node, "colvalexprs", sparse)?,
        passed: if_there(node, "passingvalexprs", exprs)?,
        paths: {
            let mut paths = Vec::new();
            if let Some(Item::Node(plan)) = node.get("plan") {
                json_paths(plan, &mut paths)?;
            }
            paths
        },
        types: references(node, "coltypes")?,
        collations: references(node, "colcollations")?,
    })
}

/// The paths of `JsonTablePathScan` and `JsonTableSiblingJoin`.
fn json_paths(plan: &Node<'_>, paths: &mut Vec<Expr>) -> Result<()> {
    for (name, item) in plan.fields() {
        match (name, item) {
            ("value", Item::Node(_)) => paths.push(expr(item)?),
            ("path" | "child" | "lplan" | "rplan", Item::Node(inner)) => json_paths(inner, paths)?,
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn table_sample(node: &Node<'_>) -> Result<Option<TableSample>> {
    let Some(sample) = inner(node, "tablesample", "TABLESAMPLECLAUSE")? else { return Ok(None) };
    Ok(Some(TableSample {
        handler: sample.oid("tsmhandler")?,
        args: exprs(sample, "args")?,
        repeatable: optional(sample, "repeatable")?,
    }))
}

pub(super) fn row_mark(item: &Item<'_>) -> Result<RowMark> {
    let node = super::build::named(item, "ROWMARKCLAUSE")?;
    Ok(RowMark {
        rtindex: super::build::index(node, "rti")?,
        strength: node.int("strength")?,
        wait: node.int("waitPolicy")?,
        pushed_down: node.bool("pushedDown")?,
    })
}

pub(super) fn search(node: &Node<'_>) -> Result<Option<CteSearch>> {
    let Some(clause) = inner(node, "search_clause", "CTESEARCHCLAUSE")? else { return Ok(None) };
    Ok(Some(CteSearch { breadth_first: clause.bool("search_breadth_first")?, column: clause.name("search_seq_column")? }))
}

pub(super) fn cycle(node: &Node<'_>) -> Result<Option<CteCycle>> {
    let Some(clause) = inner(node, "cycle_clause", "CTECYCLECLAUSE")? else { return Ok(None) };
    Ok(Some(CteCycle {
        column: clause.name("cycle_mark_column")?,
        value: optional(clause, "cycle_mark_value")?,
        default: optional(clause, "cycle_mark_default")?,
        operator: clause.oid("cycle_mark_neop")?,
    }))
}

/// Expressions that this module's neighbour does not read itself; None for what is not known.
pub(super) fn rare(node: &Node<'_>) -> Result<Option<Expr>> {
    let domain = |node: &Node<'_>| -> Result<(u32, i32, u32)> {
        Ok((node.oid("typeId")?, node.int4("typeMod")?, node.oid("collation")?))
    };
    Ok(Some(match node.name {
        "ROW" | "ROWEXPR" => Expr::Row { args: exprs(node, "args")?, type_oid: node.oid("row_typeid")? },
        "ROWCOMPARE" | "ROWCOMPAREEXPR" => row_compare(node)?,
        "SUBSCRIPTINGREF" => Expr::Subscript(Box::new(subscript(node)?)),
        "FIELDSELECT" => Expr::Field {
            arg: boxed(node, "arg")?,
            number: node.int2("fieldnum")?,
            type_oid: node.oid("resulttype")?,
            typmod: node.int4("resulttypmod")?,
            collation: node.oid("resultcollid")?,
        },
        "ARRAYCOERCEEXPR" => Expr::ArrayCoerce {
            arg: boxed(node, "arg")?,
            element: boxed(node, "elemexpr")?,
            type_oid: node.oid("resulttype")?,
            typmod: node.int4("resulttypmod")?,
            collation: node.oid("resultcollid")?,
        },
        "CONVERTROWTYPEEXPR" => Expr::ConvertRowtype { arg: boxed(node, "arg")?, type_oid: node.oid("resulttype")? },
        "COERCETODOMAIN" => Expr::CoerceToDomain {
            arg: boxed(node, "arg")?,
            type_oid: node.oid("resulttype")?,
            typmod: node.int4("resulttypmod")?,
            collation: node.oid("resultcollid")?,
        },
        "COERCETODOMAINVALUE" => {
            let (type_oid, typmod, collation) = domain(node)?;
            Expr::DomainValue { type_oid, typmod, collation }
        }
        "SETTODEFAULT" => {
            let (type_oid, typmod, collation) = domain(node)?;
            Expr::SetToDefault { type_oid, typmod, collation }
        }
        "CURRENTOFEXPR" => Expr::CurrentOf { varno: super::build::index(node, "cvarno")? },
        "NEXTVALUEEXPR" => Expr::NextValue { sequence: node.oid("seqid")?, type_oid: node.oid("typeId")? },
        "NAMEDARGEXPR" => Expr::NamedArg { arg: boxed(node, "arg")?, number: node.int("argnumber")? },
        "XMLEXPR" => Expr::Xml(Box::new(xml(node)?)),
        name => match json_kind(name) {
            Some(kind) => Expr::Json(Box::new(json(kind, node)?)),
            None => return Ok(None),
        },
    }))
}
