//! GROUPING SETS, ROLLUP, CUBE and DISTINCT ON. Every grouping set is an aggregation of its own over the same rows, of which a bounded number
//! is put together; DISTINCT ON is proven where rows that its order cannot tell apart are the same to whoever sees them.

use super::ir::{Aggregate, Compare, Constant, Expr, Node, Rel, SetOp};
use super::relation::{GROUPED, Scope, WINDOWED, project, reads_nothing, referenced};
use super::{Analyzer, Outcome, refuse};
use lake::types::ColType;
use pgtree::oid;
use pgtree::tree::{self, GroupingSet, Query, SortGroup};
use pgtree::value::Value;

/// Sets of one query: each reads its rows again.
const MAX_SETS: usize = 16;
/// Relations that all sets together read.
const MAX_SCANS: usize = 48;

/// Whether conditions below make two groups equal, or one a constant: before 18, PostgreSQL then sorts by one of the two only, or not at all,
/// though sets that lack it have NULL there, and shows rows in whatever order that leaves.
pub(super) fn are_tied(input: &Rel, groups: &[Expr]) -> bool {
    let mut origins = Vec::new();
    let groups: Vec<Expr> = groups.iter().map(|group| named(group, input, &mut origins)).collect();
    if (0..groups.len()).any(|i| groups[..i].contains(&groups[i])) {
        return true;
    }
    // Classes of expressions that are equal, and whether a constant is among them.
    let mut classes: Vec<(Vec<Expr>, bool)> = Vec::new();
    equalities(input, &mut |rel, a, b| {
        let sides = [a, b].map(|side| named(side, rel, &mut origins));
        let mut class = (Vec::new(), false);
        for side in sides {
            if reads_nothing(&side) {
                class.1 = true;
            } else {
                class.0.push(side);
            }
        }
        let (joined, apart): (Vec<_>, Vec<_>) = classes.drain(..).partition(|(members, _)| members.iter().any(|m| class.0.contains(m)));
        classes = apart;
        for (members, constant) in joined {
            class.0.extend(members);
            class.1 |= constant;
        }
        classes.push(class);
    });
    classes.iter().any(|(members, constant)| {
        let grouped = groups.iter().filter(|g| members.contains(g)).count();
        grouped > 1 || (*constant && grouped > 0)
    })
}

/// Every condition `a = b` of a relation, with the relation whose outputs it reads.
fn equalities<'r>(rel: &'r Rel, see: &mut dyn FnMut(&'r Rel, &'r Expr, &'r Expr)) {
    let (read, condition) = match rel {
        Rel::Filter { input, predicate } => (&**input, Some(predicate)),
        Rel::Join { on, .. } => (rel, on.as_ref()),
        _ => (rel, None),
    };
    for part in condition.into_iter().flat_map(Expr::conjuncts) {
        if let Node::Compare(Compare::Eq, a, b) = &part.node {
            see(read, a, b);
        }
    }
    rel.inputs().into_iter().for_each(|input| equalities(input, see));
}

/// An expression over the columns that its own columns come from, wherever it stands; whatever names a text has as a type.
pub(super) fn named<'r>(expr: &Expr, rel: &'r Rel, origins: &mut Vec<(*const Rel, usize)>) -> Expr {
    let mut expr = match (&expr.node, rel) {
        (Node::Column(n), _) => match definition(rel, *n) {
            (Rel::Project { input, outputs, .. }, n) if let Some((_, below)) = outputs.iter().find(|(number, _)| *number == n) => {
                return named(below, input, origins);
            }
            (rel, n) => {
                let origin = (std::ptr::from_ref(rel), n);
                let number = origins.iter().position(|o| *o == origin).unwrap_or_else(|| {
                    origins.push(origin);
                    origins.len() - 1
                });
                return Expr { node: Node::Column(number), ty: ColType::Bool };
            }
        },
        _ => expr.clone(),
    };
    for child in expr.children_mut() {
        *child = named(child, rel, origins);
    }
    expr
}

/// Whether a grouped expression stands where PostgreSQL may make it another one.
fn is_restated(group: &tree::Expr, query: &Query) -> bool {
    // Casts to a length, or to a precision, may become such as well.
    let cast = matches!(group, tree::Expr::Relabel { .. })
        || matches!(group, tree::Expr::Func(call) if matches!(call.func, 669 | 1200 | 1703 | 1961 | 1967));
    if matches!(group, tree::Expr::Var(_)) || !(cast || group.type_oid() == oid::BOOL) {
        return false;
    }
    let mut found = false;
    let mut see = |part: tree::Part<'_>| {
        found |= matches!(part, tree::Part::Expr(e) if e == group);
    };
    query.having.iter().for_each(|having| tree::walk_expr(having, &mut see));
    let nested = query.targets.iter().map(|t| &t.expr).filter(|e| *e != group && !matches!(e, tree::Expr::Grouping { .. }));
    nested.for_each(|e| tree::walk_expr(e, &mut see));
    found
}

