//! Clauses that a plain SELECT has not: set operations, grouping sets, windows, sub-selects in expressions.

use super::build::{Result, exprs, index, named, optional, query, sort_groups};
use super::{Aggref, Expr, Query, SortGroup, Target};
use crate::read::{Item, Node, ReadError};

/// `SetOperationStmt`, down to the sub-queries of the range table.
#[derive(Debug, Clone, PartialEq)]
pub enum SetTree {
    /// Counts from 1.
    Leaf(usize),
    Node(Box<SetNode>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct SetNode {
    pub op: SetOp,
    pub all: bool,
    pub left: SetTree,
    pub right: SetTree,
    /// Type OIDs of the columns.
    pub types: Vec<u32>,
    pub collations: Vec<u32>,
    /// Equality of each column, where duplicates matter; the references mean nothing.
    pub groups: Vec<SortGroup>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOp {
    Union,
    Intersect,
    Except,
    Other(i64),
}

/// `GroupingSet`; numbers are those of `Target::sort_group_ref`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupingSet {
    Empty,
    Simple(Vec<u32>),
    Rollup(Vec<GroupingSet>),
    Cube(Vec<GroupingSet>),
    Sets(Vec<GroupingSet>),
}

/// `WindowClause`
#[derive(Debug, Clone, PartialEq)]
pub struct WindowClause {
    pub partition: Vec<SortGroup>,
    pub order: Vec<SortGroup>,
    /// `FRAMEOPTION_*` bits of `parsenodes.h`.
    pub frame: i64,
    pub start: Option<Expr>,
    pub end: Option<Expr>,
    /// `in_range` support functions of a RANGE frame with offsets, else 0.
    pub in_range: [u32; 2],
    /// What `WindowFunc::window` names it by.
    pub number: u32,
}

/// `WindowFunc`
#[derive(Debug, Clone, PartialEq)]
pub struct WindowFunc {
    /// The call as of an aggregate, which it is where `is_aggregate`.
    pub call: Aggref,
    pub window: u32,
    pub is_aggregate: bool,
}

/// `SubLinkType`, in its order
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubLinkKind {
    Exists,
    All,
    Any,
    RowCompare,
    Scalar,
    MultiExpr,
    Array,
    Cte,
}

/// `SubLink`
#[derive(Debug, Clone, PartialEq)]
pub struct SubLink {
    pub kind: SubLinkKind,
    /// The comparison of ANY and ALL; columns of the sub-select are `Param`s of kind 2.
    pub test: Option<Expr>,
    pub query: Query,
}

pub(super) fn sub_link(node: &Node<'_>) -> Result<SubLink> {
    use SubLinkKind::*;
    const ORDER: [SubLinkKind; 8] = [Exists, All, Any, RowCompare, Scalar, MultiExpr, Array, Cte];
    let kind = usize::try_from(node.int("subLinkType")?).ok().and_then(|n| ORDER.get(n).copied());
    match (kind, node.get("subselect")) {
        (Some(kind), Some(Item::Node(body))) if body.name == "QUERY" => {
            Ok(SubLink { kind, test: optional(node, "testexpr")?, query: query(body)? })
        }
        _ => Err(ReadError::Field("subselect", node.name.to_owned())),
    }
}

pub(super) fn references(node: &Node<'_>, field: &'static str) -> Result<Vec<u32>> {
    let wrong = || ReadError::Field(field, node.name.to_owned());
    node.numbers(field)?.into_iter().map(|n| u32::try_from(n).map_err(|_| wrong())).collect()
}

pub(super) fn set_tree(item: &Item<'_>) -> Result<SetTree> {
    let Item::Node(node) = item else { return Err(ReadError::Field("setOperations", "a list".to_owned())) };
    if node.name == "RANGETBLREF" {
        return Ok(SetTree::Leaf(index(node, "rtindex")?));
    }
    let node = named(item, "SETOPERATIONSTMT")?;
    Ok(SetTree::Node(Box::new(SetNode {
        op: match node.int("op")? {
            1 => SetOp::Union,
            2 => SetOp::Intersect,
            3 => SetOp::Except,
            other => SetOp::Other(other),
        },
        all: node.bool("all")?,
        left: set_tree(node.get("larg").unwrap_or(&Item::Null))?,
        right: set_tree(node.get("rarg").unwrap_or(&Item::Null))?,
        types: references(node, "colTypes")?,
        collations: references(node, "colCollations")?,
        groups: sort_groups(node, "groupClauses")?,
    })))
}

pub(super) fn grouping_set(item: &Item<'_>) -> Result<GroupingSet> {
    let node = named(item, "GROUPINGSET")?;
    let sets = || node.list("content")?.iter().map(grouping_set).collect::<Result<Vec<_>>>();
    Ok(match node.int("kind")? {
        0 => GroupingSet::Empty,
        1 => GroupingSet::Simple(references(node, "content")?),
        2 => GroupingSet::Rollup(sets()?),
        3 => GroupingSet::Cube(sets()?),
        4 => GroupingSet::Sets(sets()?),
        _ => return Err(ReadError::Field("kind", node.name.to_owned())),
    })
}

pub(super) fn window_clause(item: &Item<'_>) -> Result<WindowClause> {
    let node = named(item, "WINDOWCLAUSE")?;
    Ok(WindowClause {
        partition: sort_groups(node, "partitionClause")?,
        order: sort_groups(node, "orderClause")?,
        frame: node.int("frameOptions")?,
        start: optional(node, "startOffset")?,
        end: optional(node, "endOffset")?,
        in_range: [node.oid("startInRangeFunc")?, node.oid("endInRangeFunc")?],
        number: node.oid("winref")?,
    })
}

pub(super) fn window_func(node: &Node<'_>) -> Result<WindowFunc> {
    let args = exprs(node, "args")?;
    let target = |(index, expr)| Target { expr, resno: index as i16 + 1, name: None, sort_group_ref: 0, junk: false };
    Ok(WindowFunc {
        call: Aggref {
            fnoid: node.oid("winfnoid")?,
            type_oid: node.oid("wintype")?,
            collation: node.oid("wincollid")?,
            input_collation: node.oid("inputcollid")?,
            direct_args: Vec::new(),
            args: args.into_iter().enumerate().map(target).collect(),
            order: Vec::new(),
            distinct: Vec::new(),
            filter: optional(node, "aggfilter")?.map(Box::new),
            star: node.bool("winstar")?,
            variadic: false,
            kind: 'n',
            levels_up: 0,
            split: 0,
        },
        window: node.oid("winref")?,
        is_aggregate: node.bool("winagg")?,
    })
}
