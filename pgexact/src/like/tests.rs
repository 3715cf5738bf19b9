use arrow::array::{LargeStringArray, StringArray, StringViewArray};

use super::*;
use crate::testpg::{Random, cluster, take};

#[test]
fn like_equals_postgres() {
    let mut random = Random(41);
    let letters = ["a", "b", "ä", "語", "\u{1F600}", "%", "_", "\\", "%", "_", "\\", "a"];
    let text = |plain: bool, random: &mut Random| -> String {
        (0..random.below(7)).map(|_| *random.pick(if plain { &letters[..8] } else { &letters })).collect()
    };
    let mut rows: Vec<(String, String)> =
        (0..60_000).map(|_| (text(true, &mut random), text(false, &mut random))).collect();
    for pattern in [
        "", "%", "%%", "%a", "a%", "%a%", "%%a%%", "a%%", "\\%", "%\\%%", "a\\", "%\\", "\\\\%", "%語%",
        "_%", "%_",
    ] {
        for subject in ["", "a", "%", "ba", "ab", "bab", "\\", "a語b", "語"] {
            rows.push((subject.into(), pattern.into()));
        }
    }
    let escape = |s: &str| s.replace('\\', "\\\\");
    let file = cluster().file(
        rows.iter().map(|(s, p)| format!("{}\t{}\n", escape(s), escape(p))).collect::<String>().as_bytes(),
    );
    let prelude = format!(
        "CREATE OR REPLACE FUNCTION try_like(s text, p text) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN RETURN s LIKE p; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM; END $$;
         CREATE TEMP TABLE t (n serial, s text, p text);\n\\copy t (s, p) FROM '{}'",
        file.display()
    );
    let theirs = cluster().copy_text(&[], &prelude, "SELECT try_like(s, p) FROM t ORDER BY n");
    take(&file);
    let show = |r: Result<bool, PgError>| {
        r.map_or_else(|e| format!("{} {}", e.sqlstate, e.message), |b| b.to_string())
    };
    for ((subject, pattern), theirs) in rows.iter().zip(theirs) {
        let theirs = theirs[0].clone().unwrap();
        assert_eq!(show(Pattern::new(pattern).matches(subject)), theirs, "{subject:?} LIKE {pattern:?}");
        let one = |s: &str| StringArray::from(vec![s]);
        let rows = like_rows(&one(subject), &one(pattern), false).map(|b| b.value(0));
        assert_eq!(show(rows), theirs, "{subject:?} LIKE {pattern:?} by row");
    }
}

#[test]
fn arrays_of_every_layout() {
    let values = vec![Some("abc"), None, Some("xbc"), Some("")];
    let pattern = Pattern::new("a%");
    let arrays: [&dyn Array; 3] = [
        &StringArray::from(values.clone()),
        &LargeStringArray::from(values.clone()),
        &StringViewArray::from(values.clone()),
    ];
    for array in arrays {
        let yes = like(array, &pattern, false).unwrap();
        assert_eq!(yes.iter().collect::<Vec<_>>(), [Some(true), None, Some(false), Some(false)]);
        let no = like(array, &pattern, true).unwrap();
        assert_eq!(no.iter().collect::<Vec<_>>(), [Some(false), None, Some(true), Some(true)]);
    }
    assert!(like(&arrow::array::Int32Array::from(vec![1]), &pattern, false).is_err());
    let patterns = StringArray::from(vec![Some("%c"), Some("%"), None, Some("\\")]);
    let rows = like_rows(&StringViewArray::from(values), &patterns, false).unwrap();
    // A trailing escape is no error where matching does not reach it.
    assert_eq!(rows.iter().collect::<Vec<_>>(), [Some(true), None, None, Some(false)]);
}

/// ILIKE against PostgreSQL itself, under letters that are ASCII's alone and under others.
#[test]
fn insensitive_patterns_are_postgres() {
    use crate::testpg::{Random, cluster, escaped};
    let mut random = Random(0x5eed_0080);
    let pieces = ["a", "B", "%", "_", "é", "É", "\\%", "\\", "k", "K", "1", " ", "ß", "i"];
    let texts = ["", "a", "AB", "aé", "É", "%", "a%b", "k", "K", "\u{212a}", "\u{130}", "i", "ß", "ẞ", "日本 a", "Kk1 ab", "\\"];
    let patterns: Vec<String> = (0..300).map(|_| (0..random.below(5)).map(|_| *random.pick(&pieces)).collect()).collect();
    let list = |items: &mut dyn Iterator<Item = &str>| {
        items.enumerate().map(|(n, t)| format!("({n}, U&'{}')", escaped(t))).collect::<Vec<_>>().join(", ")
    };
    let prelude = format!(
        "CREATE TEMP TABLE p AS SELECT * FROM (VALUES {}) v(n, p); CREATE TEMP TABLE t AS SELECT * FROM (VALUES {}) v(m, t);
         CREATE FUNCTION pg_temp.attempt(a text, b text, c bool) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN RETURN CASE WHEN c THEN a COLLATE \"C\" ILIKE b ELSE a ILIKE b END; EXCEPTION WHEN OTHERS THEN RETURN SQLERRM; END $$;",
        list(&mut patterns.iter().map(String::as_str)),
        list(&mut texts.iter().copied())
    );
    let mut compared = 0;
    for usual in [true, false] {
        let query = format!("SELECT pg_temp.attempt(t, p, {}) FROM p, t ORDER BY n, m", !usual);
        let rows = cluster().copy_text(&[], &prelude, &query);
        let pairs = patterns.iter().flat_map(|p| texts.iter().map(move |t| (p, t)));
        for ((pattern, text), row) in pairs.zip(rows) {
            let array = arrow::array::StringViewArray::from(vec![*text]);
            let got = match ilike(&array, pattern, false, usual) {
                Ok(answer) => answer.value(0).to_string(),
                Err(e) if e.is_not_exact() => continue,
                Err(e) => e.message,
            };
            assert_eq!(Some(got), row[0], "{text:?} ILIKE {pattern:?} ({usual})");
            compared += 1;
        }
    }
    assert!(compared > 5000, "{compared}");
}
