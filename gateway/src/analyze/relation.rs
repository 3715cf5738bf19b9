//! Queries: FROM, WHERE, GROUP BY, HAVING, DISTINCT, ORDER BY, LIMIT. ✗ what an expression means (`scalar`).

use super::floats;
use super::ir::{Constant, Expr, JoinKind, Rel, ScanColumn, SortKey};
use super::{Analyzer, MAX_LEVELS, MAX_RELATIONS, Outcome, Refused, Right, ir, names, refuse};
use lake::types::ColType;
use pgtree::oid::{self, Compare};
use pgtree::tree::{self, Query, Rte, RteKind, SortGroup, Target};
use pgtree::value::Value;

/// What the expressions of one query may refer to.
pub(super) struct Scope<'q> {
    pub query: &'q Query,
    /// The queries around it and itself, outermost first.
    pub stack: Vec<&'q Query>,
    /// First output of the input relation that belongs to each range table entry.
    pub offsets: Vec<Option<usize>>,
    /// Types of the input relation's outputs.
    pub types: Vec<ColType>,
    /// Set while expressions above the aggregation are translated.
    pub grouping: Option<Grouping<'q>>,
    /// Values of sub-selects that are wanted beside the rows being read, and beside the groups.
    pub below: Vec<Beside>,
    pub above: Vec<Beside>,
    /// Window functions met so far.
    pub windows: Vec<(&'q tree::WindowFunc, ir::WindowCall)>,
    /// What the query around an EXISTS reads.
    pub outer: Option<Outer<'q>>,
    /// Types of the columns of the sub-select on the right side of an IN.
    pub compared: Option<Vec<ColType>>,
}

/// What is put beside every row.
pub(super) enum Beside {
    /// The one value of a relation of one row.
    Value(Rel),
    /// The row of `right` whose first columns are equal to `on`, of which there is one at most; NULLs where there is none.
    Group { right: Rel, on: Vec<Expr> },
}

impl Beside {
    /// How many columns it adds.
    pub fn width(&self) -> usize {
        match self {
            Beside::Value(_) => 1,
            Beside::Group { right, .. } => right.width(),
        }
    }

    fn put(self, rel: Rel) -> Rel {
        let (right, on) = match self {
            Beside::Value(value) => return Rel::Attach { input: Box::new(rel), value: Box::new(value) },
            Beside::Group { right, on } => (right, on),
        };
        let (width, types) = (rel.width(), right.types());
        let equal = |(number, (outer, ty)): (usize, (Expr, &ColType))| {
            let key = Expr::column(width + number, *ty);
            Expr::boolean(ir::Node::Compare(Compare::Eq, Box::new(outer), Box::new(key)))
        };
        let mut on: Vec<Expr> = on.into_iter().zip(&types).enumerate().map(equal).collect();
        let on = if on.len() == 1 { on.remove(0) } else { Expr::boolean(ir::Node::And(on)) };
        Rel::Join { kind: JoinKind::Left, left: Box::new(rel), right: Box::new(right), on: Some(on) }
    }
}

/// Placeholders for columns whose numbers are known only when the relation is whole: values of sub-selects,
pub(super) const ATTACHED: usize = 1 << 32;
/// columns of the query around an EXISTS,
pub(super) const OUTER: usize = 1 << 33;
/// columns of the sub-select of an IN,
pub(super) const INNER: usize = 1 << 34;
/// results of GROUPING(),
pub(super) const GROUPED: usize = 1 << 35;
/// and of window functions.
pub(super) const WINDOWED: usize = 1 << 36;

/// What the expressions of a sub-select may refer to in the query around it.
#[derive(Clone)]
pub(super) struct Outer<'q> {
    pub query: &'q Query,
    pub offsets: Vec<Option<usize>>,
    pub types: Vec<ColType>,
}

