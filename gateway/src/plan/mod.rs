//! From an [`Analysis`] to DataFusion's logical plan, node by node. Every name is made here and unique, every type is the analysis's, every
//! function that DataFusion computes differently is a kernel of `pgexact`. ✗ PostgreSQL's trees, SQL text, execution, I/O.
//!
//! Predicates that may reach Parquet are kept in the one form that prunes safely: a plain column compared with a literal of its own type. Casts of
//! columns other than widening integers, and all functions, are opaque to pruning.

pub mod coded;
mod expr;
mod joins;
mod kernel;
mod own;
pub mod ranks;
mod sets;
pub mod times;
#[cfg(test)]
pub(crate) mod tests;
mod window;

use crate::analyze::Analysis;
use crate::analyze::arranged::Arranged;
use crate::analyze::floats::{Source, is_plain_value};
use crate::analyze::ir::{self, Aggregate, Constant, Node, Rel, SortKey};
use crate::engine::coded_type;
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::datasource::{TableProvider, provider_as_source};
use datafusion::arrow::datatypes::DataType;
use datafusion::functions_aggregate::{bit_and_or_xor, bool_and_or, count, min_max, sum};
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use expr::Expressions;
use kernel::Function;
pub(crate) use kernel::step_of;
use lake::types::ColType;
use own::Own;
use pgexact::PgError;
use pgexact::deviation::Deviation;
use pgexact::ordered::{Finish, Fraction, Layout};
use pgtree::oid::Aggregate as Kind;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use pgtree::value::Value;

/// The values and relations of one execution.
pub struct PlanInputs {
    /// In the order of `Analysis::params`.
    pub params: Vec<Value>,
    /// In the order of `Analysis::folds`.
    pub folded: Vec<Value>,
    /// Of the session.
    pub zone: pgexact::Zone,
    /// By relid, or by the function OID of a virtual table. A tiered provider's schema: the columns of `TableUse::attnums` in that order under
    /// their lake names; a text column may be coded (`engine::coded_type`).
    pub providers: HashMap<u32, Arc<dyn TableProvider>>,
    /// Nobody else has the rows: an error that PostgreSQL might have raised cannot be asked of it.
    pub alone: bool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Proven in general, but not for these values.
    #[error("{0}")]
    Unproven(String),
    /// What PostgreSQL raises for these values.
    #[error("{message}")]
    Postgres { sqlstate: String, message: String },
    #[error("{0}")]
    Internal(String),
}

impl From<DataFusionError> for PlanError {
    fn from(e: DataFusionError) -> Self {
        match e.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<PgError>() {
                Some(pg) => PlanError::from(pg.clone()),
                None => PlanError::Internal(e.to_string()),
            },
            _ => PlanError::Internal(e.to_string()),
        }
    }
}

impl From<PgError> for PlanError {
    fn from(e: PgError) -> Self {
        PlanError::Postgres { sqlstate: e.sqlstate.into(), message: e.message }
    }
}

pub(crate) type Result<T> = std::result::Result<T, PlanError>;

/// What is to be run for a statement.
pub struct Planned {
    /// To be run to the end before, each on its own, for their errors alone.
    pub first: Vec<LogicalPlan>,
    pub plan: LogicalPlan,
}

/// The plan of `analysis` with the values and relations of `inputs`. Its columns are the statement's, in order; their names are ours.
///
/// # Errors
/// [`PlanError::Postgres`] where PostgreSQL raises an error for these values whatever the rows (a negative LIMIT), [`PlanError::Unproven`] where
/// these values leave what is proven, [`PlanError::Internal`] for inputs that do not fit the analysis. Each of them means: execute the bound portal.
pub fn plan(analysis: &Analysis, inputs: &PlanInputs) -> Result<Planned> {
    match &analysis.arranged {
        None => rows(analysis, inputs),
        Some(_) => Err(PlanError::Unproven("PostgreSQL must rank the texts that it is sorted by".into())),
    }
}

