//! Operators: comparisons of the btree families, and what may be computed by the server ahead of a statement.
//! Recorded from `pg_operator`, `pg_amop` and `pg_proc` of PostgreSQL 15.

use super::*;

/// A comparison of a btree operator family, or the negation of its equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compare {
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    Ne,
}

impl Compare {
    /// The comparison with its sides exchanged.
    pub fn swap(self) -> Compare {
        match self {
            Compare::Lt => Compare::Gt,
            Compare::Le => Compare::Ge,
            Compare::Ge => Compare::Le,
            Compare::Gt => Compare::Lt,
            same => same,
        }
    }

    /// The operator's name.
    pub fn symbol(self) -> &'static str {
        match self {
            Compare::Lt => "<",
            Compare::Le => "<=",
            Compare::Eq => "=",
            Compare::Ge => ">=",
            Compare::Gt => ">",
            Compare::Ne => "<>",
        }
    }
}

/// What an operator compares, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub compare: Compare,
    pub left: u32,
    pub right: u32,
}

/// The comparison that an operator is. `func` must be its implementing function, as the tree says.
pub fn comparison(op: u32, func: u32) -> Option<Comparison> {
    let row = COMPARISONS.binary_search_by_key(&op, |row| row.0).ok().map(|i| &COMPARISONS[i])?;
    (row.1 == func).then_some(Comparison { compare: row.2, left: row.3, right: row.4 })
}

/// The comparison that an operator is, where the tree names the operator alone (sort and group clauses).
pub fn comparison_operator(op: u32) -> Option<Comparison> {
    let row = COMPARISONS.binary_search_by_key(&op, |row| row.0).ok().map(|i| &COMPARISONS[i])?;
    Some(Comparison { compare: row.2, left: row.3, right: row.4 })
}

/// All of them, with their OIDs.
pub fn comparisons() -> impl Iterator<Item = (u32, Comparison)> {
    COMPARISONS.iter().map(|row| (row.0, Comparison { compare: row.2, left: row.3, right: row.4 }))
}

use Compare::{Eq as E, Ge, Gt, Le, Lt, Ne};

