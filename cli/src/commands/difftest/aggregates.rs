//! Calls of aggregates, inside and outside of what the lake may answer. ✗ expressions below them.

use super::expr::{Expr, Grower, Leaves, Ty, grow};
use Ty::*;

/// Result, template, types of the arguments.
pub type Aggregate = (Ty, &'static str, &'static [Ty]);

pub const AGGREGATES: &[Aggregate] = &[
    (Int8, "count(*)", &[]),
    (Int8, "count(*)", &[]),
    (Int8, "count({})", &[Text]),
    (Int8, "count({})", &[Jsonb]),
    (Int8, "count(DISTINCT {})", &[Text]),
    (Int8, "count(DISTINCT {})", &[Int4]),
    (Int8, "count(DISTINCT {})", &[Numeric]),
    (Int8, "count(DISTINCT {})", &[Date]),
    (Int8, "count(DISTINCT {})", &[Float8]),
    (Int8, "sum({})", &[Int4]),
    (Int8, "sum({})", &[Int2]),
    (Numeric, "sum({})", &[Int8]),
    (Numeric, "sum({})", &[Numeric]),
    (Numeric, "avg({})", &[Int4]),
    (Numeric, "avg({})", &[Int8]),
    (Numeric, "avg({})", &[Numeric]),
    (Int4, "min({})", &[Int4]),
    (Int4, "max({})", &[Int4]),
    (Int8, "max({})", &[Int8]),
    (Numeric, "min({})", &[Numeric]),
    (Numeric, "max({})", &[Numeric]),
    (Text, "min({})", &[Text]),
    (Text, "max({})", &[Text]),
    (Date, "max({})", &[Date]),
    (Timestamp, "min({})", &[Timestamp]),
    (TimestampTz, "min({})", &[TimestampTz]),
    (TimestampTz, "max({})", &[TimestampTz]),
    (Bool, "bool_and({})", &[Bool]),
    (Bool, "bool_or({})", &[Bool]),
    (Bool, "every({})", &[Bool]),
    (Int4, "bit_and({})", &[Int4]),
    (Int8, "bit_or({})", &[Int8]),
    (Numeric, "stddev({})", &[Int4]),
    (Numeric, "var_pop({})", &[Numeric]),
    (Numeric, "variance({})", &[Int8]),
    (Int4, "percentile_disc(0.5) WITHIN GROUP (ORDER BY {})", &[Int4]),
    (Float8, "percentile_cont(0.9) WITHIN GROUP (ORDER BY {})", &[Int4]),
    (Numeric, "sum(DISTINCT {})", &[Numeric]),
    (Int8, "count(DISTINCT ({}, {}))", &[Text, Int4]),
    (Int8, "count(DISTINCT ({}, {}, {}))", &[Bool, Date, Int2]),
    (Int8, "count(({}, {}))", &[TimestampTz, Text]),
    (Text, "string_agg({}, ',' ORDER BY {})", &[Text]),
    (Text, "string_agg({}, '' ORDER BY {} DESC NULLS LAST)", &[Text]),
    (Text, "string_agg(DISTINCT {}, ' | ')", &[Text]),
    (Text, "array_agg({} ORDER BY {})::text", &[Int4]),
    (Ints, "array_agg({} ORDER BY {})", &[Int4]),
    (Ints, "array_agg({} ORDER BY {} DESC)", &[Int4]),
    (Ints, "array_agg(DISTINCT {})", &[Int4]),
    (Float8, "percentile_cont(0.5) WITHIN GROUP (ORDER BY {} DESC)", &[Int8]),
    (Float8, "percentile_cont(0.95) WITHIN GROUP (ORDER BY {})", &[Numeric]),
    (Float8, "percentile_cont(0.25) WITHIN GROUP (ORDER BY {})", &[Float8]),
    (Float8, "percentile_disc(0.75) WITHIN GROUP (ORDER BY {})", &[Float8]),
    (TimestampTz, "percentile_disc(0.5) WITHIN GROUP (ORDER BY {})", &[TimestampTz]),
    (Text, "percentile_disc(0.3) WITHIN GROUP (ORDER BY {} DESC)", &[Text]),
    (Text, "mode() WITHIN GROUP (ORDER BY {})", &[Text]),
    (Int4, "mode() WITHIN GROUP (ORDER BY {} DESC)", &[Int4]),
    (Float8, "mode() WITHIN GROUP (ORDER BY {})", &[Float8]),
    (Loose, "sum({})", &[Loose]),
    (Loose, "avg({})", &[Loose]),
];

/// A call of an aggregate over rows whose columns are `leaves`.
pub fn aggregate(random: &mut Grower, leaves: &Leaves, depth: usize) -> Expr {
    let choices = random.aggregates.clone();
    let (ty, template, types) = **random.pick(&choices);
    let depth = random.below(depth + 1);
    // Of a constant, what depends on an order or on what is distinct is PostgreSQL's.
    let tries = if random.inside { 4 } else { 1 };
    let mut grown = |ty: &Ty| {
        let mut arg = grow(random, leaves, *ty, depth);
        for _ in 1..tries {
            if arg.mentions_column() {
                break;
            }
            arg = grow(random, leaves, *ty, depth);
        }
        arg
    };
    let args: Vec<Expr> = types.iter().map(&mut grown).collect();
    // Where one stands twice, it is what is sorted by, too.
    let places = template.matches("{}").count();
    let args = args.iter().cycle().take(places).cloned().collect();
    let call = Expr::Node { ty, template, args };
    if random.percent(15) && !template.contains("::") {
        let filter = grow(random, leaves, Bool, 1);
        return Expr::Node { ty, template: "{} FILTER (WHERE {})", args: vec![call, filter] };
    }
    call
}