/// The plan of the rows of `analysis`, which are the answer unless it is `arranged`.
///
/// # Errors
/// As [`plan`].
pub fn rows(analysis: &Analysis, inputs: &PlanInputs) -> Result<Planned> {
    if inputs.params.len() != analysis.params.len() || inputs.folded.len() != analysis.folds.len() {
        return Err(PlanError::Internal("values are missing".into()));
    }
    // Columns are looked at by who has the files.
    for source in &analysis.plain {
        if let Source::Constant(constant) = source
            && !is_plain_value(inputs.value(constant)?)
        {
            return Err(PlanError::Unproven("a constant that is NaN or -0 may stand for other floats".into()));
        }
    }
    let mut planner = Planner { inputs, next: 0, conditions: 0 };
    let (first, then) = match &analysis.plan {
        Rel::After { first, then } => (first.as_slice(), &**then),
        plan => (&[][..], plan),
    };
    let first = first.iter().map(|rel| planner.whole(rel, rel.width())).collect::<Result<_>>()?;
    Ok(Planned { first, plan: planner.whole(then, analysis.outputs.len())? })
}

/// The plan of what is left to do with the rows of [`rows`] and their ranks, which `inputs` has as [`crate::analyze::arranged::ROWS`].
///
/// # Errors
/// As [`plan`].
pub fn arranged(arranged: &Arranged, inputs: &PlanInputs) -> Result<LogicalPlan> {
    Planner { inputs, next: 0, conditions: 0 }.whole(&arranged.plan, arranged.plan.width())
}

/// A relation being built: its outputs by number, each under a name that no other relation has.
struct Built {
    plan: LogicalPlanBuilder,
    names: Vec<Option<String>>,
    /// Outputs that are codes of texts.
    coded: BTreeSet<usize>,
}

impl Built {
    /// The output, a text where it is coded.
    fn column(&self, number: usize) -> Result<Expr> {
        let column = self.as_it_is(number)?;
        Ok(match self.coded.contains(&number) {
            true => Expr::Cast(Cast::new(Box::new(column), ColType::Text.arrow())),
            false => column,
        })
    }

    /// The output, which may be codes.
    fn as_it_is(&self, number: usize) -> Result<Expr> {
        match self.names.get(number) {
            Some(Some(name)) => Ok(Expr::Column(Column::new_unqualified(name.clone()))),
            _ => Err(PlanError::Internal(format!("output {number} was left out but is needed"))),
        }
    }
}

struct Planner<'i> {
    inputs: &'i PlanInputs,
    next: usize,
    /// Filters and joins above.
    conditions: usize,
}

