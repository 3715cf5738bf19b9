//! Why PostgreSQL answered, as one of a few kinds: what a label may be, where the reasons themselves are any number of texts. The kinds
//! are read from the texts where they are made of fixed words, so nothing else has to carry them. Pure. ✗ deciding.

use crate::engine::EngineError;
use crate::query::record::Entry;

macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// As a label.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }
    };
}

kinds! {
    /// Why PostgreSQL answered a statement.
    Why {
        /// It was relayed without a look: a session or text that is not looked at.
        Unseen = "not_looked_at",
        /// No SELECT of rows: DML, DDL, COPY, several statements, a text that is not understood.
        OtherStatement = "other_statement",
        /// It reads no tiered table.
        OtherTables = "other_tables",
        /// EXPLAIN, whose plan is PostgreSQL's.
        Explain = "explain",
        /// A lookup, an ordered piece or a scan, which PostgreSQL does as well.
        Shape = "shape",
        /// The comment or watershed.route asked for it.
        Asked = "asked",
        /// Both may answer, and it was expected to be faster.
        Faster = "faster",
        /// Both answered, and were compared.
        Compared = "compared",
        /// A setting of the session under which the lake's answer would be another.
        Setting = "setting",
        /// The transaction: failed, serializable, or its snapshot has no lake version.
        Transaction = "transaction",
        /// Privileges or row security.
        Rights = "rights",
        /// An answer of the lake's differed once.
        Quarantined = "quarantined",
        /// Tables or meaning changed between Parse and Bind.
        Changed = "changed",
        /// The lake gave it back at Bind, before anything was asked of it.
        FellBack = "fell_back",
        /// Something of it is not proven to be the same in the lake.
        Unproven = "unproven",
    }
}

kinds! {
    /// Why the lake gave back a statement that it had begun.
    FellBack {
        /// Too many queries, or no memory or spill space.
        Resources = "resources",
        /// Values for which PostgreSQL raises an error, which PostgreSQL raises itself.
        PostgresError = "postgres_error",
        /// Storage, log or files failed.
        Lake = "lake",
        /// The engine failed.
        Engine = "engine",
        /// No version fits the snapshot.
        Snapshot = "snapshot",
        /// What only planning or reading the tail showed.
        Late = "late",
    }
}

/// How the reasons begin that are made of fixed words, and what they are.
const BEGINNINGS: &[(&str, Why)] = &[
    ("not a SELECT", Why::OtherStatement),
    ("several statements", Why::OtherStatement),
    ("SELECT INTO", Why::OtherStatement),
    ("the text ", Why::OtherStatement),
    ("returns no rows", Why::OtherStatement),
    ("COPY into a table", Why::OtherStatement),
    ("reads no tiered or virtual table", Why::OtherTables),
    ("EXPLAIN", Why::Explain),
    ("is a lookup by key", Why::Shape),
    ("is an ORDER BY with LIMIT", Why::Shape),
    ("is a scan without aggregate", Why::Shape),
    ("locks rows", Why::Shape),
    ("ORDER BY with LIMIT", Why::Shape),
    ("LIMIT and no aggregate", Why::Shape),
    ("a lookup without aggregate", Why::Shape),
    ("a scan without aggregate", Why::Shape),
    ("the comment asks", Why::Asked),
    ("watershed.route asks for PostgreSQL", Why::Asked),
    ("watershed.route no longer asks", Why::Asked),
    ("client_min_messages is", Why::Setting),
    ("the client prints trees", Why::Setting),
    ("client_encoding is", Why::Setting),
    ("DateStyle is", Why::Setting),
    ("IntervalStyle is", Why::Setting),
    ("extra_float_digits is", Why::Setting),
    ("bytea_output is", Why::Setting),
    ("transform_null_equals is", Why::Setting),
    ("the transaction is", Why::Transaction),
    ("no lake version fits", Why::Transaction),
    ("the user itself may not read", Why::Rights),
    ("row-level security", Why::Rights),
    ("PostgreSQL keeps the policies", Why::Rights),
    ("quarantined", Why::Quarantined),
    ("the table has changed", Why::Changed),
    ("the statement's meaning has changed", Why::Changed),
    ("means something else", Why::Changed),
];

impl Why {
    /// Of a statement that PostgreSQL answered.
    pub fn of(entry: &Entry) -> Why {
        let reasons: &str = &entry.reasons;
        if reasons.is_empty() {
            return Why::Unseen;
        }
        if reasons.ends_with("; compared") {
            return Why::Compared;
        }
        if reasons.contains("; fell back: ") {
            return Why::FellBack;
        }
        // An estimate is told only where both may answer.
        if reasons.contains("; estimated ") {
            return Why::Faster;
        }
        let found = BEGINNINGS.iter().find(|(begins, _)| reasons.starts_with(begins));
        found.map_or(Why::Unproven, |(_, why)| *why)
    }
}

impl FellBack {
    /// Of an error of the engine's.
    pub fn of(error: &EngineError) -> FellBack {
        match error {
            EngineError::Refused(_) => FellBack::Resources,
            EngineError::Postgres { .. } => FellBack::PostgresError,
            EngineError::Lake(_) => FellBack::Lake,
            EngineError::Internal(_) | EngineError::Cancelled => FellBack::Engine,
        }
    }
}
