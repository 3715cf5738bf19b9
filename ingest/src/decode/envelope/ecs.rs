//! Elastic Common Schema, as Beats and Logstash write it: the keys that have columns of their own in nearly every table
//! of logs are lifted out of their objects. Knows three keys; everything else stays where it is.

use std::borrow::Cow;

use super::super::{Field, Record, Value, json};

/// Object, members in order of preference, and the dotted name that the member gets on the first level.
const LIFTED: [(&str, &[&str], &str); 3] = [
    ("log", &["level"], "log.level"),
    ("host", &["name", "hostname"], "host.name"),
    ("service", &["name"], "service.name"),
];

/// Lifts the members of [`LIFTED`] that are strings or numbers; an object that is empty then is left out.
pub fn lift(record: &mut Record<'_>) {
    for (object, members, dotted) in LIFTED {
        if record.iter().any(|f| f.name == dotted) {
            continue;
        }
        let Some(at) = record.iter().rposition(|f| f.name == object && json::is_object(&f.value)) else {
            continue;
        };
        // Decoding gives borrowed values only, so the pieces may outlive the field they are cut from.
        let Value::Json(Cow::Borrowed(raw)) = record[at].value else { continue };
        let Ok(inner) = json::decode(raw) else { continue };
        let Some((name, found)) = members.iter().find_map(|m| {
            let f = inner.iter().rfind(|f| f.name == *m)?;
            (!matches!(f.value, Value::Null) && !json::is_object(&f.value) && !json::is_array(&f.value))
                .then(|| (*m, f.value.clone()))
        }) else {
            continue;
        };
        let mut rest = Vec::with_capacity(raw.len());
        for f in inner.iter().filter(|f| f.name != name) {
            rest.push(if rest.is_empty() { b'{' } else { b',' });
            json::write_string(&mut rest, &f.name);
            rest.push(b':');
            json::write_value(&mut rest, &f.value);
        }
        if rest.is_empty() {
            record.remove(at);
        } else {
            rest.push(b'}');
            // Made of whole strings, so it is UTF-8 and nothing is replaced.
            record[at].value = Value::Json(Cow::Owned(String::from_utf8_lossy(&rest).into_owned()));
        }
        record.push(Field { name: Cow::Borrowed(dotted), value: found });
    }
}

/// As [`lift`]; Logstash's `@version` says only that Logstash wrote the value, and is left out.
pub fn lift_logstash(record: &mut Record<'_>) {
    record.retain(|f| f.name != "@version");
    lift(record);
}