impl Planner<'_> {
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// A plan of its own, of the relation's first outputs.
    fn whole(&mut self, rel: &Rel, outputs: usize) -> Result<LogicalPlan> {
        let built = self.rel(rel)?;
        let outputs = (0..outputs).map(|number| built.column(number)).collect::<Result<Vec<_>>>()?;
        let names = outputs.into_iter().enumerate().map(|(number, expr)| expr.alias(format!("column{number}")));
        Ok(built.plan.project(names.collect::<Vec<_>>())?.build()?)
    }

    fn expressions<'b>(&'b self, built: &'b Built) -> Expressions<'b> {
        Expressions { inputs: self.inputs, built }
    }

    fn rel(&mut self, rel: &Rel) -> Result<Built> {
        match rel {
            Rel::OneRow => {
                Ok(Built { plan: LogicalPlanBuilder::empty(true), names: Vec::new(), coded: BTreeSet::new() })
            }
            Rel::Scan { source, columns, width } => {
                let Some(provider) = self.inputs.providers.get(source) else {
                    return Err(PlanError::Internal(format!("no provider of relation {source}")));
                };
                let schema = provider.schema();
                let id = self.number();
                let table = format!("t{id}");
                let mut projection = Vec::with_capacity(columns.len());
                let mut outputs = Vec::with_capacity(columns.len());
                let mut names = vec![None; *width];
                let mut coded = BTreeSet::new();
                for column in columns {
                    let index =
                        schema.index_of(&column.name).map_err(|e| PlanError::Internal(e.to_string()))?;
                    projection.push(index);
                    let qualified = Expr::Column(Column::new(Some(table.clone()), column.name.clone()));
                    let found = schema.field(index).data_type();
                    let ours = if *found == column.ty.arrow() {
                        qualified
                    } else if *found == coded_type() && column.ty.arrow() == ColType::Text.arrow() {
                        coded.insert(column.output);
                        qualified
                    } else {
                        Expr::Cast(Cast::new(Box::new(qualified), column.ty.arrow()))
                    };
                    let name = format!("r{id}_{}", column.output);
                    outputs.push(ours.alias(&name));
                    names[column.output] = Some(name);
                }
                let plan =
                    LogicalPlanBuilder::scan(table, provider_as_source(provider.clone()), Some(projection))?;
                let plan = if outputs.is_empty() { plan } else { plan.project(outputs)? };
                Ok(Built { plan, names, coded })
            }
            Rel::Filter { input, predicate } => {
                self.conditions += 1;
                let built = self.rel(input);
                self.conditions -= 1;
                let built = built?;
                let predicate = self.expressions(&built).filter(predicate)?;
                Ok(Built { plan: built.plan.filter(predicate)?, ..built })
            }
            Rel::Project { input, outputs, width } => {
                let built = self.rel(input)?;
                if outputs.is_empty() {
                    return Ok(Built { plan: built.plan, names: vec![None; *width], coded: BTreeSet::new() });
                }
                let id = self.number();
                let mut names = vec![None; *width];
                let mut coded = BTreeSet::new();
                let mut exprs = Vec::with_capacity(outputs.len());
                for (number, expr) in outputs {
                    let name = format!("r{id}_{number}");
                    let (expr, codes) = self.expressions(&built).coded_or_not(expr)?;
                    exprs.push(expr.alias(&name));
                    names[*number] = Some(name);
                    if codes {
                        coded.insert(*number);
                    }
                }
                Ok(Built { plan: built.plan.project(exprs)?, names, coded })
            }
            Rel::Aggregate { input, groups, aggregates } => {
                // DataFusion moves conditions without columns (such as come of NULL for a group) below an aggregation, which without
                // groups makes a row of none. It moves nothing below a limit; below groups it moves what reads these alone.
                let above = self.conditions;
                if groups.is_empty() {
                    self.conditions = 0;
                }
                let built = self.rel(input);
                self.conditions = above;
                let built = self.aggregate(built?, groups, aggregates)?;
                if groups.is_empty() && above > 0 {
                    return Ok(Built { plan: built.plan.limit(0, Some(1))?, ..built });
                }
                Ok(built)
            }
            Rel::Distinct { input } => {
                let built = self.rel(input)?;
                Ok(Built { plan: built.plan.distinct()?, ..built })
            }
            Rel::Sort { input, keys } => {
                let built = self.rel(input)?;
                let keys = keys.iter().map(|k| self.sort_key(&built, k)).collect::<Result<Vec<_>>>()?;
                Ok(Built { plan: built.plan.sort(keys)?, ..built })
            }
            Rel::Limit { input, offset, count } => {
                let built = self.rel(input)?;
                let negative = |sqlstate, name| {
                    PlanError::from(PgError::new(sqlstate, format!("{name} must not be negative")))
                };
                let skip = self.row_count(offset.as_ref())?.map(usize::try_from).transpose();
                let skip = skip.map_err(|_| negative("2201X", "OFFSET"))?.unwrap_or(0);
                let fetch = self.row_count(count.as_ref())?.map(usize::try_from).transpose();
                let fetch = fetch.map_err(|_| negative("2201W", "LIMIT"))?;
                if skip == 0 && fetch.is_none() {
                    return Ok(built);
                }
                Ok(Built { plan: built.plan.limit(skip, fetch)?, ..built })
            }
            Rel::Join { kind, left, right, on } => {
                self.conditions += 1;
                let (left, right) = (self.rel(left), self.rel(right));
                self.conditions -= 1;
                let (left, right) = (left?, right?);
                joins::join(self, *kind, left, right, on.as_ref())
            }
            Rel::SetOp { op, left, right } => {
                let (left, right) = (self.rel(left)?, self.rel(right)?);
                sets::set_op(self, *op, left, right)
            }
            Rel::Values { rows, types } => sets::values(self, rows, types),
            Rel::Series { start, stop, step, ty } => sets::generated(self, start, stop, step.as_ref(), *ty),
            Rel::Attach { input, value } => {
                let (input, value) = (self.rel(input)?, self.rel(value)?);
                joins::attach(input, value)
            }
            Rel::Window { input, calls } => {
                let built = self.rel(input)?;
                window::window(self, built, calls)
            }
            Rel::DistinctOn { input, keys, sort } => {
                let built = self.rel(input)?;
                window::distinct_on(self, built, keys, sort, &input.types())
            }
            Rel::Single { input } => {
                let built = self.rel(input)?;
                joins::single(self, built, rel.types())
            }
            Rel::After { .. } => Err(PlanError::Internal("something is to be computed first, but not at the top".into())),
        }
    }

    fn sort_key(&self, built: &Built, key: &SortKey) -> Result<Sort> {
        if matches!(key.expr.ty, ColType::Float4 | ColType::Float8) {
            let place = self.expressions(built).float_place(&key.expr)?;
            return Ok(Sort::new(place, !key.descending, key.nulls_first));
        }
        let expr = self.expressions(built).expr(&key.expr)?;
        let expr = match key.expr.ty {
            // Text of varying scale: sorted by value.
            ColType::NumericText => {
                kernel::call(Function::NumericKey, vec![expr], datafusion::arrow::datatypes::DataType::Binary)
            }
            _ => expr,
        };
        Ok(Sort::new(expr, !key.descending, key.nulls_first))
    }

    fn row_count(&self, constant: Option<&Constant>) -> Result<Option<i64>> {
        match constant.map(|c| self.inputs.value(c)).transpose()? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Int8(count)) => Ok(Some(*count)),
            Some(_) => Err(PlanError::Internal("a row count that is no number".into())),
        }
    }

    /// Arguments, filters and groups are computed below the aggregation, averages finished above it.
    fn aggregate(
        &mut self,
        built: Built,
        groups: &[crate::analyze::ir::Expr],
        aggregates: &[Aggregate],
    ) -> Result<Built> {
        let id = self.number();
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let mut below = Vec::new();
        let mut group_names = Vec::with_capacity(groups.len());
        let mut coded = BTreeSet::new();
        for (number, group) in groups.iter().enumerate() {
            let name = format!("g{id}_{number}");
            let (expr, codes) = self.expressions(&built).coded_or_not(group)?;
            below.push(expr.alias(&name));
            group_names.push(name);
            if codes {
                coded.insert(number);
            }
        }
        let mut calls = Vec::new();
        let mut above = Vec::new();
        let mut names = Vec::with_capacity(groups.len() + aggregates.len());
        for (number, name) in group_names.iter().enumerate() {
            let out = format!("r{id}_{number}");
            above.push(column(name).alias(&out));
            names.push(Some(out));
        }
        for (number, aggregate) in aggregates.iter().enumerate() {
            let arg = match &aggregate.arg {
                None => None,
                Some(arg) => {
                    let name = format!("a{id}_{number}");
                    let expr = match aggregate.kind {
                        // Codes are NULL and distinct as their texts are.
                        Kind::Count => self.expressions(&built).coded_or_not(arg)?.0,
                        kind => summed(self.expressions(&built).expr(arg)?, kind, arg.ty),
                    };
                    below.push(expr.alias(&name));
                    Some(column(&name))
                }
            };
            let filter = match &aggregate.filter {
                None => None,
                Some(filter) => {
                    let name = format!("f{id}_{number}");
                    below.push(self.expressions(&built).expr(filter)?.alias(&name));
                    Some(column(&name))
                }
            };
            if let (Some(own), Some(arg)) = (self.own(aggregate)?, arg.clone()) {
                let (name, out) = (format!("c{id}_{number}"), format!("r{id}_{}", groups.len() + number));
                calls.push(own::call(own, arg, filter.map(Box::new), aggregate.ty.arrow()).alias(&name));
                above.push(column(&name).alias(&out));
                names.push(Some(out));
                continue;
            }
            let mut call = |function, arg: Expr, suffix: &str| {
                let name = format!("c{id}_{number}{suffix}");
                let filter = filter.clone().map(Box::new);
                let call =
                    AggregateFunction::new_udf(function, vec![arg], aggregate.distinct, filter, vec![], None);
                calls.push(Expr::AggregateFunction(call).alias(&name));
                column(&name)
            };
            let one = || Expr::Literal(ScalarValue::Int64(Some(1)), None);
            let result = match (aggregate.kind, arg) {
                (Kind::CountStar, _) => call(count::count_udaf(), one(), ""),
                (Kind::Count, Some(arg)) => call(count::count_udaf(), arg, ""),
                (Kind::Sum, Some(arg)) => call(sum::sum_udaf(), arg, ""),
                (Kind::Avg, Some(arg)) => {
                    let sum = call(sum::sum_udaf(), arg.clone(), "s");
                    let count = call(count::count_udaf(), arg, "n");
                    kernel::call(Function::Average, vec![sum, count], ColType::NumericText.arrow())
                }
                (Kind::Min, Some(arg)) => call(min_max::min_udaf(), arg, ""),
                (Kind::Max, Some(arg)) => call(min_max::max_udaf(), arg, ""),
                (Kind::BoolAnd, Some(arg)) => call(bool_and_or::bool_and_udaf(), arg, ""),
                (Kind::BoolOr, Some(arg)) => call(bool_and_or::bool_or_udaf(), arg, ""),
                (Kind::BitAnd, Some(arg)) => call(bit_and_or_xor::bit_and_udaf(), arg, ""),
                (Kind::BitOr, Some(arg)) => call(bit_and_or_xor::bit_or_udaf(), arg, ""),
                (Kind::BitXor, Some(arg)) => call(bit_and_or_xor::bit_xor_udaf(), arg, ""),
                (kind @ (Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp), Some(arg)) => {
                    let scale = match aggregate.arg.as_ref().map(|a| a.ty) {
                        Some(ColType::Numeric { scale, .. }) => scale,
                        _ => 0,
                    };
                    // Ten digits of rows remain.
                    let squares =
                        kernel::call(Function::Squares, vec![arg.clone()], DataType::Decimal256(66, 2 * scale));
                    let sum = call(sum::sum_udaf(), arg.clone(), "s");
                    let squares = call(sum::sum_udaf(), squares, "q");
                    let count = call(count::count_udaf(), arg, "n");
                    let finish = Deviation {
                        sample: matches!(kind, Kind::VarSamp | Kind::StddevSamp),
                        root: matches!(kind, Kind::StddevPop | Kind::StddevSamp),
                    };
                    kernel::call(
                        Function::Deviation(finish),
                        vec![sum, squares, count],
                        ColType::NumericText.arrow(),
                    )
                }
                (Kind::StringAgg | Kind::ArrayAgg | Kind::PercentileCont | Kind::PercentileDisc | Kind::Mode, _) | (_, None) => {
                    return Err(PlanError::Internal("an aggregate without argument".into()));
                }
            };
            let out = format!("r{id}_{}", groups.len() + number);
            above.push(result.alias(&out));
            names.push(Some(out));
        }
        let input = if below.is_empty() { built.plan } else { built.plan.project(below)? };
        let grouped = input.aggregate(group_names.iter().map(|n| column(n)).collect::<Vec<_>>(), calls)?;
        Ok(Built { plan: grouped.project(above)?, names, coded })
    }
}

