//! Whole SELECT statements, grown at random over the tables of [`super::rows`]: what is selected, joined, grouped, combined, sorted and cut
//! off. They can be told as SQL, and made simpler piece by piece. ✗ sessions, answers.

use super::aggregates::aggregate;
use super::expr::{Expr, Grower, Leaves, Parameters, Ty, grow};
use super::random::Random;
use super::rows::{TABLES, Table};

/// A SELECT, or several of them combined.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// WITH: a name and its statement.
    with: Vec<(String, Select)>,
    distinct: Distinct,
    items: Vec<Item>,
    from: From,
    filter: Option<Expr>,
    groups: Vec<Expr>,
    grouping: Grouping,
    having: Option<Expr>,
    /// UNION and the like, with what follows.
    combined: Option<(&'static str, Box<Select>)>,
    order: Vec<Order>,
    offset: Option<u32>,
    limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinct {
    No,
    Yes,
    /// ON the first item; the order begins with it.
    OnFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grouping {
    Plain,
    Rollup,
    Cube,
    Sets,
}

#[derive(Clone, Debug, PartialEq)]
enum Item {
    /// The group with this number.
    Group(usize),
    Expr(Expr),
    Window(Window),
}

#[derive(Clone, Debug, PartialEq)]
struct Window {
    function: Expr,
    partition: Option<Expr>,
    /// The last one is unique.
    order: Vec<Expr>,
    descending: bool,
    frame: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
enum From {
    Table { name: &'static str, alias: String },
    /// A WITH of this name.
    Named { name: String, alias: String },
    Derived { select: Box<Select>, alias: String },
    /// A calendar.
    Series { call: &'static str, alias: String },
    Join { kind: &'static str, left: Box<From>, right: Box<From>, on: Expr },
}

/// By the position of an item.
#[derive(Clone, Debug, PartialEq)]
struct Order {
    position: usize,
    words: &'static str,
}

const WORDS: &[&str] = &["", "", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
const FRAMES: &[&str] = &[
    "",
    "",
    " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
];

/// Names that are used once in a statement.
#[derive(Default)]
struct Names(usize);

impl Names {
    fn next(&mut self, prefix: &str) -> String {
        self.0 += 1;
        format!("{prefix}{}", self.0)
    }
}

/// A statement.
pub fn statement(random: Random) -> Select {
    let random = &mut Grower::new(random);
    let mut names = Names::default();
    let mut select = match random.below(100) {
        0..10 => combined(random, &mut names),
        10..20 => with(random, &mut names),
        _ => select(random, &mut names, 2),
    };
    select.sort(random, true);
    select
}

fn combined(random: &mut Grower, names: &mut Names) -> Select {
    let types: Vec<Ty> = (0..=random.below(3)).map(|_| *random.pick(&[Ty::Int4, Ty::Text, Ty::Numeric, Ty::Date, Ty::TimestampTz, Ty::Bool, Ty::Int8])).collect();
    let mut first = of_types(random, names, &types);
    for _ in 0..=random.below(2) {
        let word = *random.pick(&["UNION", "UNION ALL", "UNION ALL", "INTERSECT", "EXCEPT", if random.inside { "UNION" } else { "EXCEPT ALL" }]);
        let mut next = of_types(random, names, &types);
        std::mem::swap(&mut first, &mut next);
        first.combined = Some((word, Box::new(next)));
    }
    first
}

/// Plain rows of these types.
fn of_types(random: &mut Grower, names: &mut Names, types: &[Ty]) -> Select {
    let (from, leaves) = from(random, names, 0);
    let items = types.iter().map(|ty| Item::Expr(grow(random, &leaves, *ty, 1))).collect();
    let filter = Some(grow(random, &leaves, Ty::Bool, 2));
    Select { items, filter, ..Select::over(from) }
}

fn with(random: &mut Grower, names: &mut Names) -> Select {
    let inner = select(random, names, 1);
    let name = names.next("w");
    let leaves_of = |alias: &str, inner: &Select| inner.columns(alias);
    let alias = names.next("c");
    let mut leaves = leaves_of(&alias, &inner);
    let mut source = From::Named { name: name.clone(), alias };
    if random.percent(25) {
        let alias = names.next("c");
        let right = leaves_of(&alias, &inner);
        let on = equal(random, &leaves, &right);
        leaves.extend(right);
        let right = From::Named { name: name.clone(), alias };
        source = From::Join { kind: join_kind(random), left: Box::new(source), right: Box::new(right), on };
    }
    let mut outer = over(random, source, &leaves, names, 1);
    outer.with.push((name, inner));
    outer
}

fn select(random: &mut Grower, names: &mut Names, depth: usize) -> Select {
    let (from, leaves) = from(random, names, depth);
    over(random, from, &leaves, names, depth)
}

/// Something over rows whose columns are `leaves`.
fn over(random: &mut Grower, from: From, leaves: &Leaves, names: &mut Names, depth: usize) -> Select {
    let mut select = Select::over(from);
    if random.percent(65) {
        let levels = 1 + random.below(3);
        let mut filter = grow(random, leaves, Ty::Bool, levels);
        if depth > 1 && random.percent(12) {
            filter = Expr::Node { ty: Ty::Bool, template: "({} AND {})", args: vec![filter, sub_condition(random, leaves, names)] };
        }
        select.filter = Some(filter);
    }
    match random.below(100) {
        0..62 => {
            // Groups of exact types only: of equal values that look different, which one represents them is open.
            for _ in 0..random.below(4) {
                let ty = *random.pick(&[Ty::Int4, Ty::Text, Ty::Text, Ty::TimestampTz, Ty::Bool, Ty::Date, Ty::Numeric, Ty::Int8, Ty::Varchar]);
                let depth = random.below(3);
                let group = grow(random, leaves, ty, depth);
                // A constant would be a position, or no group at all.
                if matches!(group, Expr::Column { .. } | Expr::Node { .. }) && group.mentions_column() && !select.groups.contains(&group) && exact(&group) {
                    select.groups.push(group);
                }
            }
            if select.groups.len() > 1 && random.percent(15) {
                select.grouping = *random.pick(&[Grouping::Rollup, Grouping::Cube, Grouping::Sets]);
            }
            let aggregates: Vec<Expr> = (0..=random.below(4)).map(|_| aggregate(random, leaves, 2)).collect();
            select.items = (0..select.groups.len()).filter(|_| random.percent(90)).map(Item::Group).collect();
            let outer: Leaves = select.groups.iter().chain(&aggregates).cloned().collect();
            for call in aggregates {
                let item = if random.percent(15) && call.ty() != Ty::Ints { grow(random, &outer, call.ty(), 1) } else { call };
                select.items.push(Item::Expr(item));
            }
            if random.percent(15) {
                select.having = Some(grow(random, &outer, Ty::Bool, 2));
            }
        }
        62..72 if !random.inside => windowed(random, &mut select, leaves),
        kind => {
            for _ in 0..=random.below(4) {
                let ty = *random.pick(&TYPES);
                if random.inside && ty == Ty::Interval {
                    continue;
                }
                let depth = random.below(3);
                select.items.push(Item::Expr(grow(random, leaves, ty, depth)));
            }
            if select.items.is_empty() {
                select.items.push(Item::Expr(grow(random, leaves, Ty::Int4, 1)));
            }
            if kind < 84 {
                select.distinct = Distinct::Yes;
                // As for groups.
                select.items.retain(|item| matches!(item, Item::Expr(e) if exact(e)));
                if select.items.is_empty() {
                    select.items.push(Item::Expr(grow(random, leaves, Ty::Int4, 1)));
                }
            } else if kind < 87 && exact_item(&select.items[0]) {
                select.distinct = Distinct::OnFirst;
            } else if depth > 1 && random.percent(10) {
                let query = if random.percent(50) { scalar_query(random) } else { correlated_query(random, leaves, names) };
                select.items.push(Item::Expr(query));
            }
        }
    }
    select
}


const TYPES: [Ty; 15] = [
    Ty::Bool, Ty::Int2, Ty::Int4, Ty::Int8, Ty::Numeric, Ty::Loose, Ty::Float8, Ty::Text, Ty::Varchar, Ty::Date, Ty::Timestamp, Ty::TimestampTz,
    Ty::Interval, Ty::Uuid, Ty::Jsonb,
];

fn windowed(random: &mut Grower, select: &mut Select, leaves: &Leaves) {
    let ids: Vec<&Expr> = leaves.iter().filter(|leaf| matches!(leaf, Expr::Column { name, .. } if name == "id")).collect();
    // Every table has one; of joined rows all together are unique.
    let unique: Vec<Expr> = ids.into_iter().cloned().collect();
    if unique.is_empty() {
        select.items.push(Item::Expr(grow(random, leaves, Ty::Int4, 1)));
        return;
    }
    for id in &unique {
        select.items.push(Item::Expr(id.clone()));
    }
    for _ in 0..=random.below(2) {
        let (ty, template, arg): (Ty, &'static str, Option<Ty>) = *random.pick(&[
            (Ty::Int8, "row_number()", None),
            (Ty::Int8, "rank()", None),
            (Ty::Int8, "dense_rank()", None),
            (Ty::Int8, "count(*)", None),
            (Ty::Int8, "sum({})", Some(Ty::Int4)),
            (Ty::Numeric, "sum({})", Some(Ty::Numeric)),
            (Ty::Numeric, "avg({})", Some(Ty::Int4)),
            (Ty::Int4, "min({})", Some(Ty::Int4)),
            (Ty::Text, "max({})", Some(Ty::Text)),
            (Ty::Text, "lag({})", Some(Ty::Text)),
            (Ty::Int4, "lead({}, 2)", Some(Ty::Int4)),
            (Ty::TimestampTz, "first_value({})", Some(Ty::TimestampTz)),
            (Ty::Int4, "last_value({})", Some(Ty::Int4)),
            (Ty::Int4, "ntile(3)", None),
        ]);
        let args = arg.iter().map(|ty| grow(random, leaves, *ty, 1)).collect();
        let mut order = Vec::new();
        if random.percent(50) {
            order.push(grow(random, leaves, *random.clone().pick(&[Ty::Int4, Ty::Numeric, Ty::TimestampTz]), 1));
        }
        order.extend(unique.iter().cloned());
        let partition = random.percent(60).then(|| grow(random, leaves, *random.clone().pick(&[Ty::Int4, Ty::Text, Ty::Bool]), 1));
        let frame = if template.starts_with("row") || template.contains("rank") || template.starts_with("la") || template.starts_with("le") || template.starts_with("nt") {
            ""
        } else {
            *random.pick(FRAMES)
        };
        let function = Expr::Node { ty, template, args };
        select.items.push(Item::Window(Window { function, partition, order, descending: random.percent(30), frame }));
    }
}

/// Something to select from, and the columns it has.
fn from(random: &mut Grower, names: &mut Names, depth: usize) -> (From, Leaves) {
    match random.below(100) {
        0..10 if depth > 0 => {
            let mut inner = select(random, names, depth - 1);
            inner.sort(random, false);
            let alias = names.next("d");
            let leaves = inner.columns(&alias);
            (From::Derived { select: Box::new(inner), alias }, leaves)
        }
        10..32 if depth > 0 => {
            let (left, mut leaves) = from(random, names, 0);
            let (right, others) = match random.percent(12) {
                true => series(random, names),
                false => from(random, names, 0),
            };
            let on = equal(random, &leaves, &others);
            leaves.extend(others);
            (From::Join { kind: join_kind(random), left: Box::new(left), right: Box::new(right), on }, leaves)
        }
        n => {
            let table: &Table = if depth > 0 && n % 8 == 7 { random.pick(TABLES) } else { &TABLES[usize::from(n % 4 == 3)] };
            let alias = names.next("t");
            (From::Table { name: table.name, alias: alias.clone() }, table.leaves(&alias))
        }
    }
}

/// Of numbers that ids and other keys have, or of some of the rows' times.
fn series(random: &mut Grower, names: &mut Names) -> (From, Leaves) {
    let (call, ty) = *random.pick(&[
        ("0, 40", Ty::Int4),
        ("20, -3, -2", Ty::Int4),
        ("5, 1", Ty::Int4),
        ("'2024-03-09 00:00+00'::timestamptz, '2024-03-12 00:00+00', '1 hour'", Ty::TimestampTz),
        ("timestamptz '2024-01-31', '2024-12-31', '1 month'", Ty::TimestampTz),
    ]);
    let alias = names.next("s");
    let id = Expr::Column { alias: alias.clone(), name: "id".into(), ty };
    (From::Series { call, alias }, vec![id])
}

fn join_kind(random: &mut Grower) -> &'static str {
    *random.pick(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
}

/// A condition of a join: by columns that are few to one, and maybe more.
fn equal(random: &mut Grower, left: &Leaves, right: &Leaves) -> Expr {
    let mut pairs = Vec::new();
    for l in left {
        for r in right {
            let (Expr::Column { name: a, ty, .. }, Expr::Column { name: b, ty: other, .. }) = (l, r) else { continue };
            let few = |name: &str| ["id", "fact", "uid"].contains(&name);
            if ty == other && exact(l) && (few(a) || few(b)) {
                pairs.push((l.clone(), r.clone()));
            }
        }
    }
    if pairs.is_empty() {
        // Nothing fits: no row but of outer joins.
        return Expr::Words("false");
    }
    let (l, r) = random.pick(&pairs).clone();
    let on = Expr::Node { ty: Ty::Bool, template: "({} = {})", args: vec![l, r] };
    if random.percent(25) {
        let all: Leaves = left.iter().chain(right).cloned().collect();
        let more = grow(random, &all, Ty::Bool, 1);
        // A FULL JOIN may have conditions that can be merged or hashed only: PostgreSQL says so, and so must the gateway.
        return Expr::Node { ty: Ty::Bool, template: "({} AND {})", args: vec![on, more] };
    }
    on
}

/// EXISTS, IN and the like.
fn sub_condition(random: &mut Grower, leaves: &Leaves, names: &mut Names) -> Expr {
    let table = &TABLES[random.below(TABLES.len())];
    let alias = names.next("s");
    let inner = table.leaves(&alias);
    let where_ = text(&grow(random, &inner, Ty::Bool, 2));
    let ints: Vec<&Expr> = leaves.iter().filter(|l| l.ty() == Ty::Int4 && matches!(l, Expr::Column { .. })).collect();
    let ty = Ty::Bool;
    let Some(outer) = (!ints.is_empty()).then(|| (*random.pick(&ints)).clone()) else {
        return Expr::Query { ty, sql: format!("EXISTS (SELECT FROM {} {alias} WHERE {where_})", table.name) };
    };
    let outer = text(&outer);
    let sql = match random.below(5) {
        0 => format!("{outer} IN (SELECT {alias}.g FROM {} {alias} WHERE {where_})", table.name),
        1 => format!("{outer} NOT IN (SELECT {alias}.g FROM {} {alias} WHERE {where_})", table.name),
        2 => format!("EXISTS (SELECT 1 FROM {} {alias} WHERE {alias}.g = {outer} AND {where_})", table.name),
        3 => format!("NOT EXISTS (SELECT 1 FROM {} {alias} WHERE {alias}.g = {outer} AND {where_})", table.name),
        _ => format!("{outer} > (SELECT min({alias}.g) FROM {} {alias} WHERE {where_})", table.name),
    };
    Expr::Query { ty, sql }
}

fn scalar_query(random: &mut Grower) -> Expr {
    let table = &TABLES[random.below(2)];
    let inner = table.leaves("q");
    let call = aggregate(random, &inner, 1);
    Expr::Query { ty: call.ty(), sql: format!("SELECT {} FROM {} q", text(&call), table.name) }
}

/// A value for the row: of the rows of another table that its key finds, which may be none or several.
fn correlated_query(random: &mut Grower, leaves: &Leaves, names: &mut Names) -> Expr {
    let table = &TABLES[random.below(TABLES.len())];
    let alias = names.next("s");
    let inner = table.leaves(&alias);
    let ints: Vec<&Expr> = leaves.iter().filter(|l| l.ty() == Ty::Int4 && matches!(l, Expr::Column { .. })).collect();
    if ints.is_empty() {
        return scalar_query(random);
    }
    let outer: &Expr = random.pick::<&Expr>(&ints);
    let outer = text(outer);
    let columns: Vec<&Expr> = inner.iter().filter(|l| exact(l)).collect();
    let column = (*random.pick(&columns)).clone();
    let (value, key) = match random.below(4) {
        0 => (column, "id"),
        _ => (aggregate(random, &inner, 0), *random.pick(&["g", "id"])),
    };
    let more = if random.percent(40) { format!(" AND {}", text(&grow(random, &inner, Ty::Bool, 1))) } else { String::new() };
    Expr::Query { ty: value.ty(), sql: format!("SELECT {} FROM {} {alias} WHERE {alias}.{key} = {outer}{more}", text(&value), table.name) }
}

fn text(expr: &Expr) -> String {
    let mut out = String::new();
    expr.render(&mut out, None);
    out
}

/// Equal values look the same. Those of `numeric` that were computed or chosen from differing scales do not, CASE and the like included.
fn exact(expr: &Expr) -> bool {
    expr.ty().exact() && (expr.ty() != Ty::Numeric || matches!(expr, Expr::Column { .. }))
}

fn exact_item(item: &Item) -> bool {
    match item {
        Item::Expr(e) => exact(e),
        _ => false,
    }
}

impl Select {
    fn over(from: From) -> Select {
        Select {
            with: Vec::new(),
            distinct: Distinct::No,
            items: Vec::new(),
            from,
            filter: None,
            groups: Vec::new(),
            grouping: Grouping::Plain,
            having: None,
            combined: None,
            order: Vec::new(),
            offset: None,
            limit: None,
        }
    }

    fn item(&self, item: &Item) -> Expr {
        match item {
            Item::Group(n) => self.groups[*n].clone(),
            Item::Expr(e) => e.clone(),
            Item::Window(w) => w.function.clone(),
        }
    }

    /// Its outputs as columns of something with this name.
    fn columns(&self, alias: &str) -> Leaves {
        let column = |(n, item): (usize, &Item)| {
            let expr = self.item(item);
            // What was computed of numerics has many scales.
            let ty = if expr.ty() == Ty::Numeric && !exact(&expr) { Ty::Loose } else { expr.ty() };
            Expr::Column { alias: alias.into(), name: format!("o{n}"), ty }
        };
        self.items.iter().enumerate().map(column).collect()
    }

    /// Sorts by all outputs, so that the order is settled, or by some. Cut off is only what is settled.
    fn sort(&mut self, random: &mut Grower, last: bool) {
        let settled = self.items.iter().all(|item| match item {
            Item::Group(n) => exact(&self.groups[*n]),
            Item::Window(w) => w.function.ty().exact() && w.function.ty() != Ty::Numeric,
            Item::Expr(e) => exact(e),
        });
        let settled = settled && (self.combined.is_none() || !self.items.iter().any(|i| self.item(i).ty() == Ty::Numeric));
        let mut positions: Vec<usize> = (0..self.items.len()).collect();
        if self.distinct == Distinct::OnFirst {
            // Which row stands for its group must be settled.
            if !settled {
                self.distinct = Distinct::No;
            }
        } else if !settled || random.percent(if last { 20 } else { 60 }) {
            positions.retain(|_| random.percent(30));
        } else if random.percent(30) {
            positions.reverse();
        }
        let all = positions.len() == self.items.len();
        self.order = positions.into_iter().map(|position| Order { position, words: *random.pick(WORDS) }).collect();
        if all && settled && random.percent(if last { 25 } else { 10 }) {
            self.limit = Some(*random.pick(&[0, 1, 5, 20]));
            if random.percent(30) {
                self.offset = Some(*random.pick(&[0, 1, 7]));
            }
        }
    }

    /// The rows have one order, or those that may change places are the same.
    pub fn ordered(&self) -> bool {
        let settled = self.items.iter().all(|item| exact(&self.item(item)) && !matches!(item, Item::Window(w) if w.function.ty() == Ty::Numeric));
        settled && self.order.len() == self.items.len()
    }

    /// As SQL; with `parameters`, constants go there.
    pub fn sql(&self, mut parameters: Option<&mut Parameters>) -> String {
        let mut out = String::new();
        self.render(&mut out, &mut parameters);
        out
    }

    fn render(&self, out: &mut String, parameters: &mut Option<&mut Parameters>) {
        for (n, (name, select)) in self.with.iter().enumerate() {
            out.push_str(if n == 0 { "WITH " } else { ", " });
            out.push_str(name);
            out.push_str(" AS (");
            select.render(out, parameters);
            out.push_str(") ");
        }
        self.render_one(out, parameters);
        let mut combined = &self.combined;
        while let Some((word, next)) = combined {
            out.push_str(&format!(" {word} "));
            next.render_one(out, parameters);
            combined = &next.combined;
        }
        for (n, order) in self.order.iter().enumerate() {
            out.push_str(if n == 0 { " ORDER BY " } else { ", " });
            out.push_str(&format!("{}{}", order.position + 1, order.words));
        }
        if let Some(limit) = self.limit {
            out.push_str(&format!(" LIMIT {limit}"));
        }
        if let Some(offset) = self.offset {
            out.push_str(&format!(" OFFSET {offset}"));
        }
    }

    fn render_one(&self, out: &mut String, parameters: &mut Option<&mut Parameters>) {
        // What is grouped by must be the same expression wherever it stands: constants in it stay constants.
        let grouped = !self.groups.is_empty();
        let mut put = |out: &mut String, expr: &Expr, fixed: bool| {
            expr.render(out, if fixed || grouped { None } else { parameters.as_deref_mut() });
        };
        out.push_str(match self.distinct {
            Distinct::No | Distinct::OnFirst => "SELECT ",
            Distinct::Yes => "SELECT DISTINCT ",
        });
        if self.distinct == Distinct::OnFirst {
            out.push_str("DISTINCT ON (1) ");
        }
        for (n, item) in self.items.iter().enumerate() {
            if n > 0 {
                out.push_str(", ");
            }
            match item {
                Item::Group(g) => put(out, &self.groups[*g], true),
                Item::Expr(e) => put(out, e, self.distinct != Distinct::No),
                Item::Window(w) => {
                    put(out, &w.function, true);
                    out.push_str(" OVER (");
                    if let Some(partition) = &w.partition {
                        out.push_str("PARTITION BY ");
                        put(out, partition, true);
                        out.push(' ');
                    }
                    for (n, key) in w.order.iter().enumerate() {
                        out.push_str(if n == 0 { "ORDER BY " } else { ", " });
                        put(out, key, true);
                        if w.descending && n == 0 {
                            out.push_str(" DESC");
                        }
                    }
                    out.push_str(w.frame);
                    out.push(')');
                }
            }
            out.push_str(&format!(" AS o{n}"));
        }
        out.push_str(" FROM ");
        self.from.render(out, parameters);
        if let Some(filter) = &self.filter {
            out.push_str(" WHERE ");
            filter.render(out, parameters.as_deref_mut());
        }
        let mut put = |out: &mut String, expr: &Expr| expr.render(out, if grouped { None } else { parameters.as_deref_mut() });
        if grouped {
            out.push_str(match self.grouping {
                Grouping::Plain => " GROUP BY ",
                Grouping::Rollup => " GROUP BY ROLLUP (",
                Grouping::Cube => " GROUP BY CUBE (",
                Grouping::Sets => " GROUP BY GROUPING SETS ((), (",
            });
            for (n, group) in self.groups.iter().enumerate() {
                if n > 0 {
                    out.push_str(if self.grouping == Grouping::Sets { "), (" } else { ", " });
                }
                put(out, group);
            }
            out.push_str(match self.grouping {
                Grouping::Plain => "",
                Grouping::Rollup | Grouping::Cube => ")",
                Grouping::Sets => "))",
            });
        }
        if let Some(having) = &self.having {
            out.push_str(" HAVING ");
            put(out, having);
        }
    }

    /// Simpler statements, the boldest first. Some of them make no sense any more: then they fail alike everywhere.
    pub fn simpler(&self) -> Vec<Select> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Select)| {
            let mut less = self.clone();
            change(&mut less);
            if less != *self {
                all.push(less);
            }
        };
        with(&|s| s.combined = None);
        if let Some((_, next)) = &self.combined {
            with(&|s| (s.items, s.from, s.filter, s.combined) = (next.items.clone(), next.from.clone(), next.filter.clone(), next.combined.clone()));
        }
        with(&|s| s.filter = None);
        with(&|s| s.having = None);
        with(&|s| (s.limit, s.offset) = (None, None));
        with(&|s| s.offset = None);
        // Without its order, which rows a limit leaves is open.
        with(&|s| {
            s.order.clear();
            (s.limit, s.offset) = (None, None);
        });
        with(&|s| s.distinct = Distinct::No);
        with(&|s| s.grouping = Grouping::Plain);
        with(&|s| s.order.iter_mut().for_each(|o| o.words = ""));
        for inner in self.from.inner() {
            with(&|s| s.from = inner.clone());
        }
        for n in 0..self.items.len() {
            if self.items.len() > 1 {
                with(&|s| {
                    s.items.remove(n);
                    s.order.retain(|o| o.position != n);
                    s.order.iter_mut().filter(|o| o.position > n).for_each(|o| o.position -= 1);
                });
            }
        }
        for n in 0..self.groups.len() {
            with(&|s| {
                s.groups.remove(n);
                let Some(at) = s.items.iter().position(|i| *i == Item::Group(n)) else { return renumber(s, n) };
                s.items.remove(at);
                s.order.retain(|o| o.position != at);
                s.order.iter_mut().filter(|o| o.position > at).for_each(|o| o.position -= 1);
                renumber(s, n);
            });
        }
        for (n, less) in self.filter.iter().flat_map(|e| e.simpler()).enumerate() {
            if n < 60 {
                with(&|s| s.filter = Some(less.clone()));
            }
        }
        for less in self.having.iter().flat_map(|e| e.simpler()).take(30) {
            with(&|s| s.having = Some(less.clone()));
        }
        for n in 0..self.groups.len() {
            for less in self.groups[n].simpler().into_iter().take(20) {
                with(&|s| s.groups[n] = less.clone());
            }
        }
        for n in 0..self.items.len() {
            match &self.items[n] {
                Item::Group(_) => {}
                Item::Expr(e) => {
                    for less in e.simpler().into_iter().take(40) {
                        with(&|s| s.items[n] = Item::Expr(less.clone()));
                    }
                }
                Item::Window(w) => {
                    with(&|s| if let Item::Window(w) = &mut s.items[n] { w.partition = None });
                    with(&|s| if let Item::Window(w) = &mut s.items[n] { w.frame = "" });
                    for less in w.function.simpler().into_iter().take(10) {
                        if matches!(less, Expr::Node { .. }) {
                            with(&|s| if let Item::Window(w) = &mut s.items[n] { w.function = less.clone() });
                        }
                    }
                }
            }
        }
        for n in 0..self.with.len() {
            for less in self.with[n].1.simpler().into_iter().take(60) {
                with(&|s| s.with[n].1 = less.clone());
            }
        }
        for less in self.from.simpler() {
            with(&|s| s.from = less.clone());
        }
        all
    }
}

/// Group `n` is gone.
fn renumber(select: &mut Select, n: usize) {
    for item in &mut select.items {
        if let Item::Group(g) = item
            && *g > n
        {
            *g -= 1;
        }
    }
}

impl From {
    fn render(&self, out: &mut String, parameters: &mut Option<&mut Parameters>) {
        match self {
            From::Table { name, alias } => out.push_str(&format!("{name} {alias}")),
            From::Named { name, alias } => out.push_str(&format!("{name} {alias}")),
            From::Series { call, alias } => out.push_str(&format!("generate_series({call}) {alias}(id)")),
            From::Derived { select, alias } => {
                out.push('(');
                select.render(out, parameters);
                out.push_str(&format!(") {alias}"));
            }
            From::Join { kind, left, right, on } => {
                left.render(out, parameters);
                out.push_str(&format!(" {kind} "));
                right.render(out, parameters);
                out.push_str(" ON ");
                on.render(out, None);
            }
        }
    }

    /// Parts that could stand alone.
    fn inner(&self) -> Vec<From> {
        match self {
            From::Join { left, right, .. } => vec![(**left).clone(), (**right).clone()],
            _ => Vec::new(),
        }
    }

    fn simpler(&self) -> Vec<From> {
        match self {
            From::Derived { select, alias } => {
                let derived = |select| From::Derived { select: Box::new(select), alias: alias.clone() };
                select.simpler().into_iter().take(60).map(derived).collect()
            }
            From::Join { kind, left, right, on } => {
                let mut all = Vec::new();
                if *kind != "JOIN" {
                    all.push(From::Join { kind: "JOIN", left: left.clone(), right: right.clone(), on: on.clone() });
                }
                for on in on.simpler() {
                    all.push(From::Join { kind, left: left.clone(), right: right.clone(), on });
                }
                for left in left.simpler() {
                    all.push(From::Join { kind, left: Box::new(left), right: right.clone(), on: on.clone() });
                }
                all
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_statement_each_time() {
        for n in 0..500 {
            let (a, b) = (statement(Random::new(7, n)), statement(Random::new(7, n)));
            assert_eq!(a.sql(None), b.sql(None));
        }
        assert_ne!(statement(Random::new(7, 1)).sql(None), statement(Random::new(8, 1)).sql(None));
    }

    #[test]
    fn making_simpler_comes_to_an_end() {
        for n in 0..200 {
            let mut select = statement(Random::new(3, n));
            let mut steps = 0;
            while let Some(less) = select.simpler().into_iter().next() {
                select = less;
                steps += 1;
                assert!(steps < 2_000, "{}", select.sql(None));
            }
        }
    }

    #[test]
    fn parameters_stand_for_constants() {
        let with_some = (0..200).filter(|n| {
            let select = statement(Random::new(5, *n));
            let mut parameters = Parameters::new();
            let sql = select.sql(Some(&mut parameters));
            assert!((1..=parameters.len()).all(|p| sql.contains(&format!("${p}"))));
            !parameters.is_empty()
        });
        assert!(with_some.count() > 20);
    }
}
