//! The typed tree of one analyzed and rewritten SELECT. Knows the fields of PostgreSQL 15's `Query` and expression nodes (`parsenodes.h`,
//! `primnodes.h`); judges nothing: what is not known here is [`Expr::Unknown`], [`RteKind::Unknown`] or [`FromItem::Unknown`] with its name.

mod build;
mod clauses;
mod nodes;
mod rewrite;
#[cfg(test)]
mod tests;
mod typing;
mod walk;

pub use build::parse;
pub use clauses::*;
pub use nodes::*;
pub use rewrite::{expr as rewrite_expr, rewrite};
pub use walk::{Part, expr as walk_expr, walk};

use crate::read::ReadError;

/// Why a text is not the tree of one statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the statement was rewritten to {0} statements")]
    NotOne(usize),
    #[error("a {0} stands where a Query is expected")]
    NotQuery(String),
}

/// `Query.commandType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Select,
    /// INSERT, UPDATE, DELETE, MERGE, utility: the number of `CmdType`.
    Other(i64),
}

/// One `Query` node.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub command: Command,
    pub has_aggs: bool,
    pub has_window_funcs: bool,
    pub has_target_srfs: bool,
    pub has_sublinks: bool,
    pub has_distinct_on: bool,
    pub has_recursive: bool,
    pub has_modifying_cte: bool,
    pub has_for_update: bool,
    pub has_row_security: bool,
    pub ctes: Vec<Cte>,
    /// Range table; `Var.varno` and `FromItem::Ref` count from 1.
    pub rtable: Vec<Rte>,
    pub from: Vec<FromItem>,
    pub quals: Option<Expr>,
    pub targets: Vec<Target>,
    pub group: Vec<SortGroup>,
    pub group_distinct: bool,
    /// Empty for a plain GROUP BY.
    pub grouping_sets: Vec<GroupingSet>,
    pub having: Option<Expr>,
    pub windows: Vec<WindowClause>,
    pub distinct: Vec<SortGroup>,
    pub sort: Vec<SortGroup>,
    pub limit_offset: Option<Expr>,
    pub limit_count: Option<Expr>,
    /// FETCH FIRST ... WITH TIES
    pub with_ties: bool,
    /// FOR UPDATE and its kin.
    pub row_marks: Vec<RowMark>,
    /// UNION, INTERSECT, EXCEPT: the targets then name columns of the leftmost leaf.
    pub set_operations: Option<SetTree>,
}

/// `CommonTableExpr`
#[derive(Debug, Clone, PartialEq)]
pub struct Cte {
    pub name: String,
    pub recursive: bool,
    /// Computed once and whole, whatever is read of it: it is read more than once, or was said to be MATERIALIZED.
    pub whole: bool,
    /// None where the body is not a SELECT.
    pub query: Option<Box<Query>>,
    pub search: Option<CteSearch>,
    pub cycle: Option<CteCycle>,
}

/// `RangeTblEntry`
#[derive(Debug, Clone, PartialEq)]
pub struct Rte {
    pub kind: RteKind,
    /// Alias or name, for messages only.
    pub name: String,
    pub lateral: bool,
    pub inh: bool,
    /// `ACL_SELECT` and other bits that the role `check_as_user` (0: the current user) needs.
    pub required_perms: u64,
    pub check_as_user: u32,
    /// Attribute numbers read; 0 is the whole row, system columns are negative.
    pub selected_cols: Vec<i32>,
    /// Of row-level security, and of conditions on security barrier views; to be computed before anything else sees the rows.
    pub security_quals: Vec<Expr>,
    /// Columns, dropped ones included.
    pub column_count: usize,
}

/// `RangeTblEntry.rtekind` with its own fields
#[derive(Debug, Clone, PartialEq)]
pub enum RteKind {
    Relation {
        relid: u32,
        relkind: char,
        sample: Option<TableSample>,
    },
    Subquery {
        query: Box<Query>,
        security_barrier: bool,
        /// The view that stood here, where the version says so (16 and newer: the entry then also holds the view's own rights); else 0.
        view: u32,
    },
    Join {
        kind: i64,
        alias_vars: Vec<Expr>,
    },
    Function {
        functions: Vec<RangeFunction>,
        ordinality: bool,
    },
    /// XMLTABLE, JSON_TABLE
    TableFunction(Box<TableFunction>),
    Values {
        rows: Vec<Vec<Expr>>,
    },
    Cte {
        name: String,
        levels_up: i64,
        self_reference: bool,
    },
    /// A trigger's transition table.
    NamedTuplestore {
        name: String,
        relid: u32,
    },
    /// No FROM clause (`RTE_RESULT`).
    Result,
    /// What is grouped by (18 and newer): a column of this entry is the expression of that number.
    Group {
        exprs: Vec<Expr>,
    },
    Unknown(i64),
}

