//! Which relations of the database concern the gateway: tiered tables, virtual tables, and the views over
//! either. Read over the control connection, looked at again every few seconds and after DDL passed through.
//! A stale view costs speed only: what a statement means is asked of PostgreSQL each time.
//! ✗ lake files, statements.

use crate::cost::Constants;
use crate::analyze::inline::{self, SqlFunction, Volatility};
use crate::analyze;
use crate::classify::{NameKind, Names};
use crate::compare::log::Comparisons;
use crate::virtual_tables;
use lake::spec::{TableSpec, load_specs};
use parking_lot::RwLock;
use sqlx::postgres::PgConnectOptions;
use sqlx::postgres::types::Oid;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a change may go unnoticed that did not pass through the gateway.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// One consistent look.
#[derive(Debug)]
pub struct Snapshot {
    /// Changes whenever anything else here does.
    pub generation: u64,
    pub names: Names,
    pub analyze: analyze::Catalog,
    /// Some tiered table has dropped rows from PostgreSQL.
    pub has_floor: bool,
    /// What estimates mean in time on this machine.
    pub constants: Constants,
    /// Fingerprints of statements that are PostgreSQL's, since an answer of the lake's differed.
    pub quarantined: HashSet<String>,
}

impl Snapshot {
    /// The tiered table with this OID.
    pub fn tiered(&self, relid: u32) -> Option<&Arc<TableSpec>> {
        self.analyze.tiered.get(&relid)
    }
}

/// See the module.
pub struct Catalog {
    database: String,
    options: PgConnectOptions,
    current: RwLock<Arc<Snapshot>>,
    suspect: Notify,
    /// One look at a time, over one connection.
    conn: tokio::sync::Mutex<Option<PgConnection>>,
}

/// Views that depend, directly or through other views, on a tiered table or on a virtual table's function.
const VIEWS: &str = "\
WITH RECURSIVE dependent(oid) AS (
    SELECT r.ev_class FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
      AND (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN (SELECT relid FROM watershed_control.tables)
        OR d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = ANY ($1))
  UNION
    SELECT r.ev_class FROM dependent p JOIN pg_catalog.pg_depend d
        ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = p.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
)
SELECT DISTINCT c.relname::text FROM dependent JOIN pg_catalog.pg_class c ON c.oid = dependent.oid WHERE c.relkind = 'v'";

/// Users' functions in SQL, with the trees of those that may be put in place ([`SqlFunction::new`]).
const FUNCTIONS: &str = "\
SELECT p.oid, p.proname::text, p.xmin::text, ARRAY(SELECT pg_catalog.unnest(p.proargtypes)), p.prorettype, p.proisstrict, p.provolatile::text,
    CASE WHEN p.prokind = 'f' AND NOT p.prosecdef AND NOT p.proretset AND p.proconfig IS NULL AND p.provariadic = 0 AND p.proargmodes IS NULL AND p.prosupport = 0
      AND octet_length(p.prosqlbody::text) <= $2 THEN p.prosqlbody::text END
FROM pg_catalog.pg_proc p
WHERE p.oid >= $1 AND p.prolang = (SELECT oid FROM pg_catalog.pg_language WHERE lanname = 'sql')
  AND p.pronamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('watershed', 'watershed_control'))
ORDER BY p.oid LIMIT 1000";