/// Operator, function, comparison, left and right type.
#[rustfmt::skip]
const COMPARISONS: &[(u32, u32, Compare, u32, u32)] = &[
    (15, 852, E, INT4, INT8),
    (36, 853, Ne, INT4, INT8),
    (37, 854, Lt, INT4, INT8),
    (58, 56, Lt, BOOL, BOOL),
    (59, 57, Gt, BOOL, BOOL),
    (76, 855, Gt, INT4, INT8),
    (80, 856, Le, INT4, INT8),
    (82, 857, Ge, INT4, INT8),
    (85, 84, Ne, BOOL, BOOL),
    (91, 60, E, BOOL, BOOL),
    (94, 63, E, INT2, INT2),
    (95, 64, Lt, INT2, INT2),
    (96, 65, E, INT4, INT4),
    (97, 66, Lt, INT4, INT4),
    (98, 67, E, TEXT, TEXT),
    (410, 467, E, INT8, INT8),
    (411, 468, Ne, INT8, INT8),
    (412, 469, Lt, INT8, INT8),
    (413, 470, Gt, INT8, INT8),
    (414, 471, Le, INT8, INT8),
    (415, 472, Ge, INT8, INT8),
    (416, 474, E, INT8, INT4),
    (417, 475, Ne, INT8, INT4),
    (418, 476, Lt, INT8, INT4),
    (419, 477, Gt, INT8, INT4),
    (420, 478, Le, INT8, INT4),
    (430, 479, Ge, INT8, INT4),
    (518, 144, Ne, INT4, INT4),
    (519, 145, Ne, INT2, INT2),
    (520, 146, Gt, INT2, INT2),
    (521, 147, Gt, INT4, INT4),
    (522, 148, Le, INT2, INT2),
    (523, 149, Le, INT4, INT4),
    (524, 151, Ge, INT2, INT2),
    (525, 150, Ge, INT4, INT4),
    (531, 157, Ne, TEXT, TEXT),
    (532, 158, E, INT2, INT4),
    (533, 159, E, INT4, INT2),
    (534, 160, Lt, INT2, INT4),
    (535, 161, Lt, INT4, INT2),
    (536, 162, Gt, INT2, INT4),
    (537, 163, Gt, INT4, INT2),
    (538, 164, Ne, INT2, INT4),
    (539, 165, Ne, INT4, INT2),
    (540, 166, Le, INT2, INT4),
    (541, 167, Le, INT4, INT2),
    (542, 168, Ge, INT2, INT4),
    (543, 169, Ge, INT4, INT2),
    (620, 287, E, FLOAT4, FLOAT4),
    (621, 288, Ne, FLOAT4, FLOAT4),
    (622, 289, Lt, FLOAT4, FLOAT4),
    (623, 291, Gt, FLOAT4, FLOAT4),
    (624, 290, Le, FLOAT4, FLOAT4),
    (625, 292, Ge, FLOAT4, FLOAT4),
    (664, 740, Lt, TEXT, TEXT),
    (665, 741, Le, TEXT, TEXT),
    (666, 742, Gt, TEXT, TEXT),
    (667, 743, Ge, TEXT, TEXT),
    (670, 293, E, FLOAT8, FLOAT8),
    (671, 294, Ne, FLOAT8, FLOAT8),
    (672, 295, Lt, FLOAT8, FLOAT8),
    (673, 296, Le, FLOAT8, FLOAT8),
    (674, 297, Gt, FLOAT8, FLOAT8),
    (675, 298, Ge, FLOAT8, FLOAT8),
    (1093, 1086, E, DATE, DATE),
    (1094, 1091, Ne, DATE, DATE),
    (1095, 1087, Lt, DATE, DATE),
    (1096, 1088, Le, DATE, DATE),
    (1097, 1089, Gt, DATE, DATE),
    (1098, 1090, Ge, DATE, DATE),
    (1120, 299, E, FLOAT4, FLOAT8),
    (1121, 300, Ne, FLOAT4, FLOAT8),
    (1122, 301, Lt, FLOAT4, FLOAT8),
    (1123, 303, Gt, FLOAT4, FLOAT8),
    (1124, 302, Le, FLOAT4, FLOAT8),
    (1125, 304, Ge, FLOAT4, FLOAT8),
    (1130, 305, E, FLOAT8, FLOAT4),
    (1131, 306, Ne, FLOAT8, FLOAT4),
    (1132, 307, Lt, FLOAT8, FLOAT4),
    (1133, 309, Gt, FLOAT8, FLOAT4),
    (1134, 308, Le, FLOAT8, FLOAT4),
    (1135, 310, Ge, FLOAT8, FLOAT4),
    (1320, 1152, E, TIMESTAMPTZ, TIMESTAMPTZ),
    (1321, 1153, Ne, TIMESTAMPTZ, TIMESTAMPTZ),
    (1322, 1154, Lt, TIMESTAMPTZ, TIMESTAMPTZ),
    (1323, 1155, Le, TIMESTAMPTZ, TIMESTAMPTZ),
    (1324, 1157, Gt, TIMESTAMPTZ, TIMESTAMPTZ),
    (1325, 1156, Ge, TIMESTAMPTZ, TIMESTAMPTZ),
    (1694, 1691, Le, BOOL, BOOL),
    (1695, 1692, Ge, BOOL, BOOL),
    (1752, 1718, E, NUMERIC, NUMERIC),
    (1753, 1719, Ne, NUMERIC, NUMERIC),
    (1754, 1722, Lt, NUMERIC, NUMERIC),
    (1755, 1723, Le, NUMERIC, NUMERIC),
    (1756, 1720, Gt, NUMERIC, NUMERIC),
    (1757, 1721, Ge, NUMERIC, NUMERIC),
    (1862, 1850, E, INT2, INT8),
    (1863, 1851, Ne, INT2, INT8),
    (1864, 1852, Lt, INT2, INT8),
    (1865, 1853, Gt, INT2, INT8),
    (1866, 1854, Le, INT2, INT8),
    (1867, 1855, Ge, INT2, INT8),
    (1868, 1856, E, INT8, INT2),
    (1869, 1857, Ne, INT8, INT2),
    (1870, 1858, Lt, INT8, INT2),
    (1871, 1859, Gt, INT8, INT2),
    (1872, 1860, Le, INT8, INT2),
    (1873, 1861, Ge, INT8, INT2),
    (2060, 2052, E, TIMESTAMP, TIMESTAMP),
    (2061, 2053, Ne, TIMESTAMP, TIMESTAMP),
    (2062, 2054, Lt, TIMESTAMP, TIMESTAMP),
    (2063, 2055, Le, TIMESTAMP, TIMESTAMP),
    (2064, 2057, Gt, TIMESTAMP, TIMESTAMP),
    (2065, 2056, Ge, TIMESTAMP, TIMESTAMP),
    (2345, 2338, Lt, DATE, TIMESTAMP),
    (2346, 2339, Le, DATE, TIMESTAMP),
    (2347, 2340, E, DATE, TIMESTAMP),
    (2348, 2342, Ge, DATE, TIMESTAMP),
    (2349, 2341, Gt, DATE, TIMESTAMP),
    (2350, 2343, Ne, DATE, TIMESTAMP),
    (2358, 2351, Lt, DATE, TIMESTAMPTZ),
    (2359, 2352, Le, DATE, TIMESTAMPTZ),
    (2360, 2353, E, DATE, TIMESTAMPTZ),
    (2361, 2355, Ge, DATE, TIMESTAMPTZ),
    (2362, 2354, Gt, DATE, TIMESTAMPTZ),
    (2363, 2356, Ne, DATE, TIMESTAMPTZ),
    (2371, 2364, Lt, TIMESTAMP, DATE),
    (2372, 2365, Le, TIMESTAMP, DATE),
    (2373, 2366, E, TIMESTAMP, DATE),
    (2374, 2368, Ge, TIMESTAMP, DATE),
    (2375, 2367, Gt, TIMESTAMP, DATE),
    (2376, 2369, Ne, TIMESTAMP, DATE),
    (2384, 2377, Lt, TIMESTAMPTZ, DATE),
    (2385, 2378, Le, TIMESTAMPTZ, DATE),
    (2386, 2379, E, TIMESTAMPTZ, DATE),
    (2387, 2381, Ge, TIMESTAMPTZ, DATE),
    (2388, 2380, Gt, TIMESTAMPTZ, DATE),
    (2389, 2382, Ne, TIMESTAMPTZ, DATE),
    (2534, 2520, Lt, TIMESTAMP, TIMESTAMPTZ),
    (2535, 2521, Le, TIMESTAMP, TIMESTAMPTZ),
    (2536, 2522, E, TIMESTAMP, TIMESTAMPTZ),
    (2537, 2524, Ge, TIMESTAMP, TIMESTAMPTZ),
    (2538, 2523, Gt, TIMESTAMP, TIMESTAMPTZ),
    (2539, 2525, Ne, TIMESTAMP, TIMESTAMPTZ),
    (2540, 2527, Lt, TIMESTAMPTZ, TIMESTAMP),
    (2541, 2528, Le, TIMESTAMPTZ, TIMESTAMP),
    (2542, 2529, E, TIMESTAMPTZ, TIMESTAMP),
    (2543, 2531, Ge, TIMESTAMPTZ, TIMESTAMP),
    (2544, 2530, Gt, TIMESTAMPTZ, TIMESTAMP),
    (2545, 2532, Ne, TIMESTAMPTZ, TIMESTAMP),
    (2972, 2956, E, UUID, UUID),
    (2973, 2959, Ne, UUID, UUID),
    (2974, 2954, Lt, UUID, UUID),
    (2975, 2958, Gt, UUID, UUID),
    (2976, 2955, Le, UUID, UUID),
    (2977, 2957, Ge, UUID, UUID),
    (5068, 5084, E, XID8, XID8),
    (5072, 5085, Ne, XID8, XID8),
    (5073, 5034, Lt, XID8, XID8),
    (5074, 5035, Gt, XID8, XID8),
    (5075, 5036, Le, XID8, XID8),
    (5076, 5037, Ge, XID8, XID8),
];

