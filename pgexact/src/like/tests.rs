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