impl Planner<'_> {
    /// The aggregate, if it is one of our own.
    fn own(&self, aggregate: &Aggregate) -> Result<Option<Own>> {
        let Some(arg) = &aggregate.arg else { return Ok(None) };
        let param = aggregate.param.as_ref().map(|c| self.inputs.value(c)).transpose()?;
        let misfit = || PlanError::Internal("an aggregate with another parameter".into());
        let fraction = |value: Option<&Value>| match value {
            Some(Value::Null) => Ok(None),
            // PostgreSQL raises an error for it, if there is a group.
            Some(Value::Float8(v)) => match Fraction::new(*v) {
                Some(fraction) => Ok(Some(fraction)),
                None => Err(PlanError::Unproven(format!("a percentile of {v}"))),
            },
            _ => Err(misfit()),
        };
        let finish = match aggregate.kind {
            Kind::Sum | Kind::Avg if arg.ty == ColType::NumericText => {
                return Ok(Some(Own::Total { average: aggregate.kind == Kind::Avg }));
            }
            Kind::StringAgg => match param {
                Some(Value::Text(separator)) => Finish::StringAgg(separator.clone()),
                Some(Value::Null) => Finish::StringAgg(String::new()),
                _ => return Err(misfit()),
            },
            Kind::ArrayAgg => Finish::ArrayAgg,
            Kind::PercentileCont | Kind::PercentileDisc => {
                let continuous = aggregate.kind == Kind::PercentileCont;
                match (param, continuous) {
                    (Some(Value::Array { elements, .. }), _) => {
                        let all = elements.iter().map(|e| fraction(Some(e))).collect::<Result<Vec<_>>>()?;
                        if continuous { Finish::Continuously(all) } else { Finish::Discretely(all) }
                    }
                    (_, true) => Finish::Continuous(fraction(param)?),
                    (_, false) => Finish::Discrete(fraction(param)?),
                }
            }
            Kind::Mode => Finish::Mode,
            _ => return Ok(None),
        };
        let Node::Call(ir::Kernel::Key { orders, value, .. }, args) = &arg.node else { return Err(misfit()) };
        let columns = args.iter().map(|a| a.ty.arrow()).zip(orders.iter().copied()).collect();
        let layout = Layout { columns, value: *value };
        Ok(Some(Own::Ordered { layout, finish, distinct: aggregate.distinct }))
    }
}

/// The argument in the type in which its sum is exact: int2 and int4 in Int64 (2^32 rows of the largest values fit), int8 in 38 digits.
fn summed(arg: Expr, kind: Kind, ty: ColType) -> Expr {
    let exact = matches!(
        kind,
        Kind::Sum | Kind::Avg | Kind::VarPop | Kind::VarSamp | Kind::StddevPop | Kind::StddevSamp
    );
    let to = match (exact, ty) {
        (true, ColType::Int2 | ColType::Int4) => ColType::Int8.arrow(),
        (true, ColType::Int8) => ColType::Numeric { precision: 38, scale: 0 }.arrow(),
        _ => return arg,
    };
    Expr::Cast(Cast::new(Box::new(arg), to))
}

impl PlanInputs {
    /// The value of a constant of the analysis.
    fn value<'v>(&'v self, constant: &'v Constant) -> Result<&'v Value> {
        match constant {
            Constant::Literal(value) => Ok(value),
            Constant::Param(index) => {
                self.params.get(*index).ok_or_else(|| PlanError::Internal("a parameter is missing".into()))
            }
            Constant::Fold(index) => {
                self.folded.get(*index).ok_or_else(|| PlanError::Internal("a folded value is missing".into()))
            }
        }
    }
}
