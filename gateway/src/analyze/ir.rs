//! A statement in our own terms: relations whose outputs are numbered, expressions typed by PostgreSQL's analysis. Every node is one that the
//! planner can build exactly. ✗ names, SQL, DataFusion.

use lake::types::ColType;
use pgexact::datetime::Unit;
pub use pgtree::oid::{Arith, Compare};
pub use pgtree::tree::BoolTest;
use pgtree::value::Value;

/// A relation. Outputs are numbered from 0; those that nothing needs may be left out (see `prune`), their numbers stay.
#[derive(Debug, Clone, PartialEq)]
pub enum Rel {
    /// The one row of a SELECT without FROM.
    OneRow,
    /// A tiered table (`source` is its OID) or a virtual table (`source` is its function's OID).
    Scan {
        source: u32,
        columns: Vec<ScanColumn>,
        width: usize,
    },
    Filter {
        input: Box<Rel>,
        predicate: Expr,
    },
    /// `outputs` are (number, expression).
    Project {
        input: Box<Rel>,
        outputs: Vec<(usize, Expr)>,
        width: usize,
    },
    /// Outputs: the groups, then the aggregates.
    Aggregate {
        input: Box<Rel>,
        groups: Vec<Expr>,
        aggregates: Vec<Aggregate>,
    },
    Distinct {
        input: Box<Rel>,
    },
    Sort {
        input: Box<Rel>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<Rel>,
        offset: Option<Constant>,
        count: Option<Constant>,
    },
    /// Outputs: those of the left, then those of the right.
    Join {
        kind: JoinKind,
        left: Box<Rel>,
        right: Box<Rel>,
        on: Option<Expr>,
    },
}

/// A column of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanColumn {
    /// The number of the output.
    pub output: usize,
    /// In the provider's schema.
    pub name: String,
    /// In PostgreSQL; the position for virtual tables.
    pub attnum: i16,
    pub ty: ColType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

/// An aggregate call.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    pub kind: pgtree::oid::Aggregate,
    /// None for count(*).
    pub arg: Option<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub ty: ColType,
}

/// A value that is the same for every row.
#[derive(Debug, Clone, PartialEq)]
pub enum Constant {
    Literal(Value),
    /// Index into `Analysis::params`.
    Param(usize),
    /// Index into `Analysis::folds`.
    Fold(usize),
}

/// An expression and its type. A numeric of a fixed display scale is `Numeric`, any other `NumericText`.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub node: Node,
    pub ty: ColType,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// An output of the input relation.
    Column(usize),
    Constant(Constant),
    Compare(Compare, Box<Expr>, Box<Expr>),
    /// IS DISTINCT FROM
    Distinct(Box<Expr>, Box<Expr>),
    /// IN, or NOT IN.
    InList {
        arg: Box<Expr>,
        list: List,
        negated: bool,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    IsNotNull(Box<Expr>),
    BoolTest(Box<Expr>, BoolTest),
    Like {
        arg: Box<Expr>,
        pattern: Constant,
        negated: bool,
    },
    /// `date_bin(stride, arg, origin)`; the stride is an interval, the origin has the type of `arg`.
    DateBin {
        arg: Box<Expr>,
        stride: Constant,
        origin: Constant,
    },
    /// Conditions and results; all results and the default have the type of the whole.
    Case {
        whens: Vec<(Expr, Expr)>,
        default: Option<Box<Expr>>,
    },
    Coalesce(Vec<Expr>),
    NullIf(Box<Expr>, Box<Expr>),
    Call(Kernel, Vec<Expr>),
}

/// The right side of IN.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    Items(Vec<Constant>),
    /// A parameter or fold of array type.
    Array(Constant),
}

/// A function computed by our own kernels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Checked arithmetic over integers of the result's width.
    IntArith(Arith),
    IntNegate,
    IntAbs,
    IntCast,
    /// Exact arithmetic over decimals; never `Div`.
    NumericArith(Arith),
    /// The quotient with PostgreSQL's scale, as text.
    NumericDivide,
    NumericNegate,
    NumericAbs,
    /// Integer or decimal to the result's precision and scale; 22003 where it does not fit.
    NumericCast,
    /// Rounds to that many digits after the point; the result's scale is that.
    NumericRound(i32),
    DateTrunc(Unit),
    /// In the session's zone, or in the one named.
    DateTruncTz(Unit, Option<String>),
    TimestampTzToDate,
    TimestampToDate,
    TextConcat,
    TextLength,
    /// `jsonb ->> key` and `jsonb -> key`
    JsonbField {
        key: String,
        as_text: bool,
    },
}