impl<'q> Scope<'q> {
    pub fn new(query: &'q Query, stack: Vec<&'q Query>) -> Self {
        Scope {
            query,
            stack,
            offsets: vec![None; query.rtable.len()],
            types: Vec::new(),
            grouping: None,
            below: Vec::new(),
            above: Vec::new(),
            windows: Vec::new(),
            outer: None,
            compared: None,
        }
    }
}

/// The aggregation of one query.
pub(super) struct Grouping<'q> {
    pub groups: Vec<(&'q tree::Expr, Expr)>,
    pub aggregates: Vec<(&'q tree::Aggref, ir::Aggregate)>,
    /// The arguments of GROUPING().
    pub calls: Vec<Vec<u32>>,
}

impl<'a> Analyzer<'a> {
    /// `enclosing` are the queries around this one, outermost first. Outputs are the targets that are not junk.
    pub(super) fn query<'q>(&mut self, query: &'q Query, enclosing: &[&'q Query]) -> Outcome<Rel> {
        self.levels += 1;
        if self.levels > MAX_LEVELS {
            return refuse("sub-selects nested too deeply");
        }
        self.depth += 1;
        let outcome = self.query_inner(query, enclosing);
        self.depth -= 1;
        self.levels -= 1;
        outcome
    }

    fn query_inner<'q>(&mut self, query: &'q Query, enclosing: &[&'q Query]) -> Outcome<Rel> {
        self.refuse_clauses(query);
        self.note_rights(query);
        let mut stack = enclosing.to_vec();
        stack.push(query);
        if let Some(tree) = &query.set_operations {
            return self.set_query(query, tree, &stack);
        }
        let mut scope = Scope::new(query, stack);
        let mut rel = self.from(query, &mut scope)?;
        if let Some(quals) = &query.quals {
            rel = self.selection(quals, rel, &mut scope)?;
        }
        if query.has_aggs || !query.group.is_empty() || query.having.is_some() {
            self.aggregated = true;
            rel = self.aggregation(query, rel, &mut scope)?;
        } else {
            let mut outputs = self.targets(query, &mut scope)?;
            let windows = scope.windows.iter_mut().flat_map(|(_, call)| call.reads_mut());
            rel = attach(rel, &mut scope.below, outputs.iter_mut().chain(windows));
            rel = self.windowed(rel, &mut scope, &mut outputs)?;
            rel = project(rel, outputs);
        }
        self.finish(query, rel)
    }

    /// What the query reads, and its outputs in the scope.
    pub(super) fn from<'q>(&mut self, query: &'q Query, scope: &mut Scope<'q>) -> Outcome<Rel> {
        let mut rel = Rel::OneRow;
        let stack = scope.stack.clone();
        for (index, item) in query.from.iter().enumerate() {
            let next = self.from_item(item, &stack, scope)?;
            rel = match index {
                0 => next,
                _ => {
                    Rel::Join { kind: JoinKind::Inner, left: Box::new(rel), right: Box::new(next), on: None }
                }
            };
        }
        scope.types = rel.types();
        Ok(rel)
    }

    /// What PostgreSQL would check of the relations of this query; a view read here left its own entry behind.
    pub(super) fn note_rights(&mut self, q: &Query) {
        const SELECT: u64 = 2;
        for rte in &q.rtable {
            // A view's own entry is the one in its place since PostgreSQL 16, one of its rule before.
            let Some(relid) = rte.kind.relid().filter(|_| rte.required_perms != 0) else { continue };
            if rte.required_perms != SELECT {
                self.note(format!("relation \"{}\" needs more than the right to read", rte.name));
            }
            let right = Right { relid, role: rte.check_as_user, attnums: rte.selected_cols.clone() };
            if !self.rights.contains(&right) {
                self.rights.push(right);
            }
        }
    }

    pub(super) fn refuse_clauses(&mut self, q: &Query) {
        let clauses = [
            (q.has_target_srfs, "a set-returning function in the select list"),
            (q.has_recursive, "WITH RECURSIVE"),
            (q.has_modifying_cte, "a data-modifying WITH"),
            (q.has_for_update || !q.row_marks.is_empty(), "FOR UPDATE or FOR SHARE"),
            (q.group_distinct, "GROUP BY DISTINCT"),
            (q.with_ties, "WITH TIES"),
        ];
        self.row_security |= q.has_row_security;
        for (present, name) in clauses {
            if present {
                self.note(name.to_string());
            }
        }
    }

    pub(super) fn entry<'q>(&mut self, rte: &'q Rte, stack: &[&'q Query]) -> Outcome<Rel> {
        let of_postgres =
            matches!(&rte.kind, RteKind::Relation { relid, .. } if !self.catalog.tiered.contains_key(relid));
        if !rte.security_quals.is_empty() && !of_postgres {
            return refuse("row-level security or a security barrier view");
        }
        if rte.lateral {
            return refuse("LATERAL");
        }
        match &rte.kind {
            RteKind::Relation { relid, relkind, sample } => {
                self.tiered_scan(rte, *relid, *relkind, sample.is_some())
            }
            RteKind::Subquery { query, security_barrier, .. } => {
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
                    Some(body) if !cte.recursive => {
                        let rel = self.query(body, &stack[..=at])?;
                        // What nothing reads of it is left out by us, and computed by PostgreSQL.
                        if cte.whole {
                            self.whole(&rel);
                        }
                        Ok(rel)
                    }
                    _ => refuse("a WITH query that is recursive or not a SELECT"),
                }
            }
            RteKind::Function { functions, ordinality: false } => match functions.as_slice() {
                [f] if f.column_count >= 0 && f.columns.is_empty() => match &f.expr {
                    tree::Expr::Func(call) if !call.args.is_empty() => match self.series(call)? {
                        Some(series) => Ok(series),
                        None => refuse(names::relation(&rte.kind, &rte.name)),
                    },
                    tree::Expr::Func(call) => self.virtual_scan(call.func, &rte.name),
                    _ => refuse(names::relation(&rte.kind, &rte.name)),
                },
                _ => refuse(names::relation(&rte.kind, &rte.name)),
            },
            RteKind::Values { rows } => self.values(rows),
            // A SELECT without FROM inside a FROM.
            RteKind::Result => Ok(Rel::OneRow),
            other => refuse(names::relation(other, &rte.name)),
        }
    }

    pub(super) fn count_relation(&mut self) -> Outcome<()> {
        self.relations += 1;
        match self.relations {
            0..=MAX_RELATIONS => Ok(()),
            _ => refuse(format!("more than {MAX_RELATIONS} relations")),
        }
    }

    fn tiered_scan(&mut self, rte: &Rte, relid: u32, relkind: char, tablesample: bool) -> Outcome<Rel> {
        let Some(spec) = self.catalog.tiered.get(&relid) else {
            return self.dimension(rte, relid, relkind, tablesample);
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
        self.tiered.insert(relid);
        self.count_relation()?;
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
        self.count_relation()?;
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
            self.groupable_or_float(&expr, &target.expr, clause, "GROUP BY")?;
            groups.push((&target.expr, expr));
        }
        let sets = self.grouping_sets(query, &groups)?;
        if !groups.is_empty() && sets.is_none() && groups.iter().all(|(_, e)| reads_nothing(e)) {
            return refuse("GROUP BY of constants only");
        }
        // PostgreSQL does not sort by what is a constant to it, though sets that lack it have NULL there.
        if sets.is_some() && groups.iter().any(|(_, e)| may_fold(e)) {
            return refuse("grouping sets of a constant");
        }
        if sets.is_some() && super::grouping::are_tied(&input, &groups.iter().map(|(_, e)| e.clone()).collect::<Vec<_>>()) {
            return refuse("grouping sets of what conditions make equal, or a constant");
        }
        scope.grouping = Some(Grouping { groups, aggregates: Vec::new(), calls: Vec::new() });
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
        let mut outputs = self.targets(query, scope)?;
        let Some(grouping) = scope.grouping.take() else { return refuse("an aggregation inside another") };
        let position = |r: &u32| query.group.iter().position(|clause| clause.target == *r).unwrap_or_default();
        let calls: Vec<Vec<usize>> = grouping.calls.iter().map(|call| call.iter().map(position).collect()).collect();
        let mut aggregates: Vec<_> = grouping.aggregates.into_iter().map(|(_, a)| a).collect();
        let mut groups: Vec<_> = grouping.groups.into_iter().map(|(_, e)| e).collect();
        let read = aggregates.iter_mut().flat_map(|a| a.arg.iter_mut().chain(&mut a.filter)).chain(&mut groups);
        let input = attach(input, &mut scope.below, read);
        if groups.is_empty() && aggregates.is_empty() {
            // HAVING alone: one group of all rows.
            let count = oid::Aggregate::CountStar;
            aggregates.push(ir::Aggregate {
                kind: count,
                arg: None,
                distinct: false,
                filter: None,
                param: None,
                ty: ColType::Int8,
            });
        }
        let mut having = having;
        let windows = scope.windows.iter_mut().flat_map(|(_, call)| call.reads_mut());
        let mut read: Vec<&mut Expr> = outputs.iter_mut().chain(&mut having).chain(windows).collect();
        let by_sets = sets.is_some();
        let mut rel = match sets {
            None if calls.is_empty() => Rel::Aggregate { input: Box::new(input), groups, aggregates },
            sets => self.by_sets(input, sets.unwrap_or_default(), groups, aggregates, &calls, &mut read)?,
        };
        rel = attach(rel, &mut scope.above, read.into_iter());
        // A condition on a group that a set does not have is the same for all its rows, which are then not computed at all.
        if by_sets && (having.is_some() || self.depth > 1) {
            self.whole(&rel);
        }
        if let Some(predicate) = having {
            rel = Rel::Filter { input: Box::new(rel), predicate };
        }
        rel = self.windowed(rel, scope, &mut outputs)?;
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

    pub(super) fn finish<'q>(&mut self, query: &'q Query, mut rel: Rel) -> Outcome<Rel> {
        let types = rel.types();
        let mut dropped = false;
        let position = |reference: u32| {
            query.targets.iter().position(|t| t.sort_group_ref == reference && reference != 0)
        };
        if query.has_distinct_on {
            rel = self.distinct_on(query, rel)?;
        } else if !query.distinct.is_empty() {
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
                self.groupable_or_float(&Expr::column(index, types[index]), &target.expr, clause, "DISTINCT")?;
            }
            let covered =
                |t: &Target| query.distinct.iter().any(|d| d.target == t.sort_group_ref && d.target != 0);
            if !query.targets.iter().filter(|t| !t.junk).all(covered) {
                return refuse("DISTINCT over some of the columns");
            }
            rel = Rel::Distinct { input: Box::new(rel) };
        }
        // What the whole statement is sorted by may be PostgreSQL's to rank.
        if self.depth == 1 && !query.has_distinct_on {
            self.arranged = self.arranged(query, &rel, !dropped)?;
            if self.arranged.is_some() {
                return Ok(rel);
            }
        }
        if !query.sort.is_empty() {
            // PostgreSQL computes what it sorts by, and sorts, though nobody reads it; we leave out both.
            if self.depth > 1 {
                self.whole(&rel);
            }
            let keys = self.sort_keys(query, &types, Some(&rel))?;
            rel = Rel::Sort { input: Box::new(rel), keys };
        }
        let offset = self.row_count(query.limit_offset.as_ref())?;
        let count = self.row_count(query.limit_count.as_ref())?;
        if offset.is_some() || count.is_some() {
            let sorted = |t: &Target| query.sort.iter().any(|c| c.target == t.sort_group_ref && c.target != 0);
            let constant = |t: &Target| matches!(t.expr, tree::Expr::Const(_) | tree::Expr::Param(_));
            // Groups are sorted by what was computed of them, which is equal often: which of them are kept is open then, and all else
            // depends on it. (Columns that are sorted by are keys, as a rule.)
            let told = || query.targets.iter().filter(|t| !t.junk).all(|t| sorted(t) || constant(t));
            if self.depth > 1 && !query.group.is_empty() && !told() {
                return refuse("LIMIT of grouped rows in a sub-select whose ORDER BY may have ties");
            }
            rel = Rel::Limit { input: Box::new(rel), offset, count };
        }
        if !dropped && query.targets.iter().any(|t| t.junk) {
            let kept = query.targets.iter().enumerate().filter(|(_, t)| !t.junk);
            let outputs = kept.map(|(index, _)| Expr::column(index, types[index])).collect();
            rel = project(rel, outputs);
        }
        Ok(rel)
    }

    /// ORDER BY, over the targets.
    /// `rel` has the outputs that are sorted.
    pub(super) fn sort_keys(&mut self, query: &Query, types: &[ColType], rel: Option<&Rel>) -> Outcome<Vec<SortKey>> {
        query.sort.iter().map(|clause| self.plain_key(query, clause, types, rel)).collect()
    }

    /// One of them, in the engine's own order.
    pub(super) fn plain_key(&mut self, query: &Query, clause: &SortGroup, types: &[ColType], rel: Option<&Rel>) -> Outcome<SortKey> {
        let target = referenced(query, clause.target)?;
        let index = query.targets.iter().position(|t| std::ptr::eq(t, target)).unwrap_or_default();
        let Some(ty) = types.get(index) else { return refuse("ORDER BY of what is not there") };
        let key = Expr::column(index, *ty);
        // Rows that are equal in it and do not look the same come in an order that is open, as PostgreSQL has it; but then nothing else may hang on it.
        let whole = self.depth == 1 && rel.is_some() && floats::is_float(*ty);
        match whole || rel.is_some_and(|rel| floats::plain_output(rel, index)) {
            true => Ok(SortKey { expr: key, descending: descending(clause)?, nulls_first: clause.nulls_first }),
            false => self.sort_key(clause, key, &target.expr),
        }
    }

    pub(super) fn sort_key(&mut self, clause: &SortGroup, expr: Expr, source: &tree::Expr) -> Outcome<SortKey> {
        let descending = descending(clause)?;
        self.orderable(expr.ty, source, "ORDER BY")?;
        Ok(SortKey { expr, descending, nulls_first: clause.nulls_first })
    }

    /// LIMIT or OFFSET: an int8 that does not depend on rows. NULL is no limit.
    pub(super) fn row_count(&mut self, expr: Option<&tree::Expr>) -> Outcome<Option<Constant>> {
        let Some(expr) = expr else { return Ok(None) };
        match self.constant(expr)? {
            Some((Constant::Literal(Value::Null), _)) => Ok(None),
            Some((constant, oid::INT8)) => Ok(Some(constant)),
            _ => refuse("LIMIT or OFFSET that is not a number or parameter"),
        }
    }

    /// GROUP BY and DISTINCT: equal values must be equal representations, and which of them is shown must not matter.
    pub(super) fn groupable(&self, expr: &Expr, source: &tree::Expr, clause: &SortGroup, place: &str) -> Outcome<()> {
        let known = oid::comparison_operator(clause.eqop)
            .is_some_and(|c| c.compare == Compare::Eq && c.left == c.right);
        if !known {
            return refuse(format!("{place} with operator {}", clause.eqop));
        }
        match floats::is_plain(expr) {
            true => Ok(()),
            false => self.hashable(expr.ty, source.collation(), place),
        }
    }

    /// The same where `floats::facts` looks at the floats.
    fn groupable_or_float(&self, expr: &Expr, source: &tree::Expr, clause: &SortGroup, place: &str) -> Outcome<()> {
        match oid::comparison_operator(clause.eqop) {
            Some(c) if floats::is_float(expr.ty) && c.compare == Compare::Eq && c.left == c.right => Ok(()),
            _ => self.groupable(expr, source, clause, place),
        }
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
            Float4 | Float8 | Jsonb | Bytea | Array(_) => {
                refuse(format!("{place} of {}", names::type_name(ty.type_oid())))
            }
        }
    }

    /// ORDER BY: the engine's order is PostgreSQL's.
    pub(super) fn orderable(&self, ty: ColType, source: &tree::Expr, place: &str) -> Outcome<()> {
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
            Float4 | Float8 | Jsonb | Bytea | Array(_) => {
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
            other if self.catalog.deterministic.contains(&other) => Ok(()),
            other => refuse(format!("collation with oid {other} on {place}")),
        }
    }
}

