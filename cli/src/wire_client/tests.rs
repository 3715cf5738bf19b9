use super::*;

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut out = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(text) => {
                out.extend_from_slice(&(text.len() as i32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
    out
}

#[test]
fn rows_decode_with_nulls_and_cut_frames_are_refused() {
    let whole = row(&[Some("a"), None, Some("")]);
    let answer = Answer { rows: vec![whole.clone()], ..Answer::default() };
    assert_eq!(answer.text().unwrap(), vec![vec![Some("a".into()), None, Some(String::new())]]);
    for cut in 0..whole.len() {
        let answer = Answer { rows: vec![whole[..cut].to_vec()], ..Answer::default() };
        assert!(answer.text().is_err(), "cut at {cut}");
    }
}

#[test]
fn column_names_are_read_from_the_row_description() {
    let mut body = 2u16.to_be_bytes().to_vec();
    for name in ["level", "count"] {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&[0; 18]);
    }
    let answer = Answer { columns: body, ..Answer::default() };
    assert_eq!(answer.column_names(), ["level", "count"]);
}

#[test]
fn error_fields_are_found_in_any_order() {
    let error = error_response(b"SERROR\0Msyntax error\0C42601\0Hlook again\0\0");
    assert_eq!(error.sqlstate, "42601");
    assert_eq!(error.to_string(), "syntax error (SQLSTATE 42601); look again");
}