impl Expr {
    pub fn column(number: usize, ty: ColType) -> Expr {
        Expr { node: Node::Column(number), ty }
    }

    pub fn boolean(node: Node) -> Expr {
        Expr { node, ty: ColType::Bool }
    }

    /// Calls `f` with the number of every column that the expression reads.
    pub fn columns(&self, f: &mut dyn FnMut(usize)) {
        match &self.node {
            Node::Column(number) => f(*number),
            Node::Constant(_) => {}
            Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => {
                a.columns(f);
                b.columns(f);
            }
            Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => arg.columns(f),
            Node::And(items) | Node::Or(items) | Node::Coalesce(items) | Node::Call(_, items) => {
                items.iter().for_each(|e| e.columns(f))
            }
            Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => a.columns(f),
            Node::Case { whens, default } => {
                for (condition, result) in whens {
                    condition.columns(f);
                    result.columns(f);
                }
                if let Some(default) = default {
                    default.columns(f);
                }
            }
        }
    }

    /// Whether the expression has at most `nodes` nodes.
    pub fn is_small(&self, nodes: usize) -> bool {
        fn left(expr: &Expr, nodes: usize) -> Option<usize> {
            let nodes = nodes.checked_sub(1)?;
            let several = |items: &[&Expr]| items.iter().try_fold(nodes, |n, e| left(e, n));
            match &expr.node {
                Node::Column(_) | Node::Constant(_) => Some(nodes),
                Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => several(&[a, b]),
                Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => {
                    left(arg, nodes)
                }
                Node::And(items) | Node::Or(items) | Node::Coalesce(items) | Node::Call(_, items) => {
                    items.iter().try_fold(nodes, |n, e| left(e, n))
                }
                Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => left(a, nodes),
                Node::Case { whens, default } => {
                    let mut all: Vec<&Expr> = whens.iter().flat_map(|(c, r)| [c, r]).collect();
                    all.extend(default.as_deref());
                    several(&all)
                }
            }
        }
        left(self, nodes).is_some()
    }

    /// The constant, if the expression is one.
    pub fn as_constant(&self) -> Option<&Constant> {
        match &self.node {
            Node::Constant(c) => Some(c),
            _ => None,
        }
    }
}

impl Rel {
    /// How many outputs the relation has, those left out included.
    pub fn width(&self) -> usize {
        match self {
            Rel::OneRow => 0,
            Rel::Scan { width, .. } | Rel::Project { width, .. } => *width,
            Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. } => input.width(),
            Rel::Aggregate { groups, aggregates, .. } => groups.len() + aggregates.len(),
            Rel::Join { left, right, .. } => left.width() + right.width(),
        }
    }

    /// Whether it reads the table or virtual table with this OID.
    pub fn reads(&self, oid: u32) -> bool {
        match self {
            Rel::OneRow => false,
            Rel::Scan { source, .. } => *source == oid,
            Rel::Project { input, .. }
            | Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. }
            | Rel::Aggregate { input, .. } => input.reads(oid),
            Rel::Join { left, right, .. } => left.reads(oid) || right.reads(oid),
        }
    }

    /// The types of all outputs, before any was left out.
    pub fn types(&self) -> Vec<ColType> {
        match self {
            Rel::OneRow => Vec::new(),
            Rel::Scan { columns, .. } => columns.iter().map(|c| c.ty).collect(),
            Rel::Project { outputs, .. } => outputs.iter().map(|(_, e)| e.ty).collect(),
            Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. } => input.types(),
            Rel::Aggregate { groups, aggregates, .. } => {
                groups.iter().map(|g| g.ty).chain(aggregates.iter().map(|a| a.ty)).collect()
            }
            Rel::Join { left, right, .. } => {
                let mut types = left.types();
                types.extend(right.types());
                types
            }
        }
    }
}
