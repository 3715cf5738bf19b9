//! Queries: FROM, WHERE, GROUP BY, HAVING, DISTINCT, ORDER BY, LIMIT. ✗ what an expression means (`scalar`).

use super::ir::{Constant, Expr, JoinKind, Rel, ScanColumn, SortKey};
use super::{Analyzer, MAX_LEVELS, Outcome, Refused, Right, ir, names, refuse};
use lake::types::ColType;
use pgtree::oid::{self, Compare};
use pgtree::tree::{self, FromItem, Query, Rte, RteKind, SortGroup, Target};
use pgtree::value::Value;

/// What the expressions of one query may refer to.
pub(super) struct Scope<'q> {
    pub query: &'q Query,
    /// First output of the input relation that belongs to each range table entry.
    pub offsets: Vec<Option<usize>>,
    /// Types of the input relation's outputs.
    pub types: Vec<ColType>,
    /// Set while expressions above the aggregation are translated.
    pub grouping: Option<Grouping<'q>>,
}

/// The aggregation of one query.
pub(super) struct Grouping<'q> {
    pub groups: Vec<(&'q tree::Expr, Expr)>,
    pub aggregates: Vec<(&'q tree::Aggref, ir::Aggregate)>,
}

impl<'a> Analyzer<'a> {
    /// `enclosing` are the queries around this one, outermost first. Outputs are the targets that are not junk.
    pub(super) fn query<'q>(&mut self, query: &'q Query, enclosing: &[&'q Query]) -> Outcome<Rel> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return refuse("sub-selects nested too deeply");
        }
        let outcome = self.query_inner(query, enclosing);
        self.levels -= 1;
        outcome
    }

    fn query_inner<'q>(&mut self, query: &'q Query, enclosing: &[&'q Query]) -> Outcome<Rel> {
        self.refuse_clauses(query);
        self.note_rights(query);
        let mut stack = enclosing.to_vec();
        stack.push(query);
        let mut scope =
            Scope { query, offsets: vec![None; query.rtable.len()], types: Vec::new(), grouping: None };
        let mut rel = Rel::OneRow;
        for (index, item) in query.from.iter().enumerate() {
            let next = self.from_item(item, &stack, &mut scope)?;
            rel = match index {
                0 => next,
                _ => {
                    Rel::Join { kind: JoinKind::Inner, left: Box::new(rel), right: Box::new(next), on: None }
                }
            };
        }
        scope.types = rel.types();
        if let Some(quals) = &query.quals {
            match self.condition(quals, &mut scope) {
                Ok(predicate) => rel = Rel::Filter { input: Box::new(rel), predicate },
                Err(Refused(reason)) => self.note(reason),
            }
        }
        if query.has_aggs || !query.group.is_empty() || query.having.is_some() {
            self.aggregated = true;
            rel = self.aggregation(query, rel, &mut scope)?;
        } else {
            let outputs = self.targets(query, &mut scope)?;
            rel = project(rel, outputs);
        }
        self.finish(query, rel)
    }

    /// What PostgreSQL would check of the relations of this query; a view read here left its own entry behind.
    fn note_rights(&mut self, q: &Query) {
        const SELECT: u64 = 2;
        for rte in &q.rtable {
            let RteKind::Relation { relid, .. } = rte.kind else { continue };
            if rte.required_perms == 0 {
                continue;
            }
            if rte.required_perms != SELECT {
                self.note(format!("relation \"{}\" needs more than the right to read", rte.name));
            }
            let right = Right { relid, role: rte.check_as_user, attnums: rte.selected_cols.clone() };
            if !self.rights.contains(&right) {
                self.rights.push(right);
            }
        }
    }

    fn refuse_clauses(&mut self, q: &Query) {
        let clauses = [
            (q.has_window_funcs || q.has_windows, "a window function"),
            (q.has_target_srfs, "a set-returning function in the select list"),
            (q.has_distinct_on, "DISTINCT ON"),
            (q.has_recursive, "WITH RECURSIVE"),
            (q.has_modifying_cte, "a data-modifying WITH"),
            (q.has_for_update || q.has_row_marks, "FOR UPDATE or FOR SHARE"),
            (q.has_row_security, "row-level security"),
            (q.has_grouping_sets || q.group_distinct, "GROUPING SETS, ROLLUP or CUBE"),
            (q.has_set_operations, "UNION, INTERSECT or EXCEPT"),
            (q.with_ties, "WITH TIES"),
        ];
        for (present, name) in clauses {
            if present {
                self.note(name.to_string());
            }
        }
    }

    fn from_item<'q>(
        &mut self,
        item: &'q FromItem,
        stack: &[&'q Query],
        scope: &mut Scope<'q>,
    ) -> Outcome<Rel> {
        match item {
            FromItem::Ref(index) => {
                let Some(rte) = index.checked_sub(1).and_then(|i| scope.query.rtable.get(i)) else {
                    return refuse("a range table reference that leads nowhere");
                };
                let rel = self.entry(rte, stack)?;
                scope.offsets[index - 1] = Some(scope.types.len());
                scope.types.extend(rel.types());
                Ok(rel)
            }
            FromItem::Join { kind, left, right, quals, .. } => {
                let kind = match kind {
                    tree::JoinKind::Inner => JoinKind::Inner,
                    tree::JoinKind::Left => JoinKind::Left,
                    _ => return refuse("RIGHT or FULL JOIN"),
                };
                let start = scope.types.len();
                let left = self.from_item(left, stack, scope)?;
                let right = self.from_item(right, stack, scope)?;
                let on = match quals {
                    None => None,
                    Some(quals) => {
                        let mut on = self.condition(quals, scope)?;
                        shift(&mut on, start)?;
                        Some(on)
                    }
                };
                Ok(Rel::Join { kind, left: Box::new(left), right: Box::new(right), on })
            }
            FromItem::Unknown(name) => refuse(format!("{name} in FROM")),
        }
    }

    fn entry<'q>(&mut self, rte: &'q Rte, stack: &[&'q Query]) -> Outcome<Rel> {
        if rte.has_security_quals {
            return refuse("row-level security or a security barrier view");
        }
        if rte.lateral {
            return refuse("LATERAL");
        }
        match &rte.kind {
            RteKind::Relation { relid, relkind, tablesample } => {
                self.tiered_scan(rte, *relid, *relkind, *tablesample)
            }
            RteKind::Subquery { query, security_barrier } => {
                if *security_barrier {
                    return refuse("a security barrier view");
                }
                self.query(query, stack)
            }
            RteKind::Cte { name, levels_up, self_reference } => {
                if *self_reference {
                    return refuse("WITH RECURSIVE");
                }
                self.with = true;
                let up = usize::try_from(*levels_up).unwrap_or(usize::MAX);
                let Some(at) = stack.len().checked_sub(1).and_then(|last| last.checked_sub(up)) else {
                    return refuse("a WITH query that is not there");
                };
                let Some(cte) = stack[at].ctes.iter().find(|c| c.name == *name) else {
                    return refuse("a WITH query that is not there");
                };
                match &cte.query {
                    Some(body) if !cte.recursive => self.query(body, &stack[..=at]),
                    _ => refuse("a WITH query that is recursive or not a SELECT"),
                }
            }
            RteKind::Function { functions, ordinality: false } => match functions.as_slice() {
                [f] if f.column_count >= 0 && !f.has_column_definitions => match &f.expr {
                    tree::Expr::Func(call) if call.args.is_empty() => self.virtual_scan(call.func, &rte.name),
                    _ => refuse(names::relation(&rte.kind, &rte.name)),
                },
                _ => refuse(names::relation(&rte.kind, &rte.name)),
            },
            // A SELECT without FROM inside a FROM.
            RteKind::Result => Ok(Rel::OneRow),
            other => refuse(names::relation(other, &rte.name)),
        }
    }

    fn tiered_scan(&mut self, rte: &Rte, relid: u32, relkind: char, tablesample: bool) -> Outcome<Rel> {
        let Some(spec) = self.catalog.tiered.get(&relid) else {
            return refuse(format!("relation \"{}\" is not tiered", rte.name));
        };
        if tablesample {
            return refuse("TABLESAMPLE");
        }
        if !rte.inh {
            return refuse("ONLY");
        }
        if !matches!(relkind, 'p' | 'r') {
            return refuse(format!("relation \"{}\" is not a table", rte.name));
        }
        *self.tiered.entry(relid).or_default() += 1;
        let columns: Vec<_> = spec
            .columns
            .iter()
            .enumerate()
            .map(|(output, c)| ScanColumn { output, name: c.lake_name.clone(), attnum: c.attnum, ty: c.ty })
            .collect();
        Ok(Rel::Scan { source: relid, width: columns.len(), columns })
    }

    fn virtual_scan(&mut self, func: u32, name: &str) -> Outcome<Rel> {
        let Some(table) = self.catalog.virtual_functions.get(&func) else {
            return refuse(format!("function \"{name}\" in FROM"));
        };
        self.virtuals.insert(func);
        let mut columns = Vec::with_capacity(table.columns.len());
        for (output, (name, type_oid)) in table.columns.iter().enumerate() {
            let Some(ty) = ColType::from_pg(*type_oid, -1) else {
                return refuse(format!("column \"{name}\" of type {}", names::type_name(*type_oid)));
            };
            columns.push(ScanColumn { output, name: name.clone(), attnum: output as i16 + 1, ty });
        }
        Ok(Rel::Scan { source: func, width: columns.len(), columns })
    }

    fn aggregation<'q>(&mut self, query: &'q Query, input: Rel, scope: &mut Scope<'q>) -> Outcome<Rel> {
        let mut groups: Vec<(&'q tree::Expr, Expr)> = Vec::with_capacity(query.group.len());
        for clause in &query.group {
            let target = referenced(query, clause.target)?;
            let expr = self.expr(&target.expr, scope)?;
            self.groupable(&expr, &target.expr, clause, "GROUP BY")?;
            groups.push((&target.expr, expr));
        }
        if !groups.is_empty() && groups.iter().all(|(_, e)| e.as_constant().is_some()) {
            return refuse("GROUP BY of constants only");
        }
        scope.grouping = Some(Grouping { groups, aggregates: Vec::new() });
        let having = match &query.having {
            Some(having) => match self.condition(having, scope) {
                Ok(predicate) => Some(predicate),
                Err(Refused(reason)) => {
                    self.note(reason);
                    None
                }
            },
            None => None,
        };
        let outputs = self.targets(query, scope)?;
        let Some(grouping) = scope.grouping.take() else { return refuse("an aggregation inside another") };
        let mut aggregates: Vec<_> = grouping.aggregates.into_iter().map(|(_, a)| a).collect();
        if grouping.groups.is_empty() && aggregates.is_empty() {
            // HAVING alone: one group of all rows.
            let count = oid::Aggregate::CountStar;
            aggregates.push(ir::Aggregate {
                kind: count,
                arg: None,
                distinct: false,
                filter: None,
                ty: ColType::Int8,
            });
        }
        let groups = grouping.groups.into_iter().map(|(_, e)| e).collect();
        let mut rel = Rel::Aggregate { input: Box::new(input), groups, aggregates };
        if let Some(predicate) = having {
            rel = Rel::Filter { input: Box::new(rel), predicate };
        }
        Ok(project(rel, outputs))
    }

    /// Every target, junk too. All that is refused is noted before the first refusal ends the statement.
    fn targets<'q>(&mut self, query: &'q Query, scope: &mut Scope<'q>) -> Outcome<Vec<Expr>> {
        let mut outputs = Vec::with_capacity(query.targets.len());
        let mut first = None;
        for target in &query.targets {
            match self.expr(&target.expr, scope) {
                Ok(expr) => outputs.push(expr),
                Err(Refused(reason)) => {
                    self.note(reason.clone());
                    first.get_or_insert(Refused(reason));
                }
            }
        }
        match first {
            Some(refused) => Err(refused),
            None => Ok(outputs),
        }
    }

    fn finish<'q>(&mut self, query: &'q Query, mut rel: Rel) -> Outcome<Rel> {
        let types = rel.types();
        let mut dropped = false;
        let position = |reference: u32| {
            query.targets.iter().position(|t| t.sort_group_ref == reference && reference != 0)
        };
        if !query.distinct.is_empty() {
            self.aggregated = true;
            let junk = |t: &Target| t.junk;
            let sorted_by = |t: &Target| query.sort.iter().any(|s| s.target == t.sort_group_ref);
            // PostgreSQL appends what is not selected (here, of GROUP BY only) behind what is.
            let selected = query.targets.iter().take_while(|t| !t.junk).count();
            if query.targets.iter().any(|t| junk(t) && sorted_by(t))
                || !query.targets.iter().skip(selected).all(junk)
            {
                return refuse("DISTINCT with an ORDER BY beyond the select list");
            }
            if selected < query.targets.len() {
                rel = project(rel, (0..selected).map(|index| Expr::column(index, types[index])).collect());
                dropped = true;
            }
            for clause in &query.distinct {
                let target = referenced(query, clause.target)?;
                let index = position(clause.target).unwrap_or_default();
                self.groupable(&Expr::column(index, types[index]), &target.expr, clause, "DISTINCT")?;
            }
            let covered =
                |t: &Target| query.distinct.iter().any(|d| d.target == t.sort_group_ref && d.target != 0);
            if !query.targets.iter().filter(|t| !t.junk).all(covered) {
                return refuse("DISTINCT over some of the columns");
            }
            rel = Rel::Distinct { input: Box::new(rel) };
        }
        if !query.sort.is_empty() {
            let mut keys = Vec::with_capacity(query.sort.len());
            for clause in &query.sort {
                let target = referenced(query, clause.target)?;
                let index = position(clause.target).unwrap_or_default();
                let descending = match oid::comparison_operator(clause.sortop) {
                    Some(c) if c.left == c.right && c.compare == Compare::Lt => false,
                    Some(c) if c.left == c.right && c.compare == Compare::Gt => true,
                    _ => return refuse(format!("ORDER BY with operator {}", clause.sortop)),
                };
                self.orderable(types[index], &target.expr, "ORDER BY")?;
                keys.push(SortKey {
                    expr: Expr::column(index, types[index]),
                    descending,
                    nulls_first: clause.nulls_first,
                });
            }
            rel = Rel::Sort { input: Box::new(rel), keys };
        }
        let offset = self.row_count(query.limit_offset.as_ref())?;
        let count = self.row_count(query.limit_count.as_ref())?;
        if offset.is_some() || count.is_some() {
            rel = Rel::Limit { input: Box::new(rel), offset, count };
        }
        if !dropped && query.targets.iter().any(|t| t.junk) {
            let kept = query.targets.iter().enumerate().filter(|(_, t)| !t.junk);
            let outputs = kept.map(|(index, _)| Expr::column(index, types[index])).collect();
            rel = project(rel, outputs);
        }
        Ok(rel)
    }

    /// LIMIT or OFFSET: an int8 that does not depend on rows. NULL is no limit.
    fn row_count(&mut self, expr: Option<&tree::Expr>) -> Outcome<Option<Constant>> {
        let Some(expr) = expr else { return Ok(None) };
        match self.constant(expr)? {
            Some((Constant::Literal(Value::Null), _)) => Ok(None),
            Some((constant, oid::INT8)) => Ok(Some(constant)),
            _ => refuse("LIMIT or OFFSET that is not a number or parameter"),
        }
    }

    /// GROUP BY and DISTINCT: equal values must be equal representations, and which of them is shown must not matter.
    fn groupable(&self, expr: &Expr, source: &tree::Expr, clause: &SortGroup, place: &str) -> Outcome<()> {
        let known = oid::comparison_operator(clause.eqop)
            .is_some_and(|c| c.compare == Compare::Eq && c.left == c.right);
        if !known {
            return refuse(format!("{place} with operator {}", clause.eqop));
        }
        self.hashable(expr.ty, source.collation(), place)
    }

    /// Types whose equal values are equal in the engine too.
    pub(super) fn hashable(&self, ty: ColType, collation: u32, place: &str) -> Outcome<()> {
        use ColType::*;
        match ty {
            Bool | Int2 | Int4 | Int8 | Numeric { .. } | Date | Timestamp | TimestampTz | Uuid | Xid8 => {
                Ok(())
            }
            Text | Varchar => self.deterministic(collation, place),
            NumericText => refuse(format!("{place} of a numeric without fixed scale")),
            Float4 | Float8 | Jsonb | Bytea => {
                refuse(format!("{place} of {}", names::type_name(ty.type_oid())))
            }
        }
    }

    /// ORDER BY: the engine's order is PostgreSQL's.
    fn orderable(&self, ty: ColType, source: &tree::Expr, place: &str) -> Outcome<()> {
        use ColType::*;
        match ty {
            Bool
            | Int2
            | Int4
            | Int8
            | Numeric { .. }
            | NumericText
            | Date
            | Timestamp
            | TimestampTz
            | Uuid
            | Xid8 => Ok(()),
            Text | Varchar => self.bytewise(source.collation(), place),
            Float4 | Float8 | Jsonb | Bytea => {
                refuse(format!("{place} of {}", names::type_name(ty.type_oid())))
            }
        }
    }

    /// Collations in which text order is the order of its bytes.
    pub(super) fn bytewise(&self, collation: u32, place: &str) -> Outcome<()> {
        match collation {
            oid::COLLATION_C | oid::COLLATION_POSIX => Ok(()),
            oid::COLLATION_DEFAULT if self.catalog.default_collation_is_c => Ok(()),
            oid::COLLATION_DEFAULT => refuse(format!("the database's collation on {place}")),
            other => refuse(format!("collation with oid {other} on {place}")),
        }
    }

    /// Collations in which only identical texts are equal.
    pub(super) fn deterministic(&self, collation: u32, place: &str) -> Outcome<()> {
        match collation {
            // A database's own collation is always deterministic.
            oid::COLLATION_DEFAULT | oid::COLLATION_C | oid::COLLATION_POSIX => Ok(()),
            other => refuse(format!("collation with oid {other} on {place}")),
        }
    }
}

