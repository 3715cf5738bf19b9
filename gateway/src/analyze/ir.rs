//! A statement in our own terms: relations whose outputs are numbered, expressions typed by PostgreSQL's analysis. Every node is one that the
//! planner can build exactly. ✗ names, SQL, DataFusion.

use lake::types::ColType;
use pgexact::cut::Cut;
use pgexact::datetime::{Interval, Unit};
use pgexact::extract::Field;
use pgexact::scalar::Scalar;
pub use pgtree::oid::{Arith, Compare};
pub use pgtree::tree::BoolTest;
use pgtree::value::Value;

/// A relation. Outputs are numbered from 0; those that nothing needs may be left out (see `prune`), their numbers stay.
#[derive(Debug, Clone, PartialEq)]
pub enum Rel {
    /// The one row of a SELECT without FROM.
    OneRow,
    /// A tiered table or one of PostgreSQL's own (`source` is its OID), or a virtual table (`source` is its function's OID).
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
    /// Outputs: those of the left, then those of the right (which `Semi` and `Anti` do not show).
    Join {
        kind: JoinKind,
        left: Box<Rel>,
        right: Box<Rel>,
        on: Option<Expr>,
    },
    /// Outputs: those of both sides, which have the same types.
    SetOp {
        op: SetOp,
        left: Box<Rel>,
        right: Box<Rel>,
    },
    Values {
        rows: Vec<Vec<Constant>>,
        types: Vec<ColType>,
    },
    /// `generate_series`; integers step by one where no step is given.
    Series {
        start: Constant,
        stop: Constant,
        step: Option<Constant>,
        ty: ColType,
    },
    /// Outputs: those of the input, then the first of `value`, which is exactly one row.
    Attach {
        input: Box<Rel>,
        value: Box<Rel>,
    },
    /// Outputs: those of the input, then the calls.
    Window {
        input: Box<Rel>,
        calls: Vec<WindowCall>,
    },
    /// Of the rows that are equal in the outputs `keys` the first by `sort`. Outputs as of the input.
    DistinctOn {
        input: Box<Rel>,
        keys: Vec<usize>,
        sort: Vec<SortKey>,
    },
    /// One row with the first output of the input's only row, or with NULL if it has none; 21000 if it has more.
    Single {
        input: Box<Rel>,
    },
    /// `then`, once all of `first` was computed without an error; what came of it is not looked at. Only at the top of a plan.
    After {
        first: Vec<Rel>,
        then: Box<Rel>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOp {
    UnionAll,
    Union,
    Intersect,
    Except,
}

/// A window function over a relation.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowCall {
    pub function: WindowFunction,
    pub args: Vec<Expr>,
    pub filter: Option<Expr>,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
    pub frame: Frame,
    pub ty: ColType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowFunction {
    RowNumber,
    Rank,
    DenseRank,
    /// So many rows before the current one, or after it where negative; the second argument is for where there is none.
    Lag(i64),
    FirstValue,
    LastValue,
    Aggregate(pgtree::oid::Aggregate),
}

/// The rows that a window function sees of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub units: FrameUnits,
    pub start: Bound,
    pub end: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameUnits {
    Rows,
    /// Peers come together.
    Range,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    First,
    /// So many rows.
    Preceding(u64),
    Current,
    Following(u64),
    Last,
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
    Right,
    Full,
    /// Rows of the left for which some row of the right fulfils the condition: EXISTS, IN.
    Semi,
    /// Rows of the left for which none does.
    Anti,
}

impl WindowCall {
    /// All that it reads of the relation.
    pub fn reads(&self) -> impl Iterator<Item = &Expr> {
        self.args.iter().chain(&self.filter).chain(&self.partition).chain(self.order.iter().map(|k| &k.expr))
    }

    pub fn reads_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let order = self.order.iter_mut().map(|k| &mut k.expr);
        self.args.iter_mut().chain(&mut self.filter).chain(&mut self.partition).chain(order)
    }
}

impl JoinKind {
    /// Whether the rows of the right are shown.
    pub fn shows_right(self) -> bool {
        !matches!(self, JoinKind::Semi | JoinKind::Anti)
    }
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
    /// What stands between the values of `string_agg`, the fraction of a percentile.
    pub param: Option<Constant>,
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

/// A text that is the same for every row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Word {
    Literal(String),
    /// Index into `Analysis::params`.
    Param(usize),
    /// Index into `Analysis::folds`.
    Fold(usize),
}

/// An interval that is the same for every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    Literal(Interval),
    Param(usize),
    Fold(usize),
}

/// The right side of IN.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    Items(Vec<Constant>),
    /// A parameter or fold of array type.
    Array(Constant),
}