impl RteKind {
    /// The table whose rows are read, or the view that stood here.
    pub fn relid(&self) -> Option<u32> {
        match self {
            RteKind::Relation { relid, .. } | RteKind::NamedTuplestore { relid, .. } => Some(*relid),
            RteKind::Subquery { view, .. } if *view != 0 => Some(*view),
            _ => None,
        }
    }
}

/// `RangeTblFunction`
#[derive(Debug, Clone, PartialEq)]
pub struct RangeFunction {
    pub expr: Expr,
    pub column_count: i64,
    /// The column definition list behind it: type, type modifier and collation of each.
    pub columns: Vec<(u32, i32, u32)>,
}

/// `RangeTblRef`, `JoinExpr`, `FromExpr`
#[derive(Debug, Clone, PartialEq)]
pub enum FromItem {
    Ref(usize),
    Join { kind: JoinKind, left: Box<FromItem>, right: Box<FromItem>, quals: Option<Expr>, rtindex: usize },
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Full,
    Right,
    Other(i64),
}

/// `TargetEntry`
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub expr: Expr,
    pub resno: i16,
    pub name: Option<String>,
    /// Referenced by `SortGroup::target`; 0 where nothing refers to it.
    pub sort_group_ref: u32,
    pub junk: bool,
}

/// `SortGroupClause`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortGroup {
    pub target: u32,
    pub eqop: u32,
    /// 0 where the type can only be hashed.
    pub sortop: u32,
    pub nulls_first: bool,
}

/// `BoolExpr.boolop`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoolOp {
    And,
    Or,
    Not,
}

/// `BoolTestType`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoolTest {
    IsTrue,
    IsNotTrue,
    IsFalse,
    IsNotFalse,
    IsUnknown,
    IsNotUnknown,
}

/// `SQLValueFunctionOp`, in its order
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlValueOp {
    CurrentDate,
    CurrentTime,
    CurrentTimeN,
    CurrentTimestamp,
    CurrentTimestampN,
    LocalTime,
    LocalTimeN,
    LocalTimestamp,
    LocalTimestampN,
    CurrentRole,
    CurrentUser,
    User,
    SessionUser,
    CurrentCatalog,
    CurrentSchema,
}

/// A constant as the server holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Const {
    pub type_oid: u32,
    pub typmod: i32,
    pub collation: u32,
    /// Fixed length in bytes, -1 for varlena, -2 for a C string.
    pub len: i32,
    pub by_value: bool,
    /// None is NULL. By-value datums are eight bytes.
    pub datum: Option<Vec<u8>>,
}

/// A column of a range table entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Var {
    pub varno: usize,
    /// 0 is the whole row, negative a system column.
    pub attno: i16,
    pub type_oid: u32,
    pub typmod: i32,
    pub collation: u32,
    pub levels_up: u32,
}

/// `Param`: only `PARAM_EXTERN` (kind 0) comes from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub kind: i64,
    pub id: i64,
    pub type_oid: u32,
    pub typmod: i32,
    pub collation: u32,
}

/// `Aggref`
#[derive(Debug, Clone, PartialEq)]
pub struct Aggref {
    pub fnoid: u32,
    pub type_oid: u32,
    pub collation: u32,
    pub input_collation: u32,
    /// Of an ordered-set aggregate: what stands in its own parentheses.
    pub direct_args: Vec<Expr>,
    pub args: Vec<Target>,
    pub order: Vec<SortGroup>,
    pub distinct: Vec<SortGroup>,
    pub filter: Option<Box<Expr>>,
    pub star: bool,
    pub variadic: bool,
    /// `n` normal, `o` ordered-set, `h` hypothetical-set.
    pub kind: char,
    pub levels_up: u32,
    pub split: i64,
}