/// A function or operator of `pg_catalog` that the server may compute over constants and parameters ahead of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foldable {
    pub oid: u32,
    pub name: &'static str,
    /// The result type.
    pub result: u32,
}

/// The function, if it is on the list; its result type is `result`.
pub fn foldable_function(func: u32) -> Option<Foldable> {
    let row =
        FOLDABLE_FUNCTIONS.binary_search_by_key(&func, |row| row.0).ok().map(|i| FOLDABLE_FUNCTIONS[i])?;
    Some(Foldable { oid: row.0, name: row.1, result: row.2 })
}

/// The operator, if it is on the list. `func` must be its implementing function, as the tree says.
pub fn foldable_operator(op: u32, func: u32) -> Option<Foldable> {
    let row =
        FOLDABLE_OPERATORS.binary_search_by_key(&op, |row| row.0).ok().map(|i| FOLDABLE_OPERATORS[i])?;
    (row.2 == func).then_some(Foldable { oid: row.0, name: row.1, result: row.3 })
}

/// OID, name, result type.
#[rustfmt::skip]
const FOLDABLE_FUNCTIONS: &[(u32, &str, u32)] = &[
    (235, "float8", FLOAT8), // (smallint) i
    (236, "float4", FLOAT4), // (smallint) i
    (237, "int2", INT2), // (double precision) i
    (238, "int2", INT2), // (real) i
    (311, "float8", FLOAT8), // (real) i
    (312, "float4", FLOAT4), // (double precision) i
    (313, "int4", INT4), // (smallint) i
    (314, "int2", INT2), // (integer) i
    (316, "float8", FLOAT8), // (integer) i
    (317, "int4", INT4), // (double precision) i
    (318, "float4", FLOAT4), // (integer) i
    (319, "int4", INT4), // (real) i
    (480, "int4", INT4), // (bigint) i
    (481, "int8", INT8), // (integer) i
    (482, "float8", FLOAT8), // (bigint) i
    (483, "int8", INT8), // (double precision) i
    (652, "float4", FLOAT4), // (bigint) i
    (653, "int8", INT8), // (real) i
    (669, "varchar", VARCHAR), // (character varying, integer, boolean) i
    (714, "int2", INT2), // (bigint) i
    (754, "int8", INT8), // (smallint) i
    (1026, "timezone", TIMESTAMP), // (interval, timestamp with time zone) i
    (1158, "to_timestamp", TIMESTAMPTZ), // (double precision) i
    (1159, "timezone", TIMESTAMP), // (text, timestamp with time zone) i
    (1174, "timestamptz", TIMESTAMPTZ), // (date) s
    (1175, "justify_hours", INTERVAL), // (interval) i
    (1178, "date", DATE), // (timestamp with time zone) s
    (1200, "interval", INTERVAL), // (interval, integer) i
    (1217, "date_trunc", TIMESTAMPTZ), // (text, timestamp with time zone) s
    (1218, "date_trunc", INTERVAL), // (text, interval) i
    (1284, "date_trunc", TIMESTAMPTZ), // (text, timestamp with time zone, text) s
    (1295, "justify_days", INTERVAL), // (interval) i
    (1299, "now", TIMESTAMPTZ), // () s
    (1317, "length", INT4), // (text) i
    (1342, "round", FLOAT8), // (double precision) i
    (1394, "abs", FLOAT4), // (real) i
    (1395, "abs", FLOAT8), // (double precision) i
    (1396, "abs", INT8), // (bigint) i
    (1397, "abs", INT4), // (integer) i
    (1398, "abs", INT2), // (smallint) i
    (1703, "numeric", NUMERIC), // (numeric, integer) i
    (1705, "abs", NUMERIC), // (numeric) i
    (1707, "round", NUMERIC), // (numeric, integer) i
    (1708, "round", NUMERIC), // (numeric) i
    (1740, "numeric", NUMERIC), // (integer) i
    (1742, "numeric", NUMERIC), // (real) i
    (1743, "numeric", NUMERIC), // (double precision) i
    (1744, "int4", INT4), // (numeric) i
    (1745, "float4", FLOAT4), // (numeric) i
    (1746, "float8", FLOAT8), // (numeric) i
    (1778, "to_timestamp", TIMESTAMPTZ), // (text, text) s
    (1779, "int8", INT8), // (numeric) i
    (1781, "numeric", NUMERIC), // (bigint) i
    (1782, "numeric", NUMERIC), // (smallint) i
    (1783, "int2", INT2), // (numeric) i
    (1961, "timestamp", TIMESTAMP), // (timestamp without time zone, integer) i
    (1967, "timestamptz", TIMESTAMPTZ), // (timestamp with time zone, integer) i
    (2020, "date_trunc", TIMESTAMP), // (text, timestamp without time zone) i
    (2024, "timestamp", TIMESTAMP), // (date) i
    (2027, "timestamp", TIMESTAMP), // (timestamp with time zone) s
    (2028, "timestamptz", TIMESTAMPTZ), // (timestamp without time zone) s
    (2029, "date", DATE), // (timestamp without time zone) i
    (2069, "timezone", TIMESTAMPTZ), // (text, timestamp without time zone) i
    (2070, "timezone", TIMESTAMPTZ), // (interval, timestamp without time zone) i
    (2558, "int4", INT4), // (boolean) i
    (2647, "transaction_timestamp", TIMESTAMPTZ), // () s
    (2711, "justify_interval", INTERVAL), // (interval) i
    (3461, "make_timestamp", TIMESTAMP), // (integer, integer, integer, integer, integer, double precision) i
    (3464, "make_interval", INTERVAL), // (integer, integer, integer, integer, integer, integer, double precision) i
    (3846, "make_date", DATE), // (integer, integer, integer) i
    (6177, "date_bin", TIMESTAMP), // (interval, timestamp without time zone, timestamp without time zone) i
    (6178, "date_bin", TIMESTAMPTZ), // (interval, timestamp with time zone, timestamp with time zone) i
];

