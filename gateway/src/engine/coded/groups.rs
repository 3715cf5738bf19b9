//! Group keys as numbers. A value of a key column gets a code when a row has it, a combination of codes gets a
//! group; the code of a dictionary's entry is looked up once a dictionary, not once a row. Pure.
//!
//! Codes and groups are numbered from 0 in the order of their first row. NULL has a code like any value, so
//! NULLs form a group of their own, as GROUP BY asks.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, PrimitiveArray, StringArray, StringBuilder,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, HashMap, Result};

/// Not numbered yet.
const NONE: u32 = u32::MAX;
/// A table of all pairs may have this many places; beyond it, pairs are hashed.
const MOST_PLACES: usize = 1 << 20;
/// Rows looked at together: if all have one value, it is numbered once.
pub(super) const TOGETHER: usize = 64;

/// How columns of low cardinality are read: the codes that Parquet keeps, and their values.
pub(crate) fn coded_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Whether a key of this type can be numbered here.
pub(super) fn supports(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    ) || *ty == coded_type()
}

/// Numbers the rows of batches by their keys.
pub(super) struct Groups {
    keys: Vec<Key>,
    /// Between the groups of the keys so far and the codes of the next one.
    pairs: Vec<Pairs>,
    scratch: Vec<u32>,
}

impl Groups {
    /// For keys of these types, at least one.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let keys = types.iter().map(Key::new).collect::<Result<Vec<_>>>()?;
        let pairs = (1..keys.len()).map(|_| Pairs::default()).collect();
        Ok(Groups { keys, pairs, scratch: Vec::new() })
    }

    pub(super) fn len(&self) -> usize {
        match self.pairs.last() {
            Some(pairs) => pairs.members.len(),
            None => self.keys.first().map_or(0, Key::len),
        }
    }

    /// Whether rows of one group are likely to stand together, as far as the keys tell: a time, by which files are sorted.
    pub(super) fn come_in_runs(&self) -> bool {
        matches!(&self.keys[..], [Key { kind: Kind::Number { .. }, .. }])
    }

    /// Puts the group of each row into `out`.
    pub(super) fn number(&mut self, arrays: &[ArrayRef], out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        let Some((first, others)) = self.keys.split_first_mut() else {
            return Err(DataFusionError::Internal("groups without a key".into()));
        };
        let Some((array, arrays)) = arrays.split_first() else {
            return Err(DataFusionError::Internal("fewer keys than columns".into()));
        };
        first.number(array, out)?;
        let mut groups = first.len();
        for ((key, pairs), array) in others.iter_mut().zip(&mut self.pairs).zip(arrays) {
            self.scratch.clear();
            key.number(array, &mut self.scratch)?;
            pairs.number(out, groups, &self.scratch, key.len());
            groups = pairs.members.len();
        }
        Ok(())
    }

    /// The keys of all groups, in the order of their numbers.
    pub(super) fn values(&mut self) -> Result<Vec<ArrayRef>> {
        // The first key's code of each group of the pairs so far, walked back from the last pair.
        let mut codes: Vec<u32> = (0..self.len() as u32).collect();
        let mut columns = Vec::with_capacity(self.keys.len());
        for (key, pairs) in self.keys.iter_mut().skip(1).zip(&self.pairs).rev() {
            let own: Vec<u32> = codes.iter().map(|g| pairs.members[*g as usize].1).collect();
            columns.push(key.values(&own)?);
            for group in &mut codes {
                *group = pairs.members[*group as usize].0;
            }
        }
        if let Some(first) = self.keys.first_mut() {
            columns.push(first.values(&codes)?);
        }
        columns.reverse();
        Ok(columns)
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.keys.iter().map(Key::bytes).sum::<usize>() + self.pairs.iter().map(Pairs::bytes).sum::<usize>()
    }
}

/// The values of one key column.
struct Key {
    ty: DataType,
    /// The code of NULL.
    null: u32,
    count: u32,
    kind: Kind,
}

