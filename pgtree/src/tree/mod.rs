//! The typed tree of one analyzed and rewritten SELECT. Knows the fields of PostgreSQL 15's `Query` and expression nodes (`parsenodes.h`,
//! `primnodes.h`); judges nothing: what is not known here is [`Expr::Unknown`], [`RteKind::Unknown`] or [`FromItem::Unknown`] with its name.

mod build;
mod clauses;
#[cfg(test)]
mod tests;

pub use build::parse;
pub use clauses::*;

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
    pub has_row_marks: bool,
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
    /// None where the body is not a SELECT or the CTE has SEARCH or CYCLE clauses.
    pub query: Option<Box<Query>>,
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
    pub has_security_quals: bool,
    /// Columns, dropped ones included.
    pub column_count: usize,
}

/// `RangeTblEntry.rtekind` with its own fields
#[derive(Debug, Clone, PartialEq)]
pub enum RteKind {
    Relation {
        relid: u32,
        relkind: char,
        tablesample: bool,
    },
    Subquery {
        query: Box<Query>,
        security_barrier: bool,
    },
    Join {
        kind: i64,
        alias_vars: Vec<Expr>,
    },
    Function {
        functions: Vec<RangeFunction>,
        ordinality: bool,
    },
    Values {
        rows: Vec<Vec<Expr>>,
    },
    Cte {
        name: String,
        levels_up: i64,
        self_reference: bool,
    },
    /// No FROM clause (`RTE_RESULT`).
    Result,
    Unknown(i64),
}

/// `RangeTblFunction`
#[derive(Debug, Clone, PartialEq)]
pub struct RangeFunction {
    pub expr: Expr,
    pub column_count: i64,
    /// Whether a column definition list stands behind it.
    pub has_column_definitions: bool,
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

/// The type of rows without a name.
pub(crate) const RECORD: u32 = 2249;

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
        element_oid: u32,
        multidims: bool,
    },
    /// A cast of an array by its elements.
    ArrayCoerce {
        arg: Box<Expr>,
        type_oid: u32,
    },
    /// A row of values without a type of its own; any other row is unknown.
    Row(Vec<Expr>),
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
        levels_up: u32,
    },
    /// Any other node, by its name in the tree.
    Unknown(String),
}

impl Query {
    /// The one column that an expression sees of it.
    pub fn first_target(&self) -> Option<&Expr> {
        self.targets.iter().find(|t| !t.junk).map(|t| &t.expr)
    }
}

impl Expr {
    /// The result type (`exprType`); 0 for nodes whose type is not known here.
    pub fn type_oid(&self) -> u32 {
        match self {
            Expr::Var(v) => v.type_oid,
            Expr::Const(c) => c.type_oid,
            Expr::Param(p) => p.type_oid,
            Expr::Aggref(a) => a.type_oid,
            Expr::Func(c) | Expr::Op(c) | Expr::Distinct(c) | Expr::NullIf(c) => c.type_oid,
            Expr::ScalarArray { .. } | Expr::Bool(..) | Expr::NullTest { .. } | Expr::BooleanTest { .. } => {
                crate::oid::BOOL
            }
            Expr::Relabel { type_oid, .. }
            | Expr::CoerceViaIo { type_oid, .. }
            | Expr::Case { type_oid, .. }
            | Expr::CaseTest { type_oid, .. }
            | Expr::Coalesce { type_oid, .. }
            | Expr::MinMax { type_oid, .. }
            | Expr::Array { type_oid, .. }
            | Expr::ArrayCoerce { type_oid, .. }
            | Expr::SqlValue { type_oid, .. } => *type_oid,
            Expr::Window(w) => w.call.type_oid,
            Expr::Grouping { .. } => crate::oid::INT4,
            Expr::Row(_) => RECORD,
            Expr::Collate { arg, .. } => arg.type_oid(),
            Expr::SubLink(link) => match link.kind {
                SubLinkKind::Exists | SubLinkKind::All | SubLinkKind::Any | SubLinkKind::RowCompare => crate::oid::BOOL,
                SubLinkKind::Scalar => link.query.first_target().map_or(0, Expr::type_oid),
                SubLinkKind::MultiExpr | SubLinkKind::Array | SubLinkKind::Cte => 0,
            },
            Expr::Unknown(_) => 0,
        }
    }

