//! Which source goes to which table, and how its records are read: the settings of one route, as `watershed.toml` has
//! them. Knows no brokers and no connection.

use serde::Deserialize;

use crate::decode::envelope::Envelope;
use crate::map::Mapping;

/// One topic, its table, and how its values become rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRoute {
    /// The topic's name.
    pub topic: String,
    /// A tiered table, as SQL names it.
    pub table: String,
    /// What a value is wrapped in.
    #[serde(default)]
    pub envelope: Envelope,
    /// Which keys go to which columns, where names alone do not say it.
    #[serde(default)]
    pub mapping: Mapping,
    /// The key under which a record's headers are kept, like any key that no column has; None: they are left out.
    #[serde(default)]
    pub headers: Option<String>,
}

/// One table, and how records that come by HTTP or from files become its rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRoute {
    /// A tiered table, as SQL names it.
    pub table: String,
    /// What a JSON record is wrapped in.
    #[serde(default = "plain")]
    pub envelope: Envelope,
    /// Which keys go to which columns, where names alone do not say it.
    #[serde(default)]
    pub mapping: Mapping,
}

fn plain() -> Envelope {
    Envelope::Plain
}

/// The routes that hold where none are configured.
pub fn defaults() -> Vec<TopicRoute> {
    let route = |topic: &str, table: &str| TopicRoute {
        topic: topic.to_owned(),
        table: table.to_owned(),
        envelope: Envelope::Auto,
        mapping: Mapping::default(),
        headers: None,
    };
    vec![route("logs.raw", "public.logs"), route("events.raw", "public.events")]
}

/// The route of a table among those configured: by the name as written, or as `public.` or the bare name has it.
pub fn of_table<'a>(routes: &'a [TableRoute], schema: &str, name: &str) -> Option<&'a TableRoute> {
    let full = format!("{schema}.{name}");
    routes.iter().find(|r| r.table == full || (schema == "public" && r.table == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_tables_are_found_by_either_name() {
        let route = |table: &str| TableRoute {
            table: table.into(),
            envelope: Envelope::Plain,
            mapping: Mapping::default(),
        };
        let routes = [route("logs"), route("app.orders")];
        assert_eq!(of_table(&routes, "public", "logs").map(|r| r.table.as_str()), Some("logs"));
        assert_eq!(of_table(&routes, "app", "orders").map(|r| r.table.as_str()), Some("app.orders"));
        assert!(of_table(&routes, "app", "logs").is_none());
        assert!(of_table(&routes, "public", "orders").is_none());
    }

    #[test]
    fn a_route_needs_only_its_two_names() {
        let route: TopicRoute = serde_json::from_str(r#"{"topic":"t","table":"logs"}"#).unwrap();
        assert_eq!((route.envelope, route.mapping), (Envelope::Auto, Mapping::default()));
        assert!(serde_json::from_str::<TopicRoute>(r#"{"topic":"t","table":"logs","tabel":1}"#).is_err());
        assert_eq!(
            defaults().iter().map(|r| r.topic.as_str()).collect::<Vec<_>>(),
            ["logs.raw", "events.raw"]
        );
    }
}
