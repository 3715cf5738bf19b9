//! Which table an index or data stream means: what is configured, then what shippers of logs are used to write to, then
//! the table of that name. Pure.

/// Names of shippers' own indices, and the standard table that they mean.
const USUAL: [(&str, &str); 8] = [
    ("logs-*", "public.logs"),
    ("logstash-*", "public.logs"),
    ("ecs-logstash*", "public.logs"),
    ("filebeat-*", "public.logs"),
    ("journalbeat-*", "public.logs"),
    ("fluent-bit*", "public.logs"),
    ("vector-*", "public.logs"),
    ("events-*", "public.events"),
];

/// Patterns of index names, each with its table; the longest that fits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indices(Vec<(String, String)>);

impl Indices {
    /// Pairs of a pattern, in which `*` stands for any characters, and a table.
    pub fn new(patterns: impl IntoIterator<Item = (String, String)>) -> Indices {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        Indices(patterns)
    }

    /// The table that an index means, as SQL has its name; the index's own name if nothing is said about it.
    pub fn table<'a>(&'a self, index: &'a str) -> &'a str {
        let configured = self.0.iter().map(|(p, t)| (p.as_str(), t.as_str()));
        let mut all = configured.chain(USUAL);
        all.find(|(pattern, _)| fits(pattern, index)).map_or(index, |(_, table)| table)
    }
}

/// True if the name is of this pattern.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    // There is always a first part.
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("*a", "bca", true),
            ("*a", "bcab", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn configured_names_win() {
        let pair = |pattern: &str, table: &str| (pattern.to_owned(), table.to_owned());
        let indices = Indices::new([pair("logs-a*", "app.other"), pair("logs-app-*", "app.lines")]);
        assert_eq!(indices.table("logs-app-2026.11.21"), "app.lines");
        assert_eq!(indices.table("logs-nginx-default"), "public.logs");
        assert_eq!(indices.table("filebeat-8.17.0"), "public.logs");
        assert_eq!(indices.table("logs"), "logs");
        assert_eq!(indices.table("orders"), "orders");
    }
}