impl Catalog {
    /// Connects, looks once, and returns the catalog of that database.
    pub async fn open(control_url: &str) -> Result<Self, lake::Error> {
        let options = PgConnectOptions::from_str(control_url)?
            .application_name("watershed gateway")
            .disable_statement_logging();
        let mut conn = options.connect().await?;
        let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut conn).await?;
        let first = look(&mut conn, 1).await?;
        Ok(Catalog { database, options, current: RwLock::new(Arc::new(first)), suspect: Notify::new(), conn: tokio::sync::Mutex::new(Some(conn)) })
    }

    /// The database whose tables these are.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The latest look.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// Something may have changed: look soon.
    pub fn suspect(&self) {
        self.suspect.notify_one();
    }

    /// Looks again until `shutdown`.
    pub async fn follow(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.suspect.notified() => {
                    // One look for all that is told within a moment.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                () = shutdown.cancelled() => return,
            }
            self.look_now().await;
        }
    }

    /// Writes down which statements are PostgreSQL's from now on, as often as there is one.
    pub async fn follow_comparisons(&self, comparisons: &Comparisons, shutdown: CancellationToken) {
        loop {
            let fresh = comparisons.fresh();
            for (fingerprint, statement) in &fresh {
                if let Err(e) = self.quarantine(fingerprint, statement).await {
                    tracing::warn!(error = %e, %fingerprint, "a quarantined statement could not be written down; it is kept here");
                }
            }
            if !fresh.is_empty() {
                self.look_now().await;
                let known = self.current();
                for (fingerprint, _) in fresh.iter().filter(|(f, _)| known.quarantined.contains(&**f)) {
                    comparisons.written(fingerprint);
                }
            }
            tokio::select! {
                () = comparisons.wanted.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY * 10), if !comparisons.fresh().is_empty() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn quarantine(&self, fingerprint: &str, statement: &str) -> Result<(), lake::Error> {
        let mut conn = self.options.connect().await?;
        sqlx::query("INSERT INTO watershed_control.quarantined (fingerprint, statement) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(fingerprint)
            .bind(statement)
            .execute(&mut conn)
            .await?;
        Ok(conn.close().await?)
    }

    /// Looks once. On failure the last look stays, and is retried at the next.
    pub async fn look_now(&self) {
        let mut conn = self.conn.lock().await;
        let generation = self.current().generation;
        match self.look(&mut conn, generation + 1).await {
            Ok(new) if self.current().differs(&new) => *self.current.write() = Arc::new(new),
            Ok(_) => {}
            Err(e) => {
                // A connection that was there has broken: said once, until there is one again.
                if conn.take().is_some() {
                    tracing::warn!(error = %e, "the catalog could not be read; using the last look");
                }
            }
        }
    }

    async fn look(&self, conn: &mut Option<PgConnection>, generation: u64) -> Result<Snapshot, lake::Error> {
        let conn = match conn {
            Some(c) => c,
            None => conn.insert(self.options.connect().await?),
        };
        look(conn, generation).await
    }
}

impl Snapshot {
    fn differs(&self, other: &Snapshot) -> bool {
        self.names != other.names
            || self.constants != other.constants
            || self.quarantined != other.quarantined
            || self.analyze.tiered != other.analyze.tiered
            || self.analyze.deterministic != other.analyze.deterministic
            || self.analyze.functions != other.analyze.functions
            || self.analyze.virtual_functions.len() != other.analyze.virtual_functions.len()
    }
}

async fn look(conn: &mut PgConnection, generation: u64) -> Result<Snapshot, lake::Error> {
    let specs = load_specs(conn).await?;
    let mut names = Names::new();
    let mut tiered = HashMap::new();
    let mut has_floor = false;
    for spec in specs {
        names.insert(spec.name.clone(), NameKind::Tiered);
        has_floor |= spec.floor_us.max(spec.warned_us).is_some();
        tiered.insert(spec.relid, Arc::new(spec));
    }
    let mut virtual_functions = HashMap::new();
    for d in virtual_tables::ALL {
        let oid: Option<Oid> =
            sqlx::query_scalar("SELECT to_regprocedure($1)::oid").bind(format!("watershed_control.{}()", d.function)).fetch_one(&mut *conn).await?;
        if let Some(oid) = oid {
            names.insert(d.name.to_string(), NameKind::View);
            virtual_functions.insert(oid.0, Arc::new(analyze::VirtualTable::from(d)));
        }
    }
    let functions: Vec<Oid> =
        virtual_functions.keys().map(|o| Oid(*o)).collect();
    for row in sqlx::query(VIEWS).bind(functions).fetch_all(&mut *conn).await? {
        names.insert(row.try_get(0)?, NameKind::View);
    }
    let (default_collation_is_c, provider, ctype, version): (bool, String, String, i32) = sqlx::query_as(
        "SELECT datlocprovider = 'c' AND datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8'), datlocprovider::text, CASE datlocprovider WHEN 'i' THEN coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', '') ELSE datctype::text END, current_setting('server_version_num')::int4 FROM pg_catalog.pg_database d WHERE datname = current_database()",
    )
    .fetch_one(&mut *conn)
    .await?;
    let measured: Option<(f64, f64, f64, f64, f64)> = sqlx::query_as(
        "SELECT postgres_base_us, postgres_unit_us, lake_base_us, lake_file_us, lake_value_us FROM watershed_control.calibration",
    )
    .fetch_optional(&mut *conn)
    .await?;
    let constants = measured.map_or_else(Constants::default, |m| Constants {
        postgres_base_us: m.0,
        postgres_unit_us: m.1,
        lake_base_us: m.2,
        lake_file_us: m.3,
        lake_value_us: m.4,
    });
    let quarantined: Vec<String> =
        sqlx::query_scalar("SELECT fingerprint FROM watershed_control.quarantined").fetch_all(&mut *conn).await?;
    let quarantined = quarantined.into_iter().collect();
    let default_letters = analyze::Letters::of(&provider, &ctype);
    let deterministic: Vec<Oid> =
        sqlx::query_scalar("SELECT oid FROM pg_catalog.pg_collation WHERE collisdeterministic").fetch_all(&mut *conn).await?;
    let deterministic = deterministic.into_iter().map(|o| o.0).collect();
    let mut functions = HashMap::new();
    for row in sqlx::query(FUNCTIONS).bind(Oid(analyze::dimension::FIRST_USER_OID)).bind(inline::MAX_BODY).fetch_all(&mut *conn).await? {
        let (oid, result): (Oid, Oid) = (row.try_get(0)?, row.try_get(4)?);
        let args: Vec<Oid> = row.try_get(3)?;
        let volatility: String = row.try_get(6)?;
        let tree: Option<String> = row.try_get(7)?;
        let args = args.into_iter().map(|o| o.0).collect();
        let volatility = Volatility::of(&volatility);
        let function = SqlFunction::new(row.try_get(1)?, row.try_get(2)?, args, result.0, row.try_get(5)?, volatility, tree.as_deref());
        functions.insert(oid.0, function);
    }
    let called: Vec<Oid> = functions.values().flat_map(SqlFunction::calls).map(|func| Oid(*func)).collect();
    let rows: Vec<(Oid, String, bool)> = match called.is_empty() {
        true => Vec::new(),
        false => sqlx::query_as("SELECT oid, provolatile::text, proisstrict FROM pg_catalog.pg_proc WHERE oid = ANY ($1)").bind(called).fetch_all(&mut *conn).await?,
    };
    // Those that call nothing too: they may be STRICT, or cast.
    let known = rows.into_iter().map(|(oid, volatile, strict)| (oid.0, (Volatility::of(&volatile), strict))).collect();
    functions.values_mut().for_each(|function| function.judge(&known));
    Ok(Snapshot {
        generation,
        names,
        analyze: analyze::Catalog { tiered, virtual_functions, default_collation_is_c, default_letters, deterministic, functions, major: version.unsigned_abs() / 10_000 },
        has_floor,
        constants,
        quarantined,
    })
}
