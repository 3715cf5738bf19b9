use super::*;

#[test]
fn numerics_by_typmod() {
    let tm = |p: i32, s: i32| ((p << 16) | (s & 0x7ff)) + 4;
    assert_eq!(ColType::from_pg(1700, -1), Some(ColType::NumericText));
    assert_eq!(ColType::from_pg(1700, tm(10, 2)), Some(ColType::Numeric { precision: 10, scale: 2 }));
    assert_eq!(ColType::from_pg(1700, tm(38, 38)), Some(ColType::Numeric { precision: 38, scale: 38 }));
    assert_eq!(ColType::from_pg(1700, tm(39, 0)), Some(ColType::NumericText));
    assert_eq!(ColType::from_pg(1700, tm(5, -2)), Some(ColType::NumericText));
    assert_eq!(ColType::from_pg(1700, tm(2, 5)), Some(ColType::NumericText));
    assert_eq!(ColType::from_pg(1042, 14), None);
}

#[test]
fn every_type_names_its_oid() {
    for o in [16, 17, 20, 21, 23, 25, 700, 701, 1043, 1082, 1114, 1184, 1700, 2950, 3802, 5069] {
        assert_eq!(ColType::from_pg(o, -1).map(ColType::type_oid), Some(o));
    }
}

#[test]
fn days() {
    assert_eq!(day_text(0), "1970-01-01");
    assert_eq!(day_text(EPOCH_DAYS), "2000-01-01");
    assert_eq!(day_text(FIRST_DAY), "0001-01-01");
    assert_eq!(day_text(LAST_DAY), "9999-12-31");
    for d in [FIRST_DAY, -1, 0, 1, 19_999, LAST_DAY] {
        assert_eq!(parse_day(&day_text(d)), Some(d));
    }
    assert_eq!(partition_day(-1), -1);
    assert_eq!(partition_day(0), 0);
    assert_eq!(partition_day(DAY_MICROS - 1), 0);
    assert_eq!(partition_day(i64::MAX), LAST_DAY);
    assert_eq!(partition_day(i64::MIN), FIRST_DAY);
}