/// The relation that makes an output, and its number there.
fn definition(rel: &Rel, output: usize) -> (&Rel, usize) {
    match rel {
        Rel::Filter { input, .. } | Rel::Sort { input, .. } | Rel::Limit { input, .. } | Rel::Distinct { input } | Rel::DistinctOn { input, .. } => {
            definition(input, output)
        }
        Rel::Attach { input, .. } | Rel::Window { input, .. } if output < input.width() => definition(input, output),
        Rel::Join { left, .. } if output < left.width() => definition(left, output),
        Rel::Join { left, right, .. } => definition(right, output - left.width()),
        Rel::Aggregate { input, groups, .. } => match groups.get(output).map(|group| &group.node) {
            Some(Node::Column(n)) => definition(input, *n),
            _ => (rel, output),
        },
        _ => (rel, output),
    }
}

impl<'a> Analyzer<'a> {
    /// The grouping sets, as numbers of `groups`; None for a plain GROUP BY.
    pub(super) fn grouping_sets(
        &mut self,
        query: &Query,
        groups: &[(&tree::Expr, Expr)],
    ) -> Outcome<Option<Vec<Vec<usize>>>> {
        if query.grouping_sets.is_empty() {
            return Ok(None);
        }
        // An expression would stand for the first of the two.
        if (0..groups.len()).any(|i| groups[..i].iter().any(|(other, _)| *other == groups[i].0)) {
            return refuse("grouping sets that name an expression twice");
        }
        // Conditions are made simpler (NOT a > b is a <= b) and taken apart before, up to PostgreSQL 17, their parts are looked for among the
        // groups; so are casts of casts. What is not found is computed of any row of the group.
        if groups.iter().any(|(group, _)| is_restated(group, query)) {
            return refuse("grouping sets of a condition, or a cast, that stands within another expression");
        }
        let mut all: Vec<Vec<u32>> = vec![Vec::new()];
        for item in &query.grouping_sets {
            let sets = expanded(item)?;
            all = all.iter().flat_map(|a| sets.iter().map(|b| joined(a, b))).collect();
            if all.len() > MAX_SETS {
                return refuse(format!("more than {MAX_SETS} grouping sets"));
            }
        }
        let number = |reference: &u32| query.group.iter().position(|clause| clause.target == *reference);
        let numbered = |set: &Vec<u32>| set.iter().map(number).collect::<Option<Vec<_>>>();
        match all.iter().map(numbered).collect::<Option<Vec<_>>>() {
            Some(sets) => Ok(Some(sets)),
            None => refuse("a grouping set of something that is not grouped"),
        }
    }

    /// GROUPING(): its value is known with the set.
    pub(super) fn grouping_call(&mut self, refs: &[u32], levels_up: u32, scope: &mut Scope<'_>) -> Outcome<Expr> {
        let Some(grouping) = scope.grouping.as_mut().filter(|_| levels_up == 0) else {
            return refuse("GROUPING() outside of its query");
        };
        let known = grouping.calls.iter().position(|call| call == refs);
        let index = known.unwrap_or_else(|| {
            grouping.calls.push(refs.to_vec());
            grouping.calls.len() - 1
        });
        // The clause's references are positions in GROUP BY by now.
        let clauses = &scope.query.group;
        if refs.iter().any(|r| !clauses.iter().any(|clause| clause.target == *r)) {
            return refuse("GROUPING() of something that is not grouped");
        }
        Ok(Expr::column(GROUPED + index, ColType::Int4))
    }