/// OID, name, implementing function, result type.
#[rustfmt::skip]
const FOLDABLE_OPERATORS: &[(u32, &str, u32, u32)] = &[
    (439, "%", 945, INT8),
    (484, "-", 462, INT8),
    (514, "*", 141, INT4),
    (526, "*", 152, INT2),
    (527, "/", 153, INT2),
    (528, "/", 154, INT4),
    (529, "%", 155, INT2),
    (530, "%", 156, INT4),
    (544, "*", 170, INT4),
    (545, "*", 171, INT4),
    (546, "/", 172, INT4),
    (547, "/", 173, INT4),
    (550, "+", 176, INT2),
    (551, "+", 177, INT4),
    (552, "+", 178, INT4),
    (553, "+", 179, INT4),
    (554, "-", 180, INT2),
    (555, "-", 181, INT4),
    (556, "-", 182, INT4),
    (557, "-", 183, INT4),
    (558, "-", 212, INT4),
    (559, "-", 213, INT2),
    (584, "-", 206, FLOAT4),
    (585, "-", 220, FLOAT8),
    (586, "+", 204, FLOAT4),
    (587, "-", 205, FLOAT4),
    (588, "/", 203, FLOAT4),
    (589, "*", 202, FLOAT4),
    (591, "+", 218, FLOAT8),
    (592, "-", 219, FLOAT8),
    (593, "/", 217, FLOAT8),
    (594, "*", 216, FLOAT8),
    (654, "||", 1258, TEXT),
    (684, "+", 463, INT8),
    (685, "-", 464, INT8),
    (686, "*", 465, INT8),
    (687, "/", 466, INT8),
    (688, "+", 1274, INT8),
    (689, "-", 1275, INT8),
    (690, "*", 1276, INT8),
    (691, "/", 1277, INT8),
    (692, "+", 1278, INT8),
    (693, "-", 1279, INT8),
    (694, "*", 1280, INT8),
    (695, "/", 1281, INT8),
    (818, "+", 837, INT8),
    (819, "-", 838, INT8),
    (820, "*", 839, INT8),
    (821, "/", 840, INT8),
    (822, "+", 841, INT8),
    (823, "-", 942, INT8),
    (824, "*", 943, INT8),
    (825, "/", 948, INT8),
    (1076, "+", 2071, TIMESTAMP),
    (1077, "-", 2072, TIMESTAMP),
    (1099, "-", 1140, INT4),
    (1100, "+", 1141, DATE),
    (1101, "-", 1142, DATE),
    (1116, "+", 281, FLOAT8),
    (1117, "-", 282, FLOAT8),
    (1118, "/", 280, FLOAT8),
    (1119, "*", 279, FLOAT8),
    (1126, "+", 285, FLOAT8),
    (1127, "-", 286, FLOAT8),
    (1128, "/", 284, FLOAT8),
    (1129, "*", 283, FLOAT8),
    (1327, "+", 1189, TIMESTAMPTZ),
    (1328, "-", 1188, INTERVAL),
    (1329, "-", 1190, TIMESTAMPTZ),
    (1336, "-", 1168, INTERVAL),
    (1337, "+", 1169, INTERVAL),
    (1338, "-", 1170, INTERVAL),
    (1583, "*", 1618, INTERVAL),
    (1584, "*", 1624, INTERVAL),
    (1585, "/", 1326, INTERVAL),
    (1751, "-", 1771, NUMERIC),
    (1758, "+", 1724, NUMERIC),
    (1759, "-", 1725, NUMERIC),
    (1760, "*", 1726, NUMERIC),
    (1761, "/", 1727, NUMERIC),
    (1762, "%", 1729, NUMERIC),
    (1916, "+", 1910, INT8),
    (1917, "+", 1911, INT2),
    (1918, "+", 1912, INT4),
    (1919, "+", 1913, FLOAT4),
    (1920, "+", 1914, FLOAT8),
    (1921, "+", 1915, NUMERIC),
    (2066, "+", 2032, TIMESTAMP),
    (2067, "-", 2031, INTERVAL),
    (2068, "-", 2033, TIMESTAMP),
    (2551, "+", 2546, TIMESTAMP),
    (2553, "+", 2548, TIMESTAMP),
    (2554, "+", 2549, TIMESTAMPTZ),
    (2555, "+", 2550, DATE),
];