enum Kind {
    Coded(Texts),
    /// Integers, times and booleans, as integers.
    Number {
        codes: HashMap<i64, u32>,
        /// By code; NULL's place is taken too.
        values: Vec<i64>,
    },
}

/// The distinct texts of all dictionaries so far.
#[derive(Default)]
struct Texts {
    codes: HashMap<Box<str>, u32>,
    /// By code; NULL's place is taken too.
    values: Vec<Box<str>>,
    bytes: usize,
    /// The dictionary that `map` is about; held, so that no other can come to stand at its address.
    dictionary: Option<StringArray>,
    /// Codes of its entries.
    map: Vec<u32>,
    /// Entries that have none yet.
    unknown: usize,
}

impl Key {
    fn new(ty: &DataType) -> Result<Self> {
        if !supports(ty) {
            return Err(DataFusionError::Internal(format!("a key of {ty} cannot be numbered")));
        }
        let kind = match ty {
            DataType::Dictionary(..) => Kind::Coded(Texts::default()),
            _ => Kind::Number { codes: HashMap::default(), values: Vec::new() },
        };
        Ok(Key { ty: ty.clone(), null: NONE, count: 0, kind })
    }

    fn len(&self) -> usize {
        self.count as usize
    }

    fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Coded(texts) => texts.bytes * 2 + texts.values.len() * 64 + texts.map.len() * 4,
            Kind::Number { values, .. } => values.len() * 32,
        }
    }

    fn number(&mut self, array: &ArrayRef, out: &mut Vec<u32>) -> Result<()> {
        if *array.data_type() != self.ty {
            let (found, ty) = (array.data_type(), &self.ty);
            return Err(DataFusionError::Internal(format!("a key of {found} instead of {ty}")));
        }
        match &self.ty {
            DataType::Dictionary(..) => self.number_coded(array, out),
            DataType::Boolean => {
                let array: &BooleanArray = array.as_boolean();
                let values = (0..array.len()).map(|i| i64::from(array.value(i)));
                self.number_integers(array.nulls(), values, out)
            }
            DataType::Int16 => self.number_primitive::<Int16Type>(array, out),
            DataType::Int32 => self.number_primitive::<Int32Type>(array, out),
            DataType::Int64 => self.number_primitive::<Int64Type>(array, out),
            DataType::Date32 => self.number_primitive::<Date32Type>(array, out),
            _ => self.number_primitive::<TimestampMicrosecondType>(array, out),
        }
    }

    fn number_primitive<T>(&mut self, array: &ArrayRef, out: &mut Vec<u32>) -> Result<()>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i64>,
    {
        let array = array.as_primitive::<T>();
        if let Some(nulls) = array.nulls().filter(|n| n.null_count() > 0) {
            return self.number_integers(Some(nulls), array.values().iter().map(|v| (*v).into()), out);
        }
        for some in array.values().chunks(TOGETHER) {
            // Times that were cut to an hour come in long runs.
            if let [first, .., last] = some
                && first == last
                && some.iter().fold(true, |all, v| all & (v == first))
            {
                self.number_integers(None, std::iter::once((*first).into()), out)?;
                // It was just put there.
                let code = out.last().copied().unwrap_or(NONE);
                out.resize(out.len() + some.len() - 1, code);
            } else {
                self.number_integers(None, some.iter().map(|v| (*v).into()), out)?;
            }
        }
        Ok(())
    }

    fn number_integers(
        &mut self,
        nulls: Option<&NullBuffer>,
        integers: impl Iterator<Item = i64>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let Kind::Number { codes, values } = &mut self.kind else {
            return Err(DataFusionError::Internal("a key of another kind".into()));
        };
        let (null, count) = (&mut self.null, &mut self.count);
        let mut last: Option<(i64, u32)> = None;
        for (row, value) in integers.enumerate() {
            if nulls.is_some_and(|n| n.is_null(row)) {
                out.push(code_of_null(null, count, || values.push(0)));
                continue;
            }
            if let Some((same, code)) = last
                && same == value
            {
                out.push(code);
                continue;
            }
            let code = *codes.entry(value).or_insert_with(|| {
                values.push(value);
                *count += 1;
                *count - 1
            });
            last = Some((value, code));
            out.push(code);
        }
        Ok(())
    }

    fn number_coded(&mut self, array: &ArrayRef, out: &mut Vec<u32>) -> Result<()> {
        let Kind::Coded(texts) = &mut self.kind else {
            return Err(DataFusionError::Internal("a key of another kind".into()));
        };
        let array: &DictionaryArray<Int32Type> = array.as_dictionary();
        let Some(dictionary) = array.values().as_string_opt::<i32>() else {
            return Err(DataFusionError::Internal("a dictionary of other values than texts".into()));
        };
        texts.turn_to(dictionary);
        let keys = array.keys();
        let nulls = keys.nulls().filter(|n| n.null_count() > 0);
        let (null, count) = (&mut self.null, &mut self.count);
        out.reserve(keys.len());
        if nulls.is_none() && texts.unknown == 0 {
            // An array's keys are within its dictionary.
            out.extend(keys.values().iter().map(|key| texts.map[*key as usize]));
            return Ok(());
        }
        let null_entries = dictionary.null_count() > 0;
        for (row, key) in keys.values().iter().enumerate() {
            // The key of a NULL may be anything.
            if nulls.is_some_and(|n| n.is_null(row)) {
                out.push(code_of_null(null, count, || texts.values.push("".into())));
                continue;
            }
            let entry = *key as usize;
            let known = texts.map.get(entry).copied().unwrap_or(NONE);
            if known != NONE {
                out.push(known);
                continue;
            }
            if entry >= dictionary.len() {
                return Err(DataFusionError::Internal("a code outside of its dictionary".into()));
            }
            let code = match null_entries && dictionary.is_null(entry) {
                true => code_of_null(null, count, || texts.values.push("".into())),
                false => texts.code(dictionary.value(entry), count),
            };
            texts.map[entry] = code;
            texts.unknown -= 1;
            out.push(code);
        }
        Ok(())
    }

    /// The values of these codes.
    fn values(&mut self, codes: &[u32]) -> Result<ArrayRef> {
        let null = self.null;
        Ok(match (&self.kind, &self.ty) {
            (Kind::Coded(texts), _) => {
                let mut values = StringBuilder::with_capacity(texts.values.len(), texts.bytes);
                texts.values.iter().for_each(|v| values.append_value(v));
                let keys: Int32Array = codes.iter().map(|c| (*c != null).then_some(*c as i32)).collect();
                Arc::new(DictionaryArray::try_new(keys, Arc::new(values.finish()))?)
            }
            (Kind::Number { values, .. }, ty) => {
                let value = |c: &u32| (*c != null).then(|| values[*c as usize]);
                match ty {
                    DataType::Boolean => {
                        Arc::new(codes.iter().map(|c| value(c).map(|v| v != 0)).collect::<BooleanArray>())
                    }
                    // Each value came from this type.
                    DataType::Int16 => Arc::new(primitive::<Int16Type>(codes, |c| value(c).map(|v| v as i16))),
                    DataType::Int32 => Arc::new(primitive::<Int32Type>(codes, |c| value(c).map(|v| v as i32))),
                    DataType::Date32 => Arc::new(primitive::<Date32Type>(codes, |c| value(c).map(|v| v as i32))),
                    DataType::Int64 => Arc::new(primitive::<Int64Type>(codes, value)),
                    other => Arc::new(
                        primitive::<TimestampMicrosecondType>(codes, value).with_data_type(other.clone()),
                    ),
                }
            }
        })
    }
}