fn project(input: Rel, outputs: Vec<Expr>) -> Rel {
    Rel::Project {
        input: Box::new(input),
        width: outputs.len(),
        outputs: outputs.into_iter().enumerate().collect(),
    }
}

/// The target that a sort, group or distinct clause means.
fn referenced(query: &Query, reference: u32) -> Outcome<&Target> {
    match query.targets.iter().find(|t| t.sort_group_ref == reference && reference != 0) {
        Some(target) => Ok(target),
        None => refuse("a sort or group clause without target"),
    }
}

/// Renumbers the columns of a join condition, translated against all of FROM so far, to those of the join itself.
fn shift(on: &mut Expr, start: usize) -> Outcome<()> {
    use ir::Node::*;
    match &mut on.node {
        Column(number) => match number.checked_sub(start) {
            Some(shifted) => *number = shifted,
            None => return refuse("a join condition that reads beyond its join"),
        },
        Constant(_) => {}
        Compare(_, a, b) | Distinct(a, b) | NullIf(a, b) => {
            shift(a, start)?;
            shift(b, start)?;
        }
        InList { arg, .. } | Like { arg, .. } | DateBin { arg, .. } => shift(arg, start)?,
        And(items) | Or(items) | Coalesce(items) | Call(_, items) => {
            for item in items {
                shift(item, start)?;
            }
        }
        Not(a) | IsNull(a) | IsNotNull(a) | BoolTest(a, _) => shift(a, start)?,
        Case { whens, default } => {
            for (condition, result) in whens {
                shift(condition, start)?;
                shift(result, start)?;
            }
            if let Some(default) = default {
                shift(default, start)?;
            }
        }
    }
    Ok(())
}