/// How a column of a key sorts.
pub use pgexact::ordered::Order;

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
    /// Over numerics of any scale, as text; never `Mod`.
    TextArith(Arith),
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
    /// A function of the arguments alone.
    Scalar(Scalar),
    /// The text of an integer, decimal, date, timestamp or (in the session's zone) timestamptz.
    ToText,
    TextToInt,
    /// `extract` or, with a float8 result, `date_part`; in the session's zone.
    Extract(Field),
    /// The epoch of a difference of two times.
    EpochBetween,
    ToChar(Word),
    /// timestamptz to timestamp, in the zone named or the session's.
    ToLocal(Option<Word>),
    /// timestamp to timestamptz
    ToInstant(Option<Word>),
    DateToTimestamp,
    /// In the session's zone, where it matters.
    AddInterval {
        span: Span,
        subtract: bool,
    },
    AddDays {
        subtract: bool,
    },
    DaysBetween,
    /// date_trunc by a unit that is a parameter; in the session's zone, where it matters.
    DateTruncBy(Word),
    /// To so many digits after the point.
    Cut(Cut, i32),
    /// Of a quotient.
    CutQuotient(Cut, i32),
    Sign,
    NumericToInt,
    FloatArith(Arith),
    Float(pgexact::real::Unary),
    FloatToInt,
    ToFloat,
    /// Where a float stands in PostgreSQL's order.
    FloatPlace,
    EpochToInstant,
    /// `jsonb -> index` and `jsonb ->> index`
    JsonbElement {
        index: i32,
        as_text: bool,
    },
    /// `jsonb #> path` and `jsonb #>> path`
    JsonbPath {
        path: Vec<String>,
        as_text: bool,
    },
    /// A decimal as text, where its scale is one of several.
    NumericToText,
    /// Of a sum, the largest scale that was summed and, for averages, the count.
    Rescale,
    Extreme {
        greatest: bool,
    },
    /// Of a count and a value: the value, where the count is one at most; else PostgreSQL answers.
    OnlyOne,
    /// The arguments as one value: equal where all are equal, and sorted as they say. An ordered aggregate reads `value` of them back; rows
    /// whose argument `skipped` is NULL have none. As the engine's bytes.
    Key {
        orders: Vec<Order>,
        value: usize,
        skipped: Option<usize>,
    },
    /// ILIKE; whether letters are more than the ASCII ones.
    ILike {
        pattern: Word,
        negated: bool,
        usual: bool,
    },
    /// `~`, `~*` and their negations.
    Regex {
        pattern: Word,
        insensitive: bool,
        negated: bool,
    },
    /// numeric's canonical text.
    TextToNumeric,
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

    /// Reads no column: the same for every row.
    pub fn is_constant(&self) -> bool {
        let mut constant = true;
        self.columns(&mut |_| constant = false);
        constant
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

    /// What it is made of.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.node {
            Node::Column(_) | Node::Constant(_) => Vec::new(),
            Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => vec![a, b],
            Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => vec![arg],
            Node::And(items) | Node::Or(items) | Node::Coalesce(items) | Node::Call(_, items) => items.iter().collect(),
            Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => vec![a],
            Node::Case { whens, default } => whens.iter().flat_map(|(when, then)| [when, then]).chain(default.as_deref()).collect(),
        }
    }

    /// As [`Self::children`], to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.node {
            Node::Column(_) | Node::Constant(_) => Vec::new(),
            Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => vec![a, b],
            Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => vec![arg],
            Node::And(items) | Node::Or(items) | Node::Coalesce(items) | Node::Call(_, items) => items.iter_mut().collect(),
            Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => vec![a],
            Node::Case { whens, default } => {
                whens.iter_mut().flat_map(|(when, then)| [when, then]).chain(default.as_deref_mut()).collect()
            }
        }
    }

    /// Calls `f` with the number of every column, to be changed.
    pub fn renumber(&mut self, f: &mut dyn FnMut(&mut usize)) {
        match &mut self.node {
            Node::Column(number) => f(number),
            Node::Constant(_) => {}
            Node::Compare(_, a, b) | Node::Distinct(a, b) | Node::NullIf(a, b) => {
                a.renumber(f);
                b.renumber(f);
            }
            Node::InList { arg, .. } | Node::Like { arg, .. } | Node::DateBin { arg, .. } => arg.renumber(f),
            Node::And(items) | Node::Or(items) | Node::Coalesce(items) | Node::Call(_, items) => {
                items.iter_mut().for_each(|e| e.renumber(f))
            }
            Node::Not(a) | Node::IsNull(a) | Node::IsNotNull(a) | Node::BoolTest(a, _) => a.renumber(f),
            Node::Case { whens, default } => {
                for (condition, result) in whens {
                    condition.renumber(f);
                    result.renumber(f);
                }
                if let Some(default) = default {
                    default.renumber(f);
                }
            }
        }
    }

    /// The conditions that all must hold for it to hold.
    pub fn conjuncts(&self) -> &[Expr] {
        match &self.node {
            Node::And(items) => items,
            _ => std::slice::from_ref(self),
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
    /// The relations that it reads, left to right.
    pub fn inputs(&self) -> Vec<&Rel> {
        match self {
            Rel::OneRow | Rel::Scan { .. } | Rel::Values { .. } | Rel::Series { .. } => Vec::new(),
            Rel::Project { input, .. }
            | Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. }
            | Rel::Single { input }
            | Rel::Window { input, .. }
            | Rel::DistinctOn { input, .. }
            | Rel::Aggregate { input, .. } => vec![input],
            Rel::Join { left, right, .. } | Rel::SetOp { left, right, .. } => vec![left, right],
            Rel::Attach { input, value } => vec![input, value],
            Rel::After { first, then } => first.iter().chain([&**then]).collect(),
        }
    }

    pub fn inputs_mut(&mut self) -> Vec<&mut Rel> {
        match self {
            Rel::OneRow | Rel::Scan { .. } | Rel::Values { .. } | Rel::Series { .. } => Vec::new(),
            Rel::Project { input, .. }
            | Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. }
            | Rel::Single { input }
            | Rel::Window { input, .. }
            | Rel::DistinctOn { input, .. }
            | Rel::Aggregate { input, .. } => vec![input],
            Rel::Join { left, right, .. } | Rel::SetOp { left, right, .. } => vec![left, right],
            Rel::Attach { input, value } => vec![input, value],
            Rel::After { first, then } => first.iter_mut().chain([&mut **then]).collect(),
        }
    }

    /// How many outputs the relation has, those left out included.
    pub fn width(&self) -> usize {
        match self {
            Rel::OneRow => 0,
            Rel::Scan { width, .. } | Rel::Project { width, .. } => *width,
            Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::Sort { input, .. }
            | Rel::DistinctOn { input, .. }
            | Rel::Limit { input, .. } => input.width(),
            Rel::Window { input, calls } => input.width() + calls.len(),
            Rel::Aggregate { groups, aggregates, .. } => groups.len() + aggregates.len(),
            Rel::Join { kind, left, right, .. } if kind.shows_right() => left.width() + right.width(),
            Rel::Join { left, .. } | Rel::SetOp { left, .. } => left.width(),
            Rel::Values { types, .. } => types.len(),
            Rel::Attach { input, .. } => input.width() + 1,
            Rel::Single { .. } | Rel::Series { .. } => 1,
            Rel::After { then, .. } => then.width(),
        }
    }

    /// Whether it reads the table or virtual table with this OID.
    pub fn reads(&self, oid: u32) -> bool {
        self.scans_of(oid) > 0
    }

    /// How often it reads the table or virtual table with this OID.
    pub fn scans_of(&self, oid: u32) -> usize {
        match self {
            Rel::Scan { source, .. } => usize::from(*source == oid),
            other => other.inputs().into_iter().map(|input| input.scans_of(oid)).sum(),
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
            | Rel::DistinctOn { input, .. }
            | Rel::Limit { input, .. } => input.types(),
            Rel::Window { input, calls } => {
                let mut types = input.types();
                types.extend(calls.iter().map(|c| c.ty));
                types
            }
            Rel::Aggregate { groups, aggregates, .. } => {
                groups.iter().map(|g| g.ty).chain(aggregates.iter().map(|a| a.ty)).collect()
            }
            Rel::Join { kind, left, right, .. } => {
                let mut types = left.types();
                if kind.shows_right() {
                    types.extend(right.types());
                }
                types
            }
            Rel::SetOp { left, .. } => left.types(),
            Rel::Values { types, .. } => types.clone(),
            Rel::Series { ty, .. } => vec![*ty],
            Rel::Attach { input, value } => {
                let mut types = input.types();
                types.extend(value.types().first());
                types
            }
            Rel::Single { input } => input.types().into_iter().take(1).collect(),
            Rel::After { then, .. } => then.types(),
        }
    }

    /// What it computes of its inputs itself.
    pub fn expressions(&self) -> Vec<&Expr> {
        match self {
            Rel::OneRow | Rel::Scan { .. } | Rel::Values { .. } | Rel::Series { .. } | Rel::Distinct { .. } | Rel::Limit { .. } => Vec::new(),
            Rel::SetOp { .. } | Rel::Attach { .. } | Rel::Single { .. } | Rel::After { .. } => Vec::new(),
            Rel::Filter { predicate, .. } => vec![predicate],
            Rel::Project { outputs, .. } => outputs.iter().map(|(_, e)| e).collect(),
            Rel::Aggregate { groups, aggregates, .. } => {
                groups.iter().chain(aggregates.iter().flat_map(|a| a.arg.iter().chain(&a.filter))).collect()
            }
            Rel::Sort { keys, .. } | Rel::DistinctOn { sort: keys, .. } => keys.iter().map(|k| &k.expr).collect(),
            Rel::Join { on, .. } => on.iter().collect(),
            Rel::Window { calls, .. } => calls.iter().flat_map(|c| c.reads()).collect(),
        }
    }
}