fn primitive<T: ArrowPrimitiveType>(codes: &[u32], value: impl Fn(&u32) -> Option<T::Native>) -> PrimitiveArray<T> {
    codes.iter().map(value).collect()
}

fn code_of_null(null: &mut u32, count: &mut u32, take_place: impl FnOnce()) -> u32 {
    if *null == NONE {
        *null = *count;
        *count += 1;
        take_place();
    }
    *null
}

impl Texts {
    /// Makes `map` the map of this dictionary.
    fn turn_to(&mut self, dictionary: &StringArray) {
        let same = self.dictionary.as_ref().is_some_and(|held| {
            held.len() == dictionary.len()
                && held.value_offsets().as_ptr() == dictionary.value_offsets().as_ptr()
                && held.values().as_ptr() == dictionary.values().as_ptr()
        });
        if !same {
            self.map.clear();
            self.map.resize(dictionary.len(), NONE);
            self.unknown = dictionary.len();
            self.dictionary = Some(dictionary.clone());
        }
    }

    fn code(&mut self, text: &str, count: &mut u32) -> u32 {
        if let Some(code) = self.codes.get(text) {
            return *code;
        }
        let code = *count;
        *count += 1;
        self.codes.insert(text.into(), code);
        self.values.push(text.into());
        self.bytes += text.len();
        code
    }
}