/// The same for every row.
pub(crate) fn reads_nothing(expr: &Expr) -> bool {
    let mut reads = false;
    expr.columns(&mut |_| reads = true);
    !reads
}

/// Whether a planner may find that the expression is the same for every row.
pub(super) fn may_fold(expr: &Expr) -> bool {
    // NULL makes NULL of most that it is put into; parameters and what is computed may be NULL.
    let is_null = |c: &Constant| !matches!(c, Constant::Literal(value) if *value != Value::Null);
    if reads_nothing(expr) {
        return true;
    }
    match &expr.node {
        ir::Node::Column(_) => false,
        ir::Node::Constant(_) => true,
        ir::Node::Case { whens, default } => {
            let results = || whens.iter().map(|(_, then)| then).chain(default.as_deref());
            whens.iter().any(|(when, _)| may_fold(when)) || results().all(may_fold)
        }
        ir::Node::And(items) | ir::Node::Or(items) => items.iter().any(may_fold),
        ir::Node::Coalesce(items) => items.first().is_none_or(may_fold),
        ir::Node::Like { arg, pattern: constant, .. }
        | ir::Node::DateBin { arg, stride: constant, .. }
        | ir::Node::InList { arg, list: ir::List::Array(constant), .. } => is_null(constant) || may_fold(arg),
        _ => expr.children().into_iter().any(|child| match &child.node {
            ir::Node::Constant(constant) => is_null(constant),
            _ => may_fold(child),
        }),
    }
}