    /// All sets as one relation: outputs are those of the aggregation over all groups, then the results of GROUPING().
    pub(super) fn by_sets<'q>(
        &mut self,
        input: Rel,
        sets: Vec<Vec<usize>>,
        groups: Vec<Expr>,
        aggregates: Vec<Aggregate>,
        calls: &[Vec<usize>],
        read: &mut [&mut Expr],
    ) -> Outcome<Rel> {
        let sets = if sets.is_empty() { vec![(0..groups.len()).collect()] } else { sets };
        if scans(&input) * sets.len() > MAX_SCANS {
            return refuse(format!("grouping sets that read more than {MAX_SCANS} relations"));
        }
        let first_call = groups.len() + aggregates.len();
        for expr in read.iter_mut() {
            expr.renumber(&mut |n| {
                if (GROUPED..WINDOWED).contains(n) {
                    *n = *n - GROUPED + first_call;
                }
            });
        }
        let mut union: Option<Rel> = None;
        for set in sets {
            let mut outputs = Vec::with_capacity(first_call + calls.len());
            for (number, group) in groups.iter().enumerate() {
                outputs.push(match set.iter().position(|g| *g == number) {
                    Some(at) => Expr::column(at, group.ty),
                    None => Expr { node: Node::Constant(Constant::Literal(Value::Null)), ty: group.ty },
                });
            }
            outputs.extend(aggregates.iter().enumerate().map(|(at, a)| Expr::column(set.len() + at, a.ty)));
            for call in calls {
                // The first argument is the highest bit, which is set where rows are not grouped by it.
                let bits = call.iter().fold(0i32, |bits, g| bits << 1 | i32::from(!set.contains(g)));
                outputs.push(Expr { node: Node::Constant(Constant::Literal(Value::Int4(bits))), ty: ColType::Int4 });
            }
            let mut own = aggregates.clone();
            if set.is_empty() && own.is_empty() {
                let kind = oid::Aggregate::CountStar;
                own.push(Aggregate { kind, arg: None, distinct: false, filter: None, param: None, ty: ColType::Int8 });
            }
            let groups = set.iter().map(|g| groups[*g].clone()).collect();
            let rel = project(Rel::Aggregate { input: Box::new(input.clone()), groups, aggregates: own }, outputs);
            union = Some(match union {
                None => rel,
                Some(left) => Rel::SetOp { op: SetOp::UnionAll, left: Box::new(left), right: Box::new(rel) },
            });
        }
        union.ok_or_else(|| super::Refused("no grouping set".into()))
    }

    /// The first row of each group, by the statement's order.
    pub(super) fn distinct_on(&mut self, query: &Query, rel: Rel) -> Outcome<Rel> {
        self.aggregated = true;
        let types = rel.types();
        let mut keys = Vec::with_capacity(query.distinct.len());
        for clause in &query.distinct {
            let target = referenced(query, clause.target)?;
            let index = query.targets.iter().position(|t| std::ptr::eq(t, target)).unwrap_or_default();
            self.groupable(&Expr::column(index, types[index]), &target.expr, clause, "DISTINCT ON")?;
            keys.push(index);
        }
        let sort = self.sort_keys(query, &types, None)?;
        let told = |t: &tree::Target| {
            let by = |c: &SortGroup| referenced(query, c.target).is_ok_and(|other| other.expr == t.expr);
            query.sort.iter().chain(&query.distinct).any(by) || matches!(t.expr, tree::Expr::Const(_) | tree::Expr::Param(_))
        };
        if !query.targets.iter().filter(|t| !t.junk).all(told) {
            return refuse("DISTINCT ON whose ORDER BY may have ties");
        }
        // Equal values must be the same value.
        for key in &sort {
            if matches!(key.expr.ty, ColType::NumericText) {
                return refuse("DISTINCT ON ordered by a numeric without fixed scale");
            }
        }
        Ok(Rel::DistinctOn { input: Box::new(rel), keys, sort })
    }
}

fn scans(rel: &Rel) -> usize {
    match rel {
        Rel::Scan { .. } => 1,
        other => other.inputs().into_iter().map(scans).sum(),
    }
}

fn joined(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut all = a.to_vec();
    all.extend(b.iter().filter(|r| !a.contains(r)));
    all
}

/// The sets that an item of GROUP BY stands for.
fn expanded(item: &GroupingSet) -> Outcome<Vec<Vec<u32>>> {
    let simple = |items: &[GroupingSet]| -> Outcome<Vec<Vec<u32>>> {
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match expanded(item)?.as_slice() {
                [one] => all.push(one.clone()),
                _ => return refuse("grouping sets inside ROLLUP or CUBE"),
            }
        }
        Ok(all)
    };
    Ok(match item {
        GroupingSet::Empty => vec![Vec::new()],
        GroupingSet::Simple(refs) => vec![joined(&[], refs)],
        GroupingSet::Rollup(items) => {
            let items = simple(items)?;
            let prefix = |n: usize| items[..n].iter().fold(Vec::new(), |set, item| joined(&set, item));
            (0..=items.len()).rev().map(prefix).collect()
        }
        GroupingSet::Cube(items) => {
            let items = simple(items)?;
            if items.len() > MAX_SETS.ilog2() as usize {
                return refuse(format!("more than {MAX_SETS} grouping sets"));
            }
            let chosen = |bits: usize| {
                let kept = items.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
                kept.fold(Vec::new(), |set, (_, item)| joined(&set, item))
            };
            (0..1 << items.len()).rev().map(chosen).collect()
        }
        GroupingSet::Sets(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(expanded(item)?);
            }
            all
        }
    })
}