/// Numbers pairs of a group and a code.
#[derive(Default)]
struct Pairs {
    /// By number.
    members: Vec<(u32, u32)>,
    /// Place `group << bits | code`; empty once there would be too many places.
    direct: Vec<u32>,
    bits: u32,
    hashed: HashMap<u64, u32>,
    is_hashed: bool,
}

impl Pairs {
    fn bytes(&self) -> usize {
        self.members.len() * 8 + self.direct.len() * 4 + self.hashed.len() * 24
    }

    /// Replaces each group by the number of its pair with the code of the same row. `groups` and `codes_seen` are above all of them.
    fn number(&mut self, groups_of_rows: &mut [u32], groups: usize, codes: &[u32], codes_seen: usize) {
        self.make_room(groups, codes_seen);
        if self.is_hashed {
            for (group, code) in groups_of_rows.iter_mut().zip(codes) {
                let members = &mut self.members;
                *group = *self.hashed.entry(u64::from(*group) << 32 | u64::from(*code)).or_insert_with(|| {
                    members.push((*group, *code));
                    members.len() as u32 - 1
                });
            }
            return;
        }
        for (group, code) in groups_of_rows.iter_mut().zip(codes) {
            let place = &mut self.direct[(*group as usize) << self.bits | *code as usize];
            if *place == NONE {
                *place = self.members.len() as u32;
                self.members.push((*group, *code));
            }
            *group = *place;
        }
    }