    /// The type modifier (`exprTypmod` of `nodeFuncs.c`); -1 where there is none.
    pub fn typmod(&self) -> i32 {
        let common = |type_oid: u32, items: &mut dyn Iterator<Item = &Expr>| -> i32 {
            let mut typmod = None;
            for item in items {
                let own = item.typmod();
                if item.type_oid() != type_oid || own < 0 || typmod.is_some_and(|t| t != own) {
                    return -1;
                }
                typmod = Some(own);
            }
            typmod.unwrap_or(-1)
        };
        match self {
            Expr::Var(v) => v.typmod,
            Expr::Const(c) => c.typmod,
            Expr::Param(p) => p.typmod,
            Expr::Func(call) => call.length_coercion().unwrap_or(-1),
            Expr::NullIf(call) => call.args.first().map_or(-1, Expr::typmod),
            Expr::Relabel { typmod, .. } | Expr::CaseTest { typmod, .. } | Expr::SqlValue { typmod, .. } => {
                *typmod
            }
            Expr::Collate { arg, .. } => arg.typmod(),
            Expr::Case { whens, default, type_oid, .. } => match default {
                Some(default) => common(
                    *type_oid,
                    &mut std::iter::once(&**default).chain(whens.iter().map(|(_, result)| result)),
                ),
                None => -1,
            },
            Expr::Coalesce { args, type_oid, .. } | Expr::MinMax { args, type_oid, .. } => {
                common(*type_oid, &mut args.iter())
            }
            Expr::SubLink(link) if link.kind == SubLinkKind::Scalar => {
                link.query.first_target().map_or(-1, Expr::typmod)
            }
            _ => -1,
        }
    }

    /// The collation of the result (`exprCollation`); 0 where there is none.
    pub fn collation(&self) -> u32 {
        match self {
            Expr::Var(v) => v.collation,
            Expr::Const(c) => c.collation,
            Expr::Param(p) => p.collation,
            Expr::Aggref(a) => a.collation,
            Expr::Func(c) | Expr::Op(c) | Expr::NullIf(c) => c.collation,
            Expr::Relabel { collation, .. }
            | Expr::CoerceViaIo { collation, .. }
            | Expr::Collate { collation, .. }
            | Expr::Case { collation, .. }
            | Expr::CaseTest { collation, .. }
            | Expr::Coalesce { collation, .. }
            | Expr::MinMax { collation, .. } => *collation,
            Expr::Window(w) => w.call.collation,
            Expr::SubLink(link) if link.kind == SubLinkKind::Scalar => {
                link.query.first_target().map_or(0, Expr::collation)
            }
            _ => 0,
        }
    }
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        (self.op, self.func, self.type_oid, self.retset, self.variadic)
            == (other.op, other.func, other.type_oid, other.retset, other.variadic)
            && (self.collation, self.input_collation) == (other.collation, other.input_collation)
            && self.args == other.args
    }
}

impl Call {
    /// The type modifier of a length coercion (`exprIsLengthCoercion`): a cast of two or three arguments whose second is an int4 constant.
    fn length_coercion(&self) -> Option<i32> {
        if !matches!(self.form, 1 | 2) || !(2..=3).contains(&self.args.len()) {
            return None;
        }
        match &self.args[1] {
            Expr::Const(c) if c.type_oid == crate::oid::INT4 => {
                let bytes = c.datum.as_ref()?.get(..4)?;
                Some(i32::from_le_bytes(bytes.try_into().ok()?))
            }
            _ => None,
        }
    }
}