/// A function call, or an operator with its implementing function. Equality ignores `form`, as PostgreSQL's `equal()` does.
#[derive(Debug, Clone)]
pub struct Call {
    /// `pg_operator` OID; 0 for a function call.
    pub op: u32,
    /// `pg_proc` OID.
    pub func: u32,
    pub type_oid: u32,
    pub retset: bool,
    pub variadic: bool,
    pub collation: u32,
    pub input_collation: u32,
    /// `CoercionForm` of a function call: 0 call syntax, 1 explicit cast, 2 implicit cast, 3 SQL syntax.
    pub form: i64,
    pub args: Vec<Expr>,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Var(Var),
    Const(Const),
    Param(Param),
    Aggref(Box<Aggref>),
    Func(Call),
    Op(Call),
    /// IS DISTINCT FROM; the operator is the type's equality.
    Distinct(Call),
    /// NULLIF; the operator is the type's equality.
    NullIf(Call),
    /// `scalar op ANY (array)` (`use_or`) or `op ALL`.
    ScalarArray {
        op: u32,
        func: u32,
        use_or: bool,
        input_collation: u32,
        args: Vec<Expr>,
    },
    Bool(BoolOp, Vec<Expr>),
    Relabel {
        arg: Box<Expr>,
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    CoerceViaIo {
        arg: Box<Expr>,
        type_oid: u32,
        collation: u32,
    },
    /// COLLATE; gone after planning, present in analyzed trees.
    Collate {
        arg: Box<Expr>,
        collation: u32,
    },
    NullTest {
        arg: Box<Expr>,
        is_null: bool,
        row: bool,
    },
    BooleanTest {
        arg: Box<Expr>,
        test: BoolTest,
    },
    /// CASE; with `arg` the conditions compare a `CaseTest` with it.
    Case {
        arg: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        default: Option<Box<Expr>>,
        type_oid: u32,
        collation: u32,
    },
    CaseTest {
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    Coalesce {
        args: Vec<Expr>,
        type_oid: u32,
        collation: u32,
    },
    MinMax {
        greatest: bool,
        args: Vec<Expr>,
        type_oid: u32,
        collation: u32,
        input_collation: u32,
    },
    Array {
        elements: Vec<Expr>,
        type_oid: u32,
        collation: u32,
        element_oid: u32,
        multidims: bool,
    },
    SqlValue {
        op: SqlValueOp,
        type_oid: u32,
        typmod: i32,
    },
    Window(Box<WindowFunc>),
    SubLink(Box<SubLink>),
    /// GROUPING(): `Target::sort_group_ref`s, of the query that many levels up.
    Grouping {
        refs: Vec<u32>,
        args: Vec<Expr>,
        levels_up: u32,
    },
    /// `ROW(...)`
    Row {
        args: Vec<Expr>,
        type_oid: u32,
    },
    /// `(a, b) < (c, d)`; one operator a column.
    RowCompare {
        /// `RowCompareType`: 1 `<`, 2 `<=`, 4 `>=`, 5 `>`; (in)equality is an AND or OR of conditions.
        compare: i64,
        ops: Vec<u32>,
        collations: Vec<u32>,
        left: Vec<Expr>,
        right: Vec<Expr>,
    },
    /// `value[index]`, `value[lower:upper]`; bounds that are left out are None.
    Subscript(Box<Subscript>),
    /// A field of a composite value.
    Field {
        arg: Box<Expr>,
        number: i16,
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    /// A cast of each element, from a [`Expr::CaseTest`].
    ArrayCoerce {
        arg: Box<Expr>,
        element: Box<Expr>,
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    /// From one table's row type to that of its parent.
    ConvertRowtype {
        arg: Box<Expr>,
        type_oid: u32,
    },
    CoerceToDomain {
        arg: Box<Expr>,
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    /// VALUE in a domain's CHECK.
    DomainValue {
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    /// DEFAULT in VALUES.
    SetToDefault {
        type_oid: u32,
        typmod: i32,
        collation: u32,
    },
    /// WHERE CURRENT OF
    CurrentOf {
        varno: usize,
    },
    /// An identity column's next value.
    NextValue {
        sequence: u32,
        type_oid: u32,
    },
    /// `name => value`, by its position among the arguments.
    NamedArg {
        arg: Box<Expr>,
        number: i64,
    },
    Xml(Box<Xml>),
    /// SQL/JSON of versions 16 and newer.
    Json(Box<Json>),
    /// An implicit list, where a node holds one in the place of an expression.
    List(Vec<Expr>),
    /// A column that was dropped since.
    Dropped,
    /// Any other node, by its name in the tree.
    Unknown(String),
}