    fn make_room(&mut self, groups: usize, codes: usize) {
        if self.is_hashed {
            return;
        }
        let bits = codes.next_power_of_two().trailing_zeros().max(self.bits);
        let rows = groups.next_power_of_two().max(1);
        let places = rows << bits;
        if places > MOST_PLACES {
            self.is_hashed = true;
            self.direct = Vec::new();
            self.hashed = (0..).zip(&self.members).map(|(n, (g, c))| (u64::from(*g) << 32 | u64::from(*c), n)).collect();
            return;
        }
        if bits != self.bits {
            self.bits = bits;
            self.direct.clear();
            self.direct.resize(places, NONE);
            for (number, (group, code)) in (0..).zip(&self.members) {
                self.direct[(*group as usize) << bits | *code as usize] = number;
            }
        } else if self.direct.len() < places {
            self.direct.resize(places, NONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use datafusion::arrow::compute;
    use proptest::prelude::*;
    use std::collections::HashMap as Map;

    fn coded(texts: &[Option<&str>]) -> ArrayRef {
        Arc::new(texts.iter().copied().collect::<DictionaryArray<Int32Type>>())
    }

    fn shown(columns: &[ArrayRef]) -> Vec<Vec<Option<String>>> {
        let texts: Vec<StringArray> = columns
            .iter()
            .map(|c| compute::cast(c, &DataType::Utf8).unwrap().as_string::<i32>().clone())
            .collect();
        let rows = texts.first().map_or(0, Array::len);
        (0..rows).map(|r| texts.iter().map(|t| t.is_valid(r).then(|| t.value(r).to_owned())).collect()).collect()
    }

    #[test]
    fn one_key() {
        let mut groups = Groups::new(&[coded_type()]).unwrap();
        let mut out = Vec::new();
        groups.number(&[coded(&[Some("b"), None, Some("a"), Some("b")])], &mut out).unwrap();
        assert_eq!(out, [0, 1, 2, 0]);
        // Another dictionary with other codes for the same texts.
        groups.number(&[coded(&[Some("a"), Some("c"), None, Some("b")])], &mut out).unwrap();
        assert_eq!(out, [2, 3, 1, 0]);
        let some = |s: &str| vec![Some(s.to_owned())];
        assert_eq!(shown(&groups.values().unwrap()), [some("b"), vec![None], some("a"), some("c")]);
    }

    #[test]
    fn entries_without_a_row_are_no_groups() {
        let dictionary: ArrayRef = Arc::new(StringArray::from(vec![Some("unused"), Some("x"), None]));
        let keys = Int32Array::from(vec![Some(1), Some(2), None, Some(1)]);
        let array: ArrayRef = Arc::new(DictionaryArray::try_new(keys, dictionary).unwrap());
        let mut groups = Groups::new(&[coded_type()]).unwrap();
        let mut out = Vec::new();
        groups.number(&[array], &mut out).unwrap();
        assert_eq!((out, groups.len()), (vec![0, 1, 1, 0], 2), "a NULL entry and a NULL key are one group");
    }

    #[test]
    fn times_keep_their_type() {
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None, Some(5), Some(-1)]).with_timezone("UTC"));
        let mut groups = Groups::new(&[times.data_type().clone(), coded_type()]).unwrap();
        let mut out = Vec::new();
        groups.number(&[times.clone(), coded(&[Some("a"), None, Some("a"), Some("a")])], &mut out).unwrap();
        assert_eq!(out, [0, 1, 0, 2]);
        let values = groups.values().unwrap();
        assert_eq!(values[0].data_type(), times.data_type());
        assert_eq!(values[0].as_primitive::<TimestampMicrosecondType>().value(2), -1);
    }

    #[test]
    fn types_without_equality_of_codes_are_refused() {
        assert!(!supports(&DataType::Float64), "NaN and -0 compare otherwise");
        assert!(!supports(&DataType::Utf8View));
        assert!(Groups::new(&[DataType::Float32]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Rows are in one group exactly if their keys are equal, whatever the batches, the dictionaries and the number of pairs.
        #[test]
        fn groups_are_the_keys(
            batches in prop::collection::vec(
                prop::collection::vec((prop::option::of(0u8..6), prop::option::of(-2000i64..2000), prop::option::of(0u16..3000)), 1..60),
                1..6,
            ),
            wide in any::<bool>(),
        ) {
            let mut groups = Groups::new(&[coded_type(), DataType::Int64, coded_type()]).unwrap();
            let mut expected: Map<Vec<Option<String>>, u32> = Map::new();
            let mut order = Vec::new();
            let mut out = Vec::new();
            for batch in &batches {
                let narrow = |n: u16| if wide { n } else { n % 3 };
                let a: Vec<Option<String>> = batch.iter().map(|r| r.0.map(|v| format!("a{v}"))).collect();
                let c: Vec<Option<String>> = batch.iter().map(|r| r.2.map(|v| format!("c{}", narrow(v)))).collect();
                let b: Vec<Option<i64>> = batch.iter().map(|r| r.1.map(|v| if wide { v } else { v % 2 })).collect();
                let text = |v: &[Option<String>]| coded(&v.iter().map(Option::as_deref).collect::<Vec<_>>());
                groups.number(&[text(&a), Arc::new(Int64Array::from(b.clone())), text(&c)], &mut out).unwrap();
                for row in 0..batch.len() {
                    let key = vec![a[row].clone(), b[row].map(|v| v.to_string()), c[row].clone()];
                    let next = expected.len() as u32;
                    let number = *expected.entry(key.clone()).or_insert_with(|| { order.push(key); next });
                    prop_assert_eq!(out[row], number);
                }
            }
            prop_assert_eq!(groups.len(), expected.len());
            prop_assert_eq!(shown(&groups.values().unwrap()), order);
        }
    }
}