/// Puts the values of sub-selects beside the rows of `rel`, and their numbers into what reads them.
pub(super) fn attach<'e>(mut rel: Rel, values: &mut Vec<Beside>, read: impl Iterator<Item = &'e mut Expr>) -> Rel {
    let width = rel.width();
    if values.is_empty() {
        return rel;
    }
    for value in values.drain(..) {
        rel = value.put(rel);
    }
    for expr in read {
        expr.renumber(&mut |n| {
            if (ATTACHED..OUTER).contains(n) {
                *n = *n - ATTACHED + width;
            }
        });
    }
    rel
}

pub(super) fn project(input: Rel, outputs: Vec<Expr>) -> Rel {
    Rel::Project {
        input: Box::new(input),
        width: outputs.len(),
        outputs: outputs.into_iter().enumerate().collect(),
    }
}

/// By an operator that is `<` or `>` of one type.
pub(super) fn descending(clause: &SortGroup) -> Outcome<bool> {
    match oid::comparison_operator(clause.sortop) {
        Some(c) if c.left == c.right && c.compare == Compare::Lt => Ok(false),
        Some(c) if c.left == c.right && c.compare == Compare::Gt => Ok(true),
        _ => refuse(format!("ORDER BY with operator {}", clause.sortop)),
    }
}

/// The target that a sort, group or distinct clause means.
pub(super) fn referenced(query: &Query, reference: u32) -> Outcome<&Target> {
    match query.targets.iter().find(|t| t.sort_group_ref == reference && reference != 0) {
        Some(target) => Ok(target),
        None => refuse("a sort or group clause without target"),
    }
}
