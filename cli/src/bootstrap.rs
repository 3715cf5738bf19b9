//! From a running cluster to a database that serves: the database, its migrations, the roles' passwords, the
//! gateway's probe secret. Everything here can be run again. Keeps the passwords in `DIR/secrets`.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use lake::store::Settings;
use rand::Rng;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use url::Url;

use crate::config::Lake;
use crate::datadir::{DataDir, Pairs, new_password, replace_private};
use crate::exit::Failure;
use crate::postgres::ADMIN;
use crate::scram;

/// The product's database and the role that owns it.
pub const DATABASE: &str = "watershed";
pub const OWNER: &str = "watershed";

/// Roles with a password, and the key it is kept under in `DIR/secrets`: whole URLs for the services.
const LOGINS: [(&str, &str); 6] = [
    (ADMIN, "WATERSHED_ADMIN_URL"),
    ("watershed_ingest", "WATERSHED_INGEST_URL"),
    ("watershed_archiver", "WATERSHED_ARCHIVER_URL"),
    ("watershed_gateway", "WATERSHED_GATEWAY_URL"),
    ("watershed_analyst", "WATERSHED_ANALYST_PASSWORD"),
    (OWNER, "WATERSHED_OWNER_PASSWORD"),
];

/// What `DIR/secrets` holds.
#[derive(Clone, Debug)]
pub struct Secrets {
    passwords: Vec<(&'static str, String)>,
    pub probe_secret: String,
    /// Where the lake is, and how its store is reached: for the commands that read and write it beside `up`.
    pub lake: Url,
    store: Settings,
    /// Loopback port of the cluster; None before its first start.
    pub port: Option<u16>,
}

impl Secrets {
    /// Reads the secrets, makes up those that are missing, and makes them durable before anything uses them.
    ///
    /// Errors: if the rows that were shipped so far are in another lake.
    pub fn read_or_make(data: &DataDir, lake: &Lake) -> Result<Secrets> {
        let kept = Pairs::read(&data.secrets())?;
        if kept.is_none() && data.cluster().exists() {
            return Err(Failure::environment(
                format!("{} is missing, and with it the passwords of the cluster beside it", data.secrets().display()),
                "put it back from a backup; without one, set the password of watershed_admin in PostgreSQL's single-user mode and write it there as WATERSHED_ADMIN_URL=postgres://watershed_admin:PASSWORD@127.0.0.1:5432/watershed",
            )
            .into());
        }
        let kept = kept.unwrap_or_default();
        let url = match &lake.url {
            Some(url) => url.clone(),
            None => Url::parse(&lake_url(data)).context("make a URL of the lake's path")?,
        };
        same_lake(data, kept.get("WATERSHED_LAKE"), &url)?;
        let secrets = Secrets::from_pairs(&kept, url, lake.store.clone());
        secrets.write(data, None)?;
        Ok(secrets)
    }

    fn from_pairs(kept: &Pairs, lake: Url, store: Settings) -> Secrets {
        let mut port = None;
        let passwords = LOGINS
            .iter()
            .map(|(role, key)| {
                let password = kept.get(key).and_then(|value| {
                    if !key.ends_with("_URL") {
                        return Some(value.to_owned());
                    }
                    let (_, rest) = value.split_once("://")?;
                    let (_, rest) = rest.split_once(':')?;
                    let (password, address) = rest.rsplit_once('@')?;
                    let (address, _) = address.split_once('/')?;
                    port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).or(port);
                    Some(password.to_owned())
                });
                (*role, password.unwrap_or_else(new_password))
            })
            .collect();
        let probe_secret = kept.get("WATERSHED_PROBE_SECRET").map_or_else(new_password, str::to_owned);
        Secrets { passwords, probe_secret, lake, store, port: port.filter(|port| *port != 0) }
    }

    /// Writes `DIR/secrets`; `http` is the address of the HTTP door, once it has one.
    pub fn write(&self, data: &DataDir, http: Option<&str>) -> Result<()> {
        let mut pairs = Pairs::default();
        for (role, key) in LOGINS {
            let value =
                if key.ends_with("_URL") { self.url(role, DATABASE) } else { self.password(role).to_owned() };
            pairs.set(key, value);
        }
        pairs.set("WATERSHED_PROBE_SECRET", &self.probe_secret);
        pairs.set("WATERSHED_LAKE", self.lake.as_str());
        pairs.set("WATERSHED_LAKE_STORE", serde_json::to_string(&self.store)?);
        if let Some(http) = http {
            pairs.set("WATERSHED_HTTP", http);
        }
        replace_private(
            &data.secrets(),
            &pairs.print("passwords of watershed's own services; keep this file private"),
        )
    }

    pub fn password(&self, role: &str) -> &str {
        self.passwords.iter().find(|(name, _)| *name == role).map_or("", |(_, password)| password)
    }

    /// URL of the cluster itself as a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{}@127.0.0.1:{}/{database}",
            self.password(role),
            self.port.unwrap_or_default()
        )
    }
}

/// Refuses a lake that is not the one rows were shipped to: they would be missing from every answer. A directory that was moved with
/// its lake inside is the same.
fn same_lake(data: &DataDir, before: Option<&str>, now: &Url) -> Result<()> {
    let Some(before) = before else { return Ok(()) };
    let plain = |url: &str| url.trim_end_matches('/').to_owned();
    if plain(before) == plain(now.as_str()) || (before.starts_with("file:") && now.scheme() == "file") {
        return Ok(());
    }
    Err(Failure::usage(
        format!("the lake of {} is {before}, not {now}", data.root().display()),
        format!(
            "name that one; or, to move the lake, stop, copy everything below it to {now}, and take the line WATERSHED_LAKE out of {}",
            data.secrets().display()
        ),
    )
    .into())
}

/// `file://` URL of the lake below the data directory, ending in a slash, with what a URL cannot hold escaped.
pub fn lake_url(data: &DataDir) -> String {
    url::Url::from_directory_path(data.lake())
        .map_or_else(|()| format!("file://{}/", data.lake().display()), |url| url.to_string())
}

/// Connection options that take nothing from the environment's PG* but what is harmless.
pub fn options(url: &str) -> Result<PgConnectOptions> {
    Ok(PgConnectOptions::from_str(url)
        .context("read a PostgreSQL URL")?
        .ssl_mode(PgSslMode::Disable)
        .application_name("watershed")
        .disable_statement_logging())
}

/// Connects, giving a server that restarts a moment to come back.
pub async fn connect(url: &str) -> Result<PgConnection> {
    let options = options(url)?;
    let connect = || tokio::time::timeout(Duration::from_secs(30), PgConnection::connect_with(&options));
    let connected = match connect().await {
        Ok(Ok(connection)) => Ok(connection),
        _ => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            connect().await.context("no answer within 30 s")?
        }
    };
    let name = format!(
        "{}@{}:{}/{}",
        options.get_username(),
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or("")
    );
    connected.with_context(|| format!("connect to PostgreSQL as {name}"))
}

/// Brings the cluster to what this version of the program needs.
pub async fn bring_up(secrets: &Secrets) -> Result<()> {
    let mut maintenance = connect(&secrets.url(ADMIN, "postgres")).await?;
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut maintenance)
            .await?;
    if !exists {
        // template0 has no objects of anyone's; encoding and locale are the cluster's.
        let sql = format!("CREATE DATABASE {DATABASE} TEMPLATE template0");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut maintenance).await.context("create the database")?;
    }
    maintenance.close().await?;

    let mut admin = connect(&secrets.url(ADMIN, DATABASE)).await?;
    let mut migrator = sqlx::migrate!("../sql/migrations");
    // Its bookkeeping stays out of the schemas that people and the migrations themselves use.
    migrator.create_schema("watershed_migrations");
    migrator.dangerous_set_table_name("watershed_migrations.applied");
    accept_amended(&migrator, &mut admin).await?;
    migrator.run(&mut admin).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(version) => Failure::environment(
            format!("this data directory was used by a newer watershed (migration {version} is unknown to this one)"),
            "run that version again, or a newer one",
        )
        .into(),
        error => anyhow::Error::from(error).context("migrate the control schema"),
    })?;
    // The files beside the cluster are where passwords are looked up, so they are what counts.
    for (role, _) in LOGINS {
        let verifier = scram::verifier(secrets.password(role), rand::rng().random());
        // The text is letters, digits and + / = $ : only; role names are ours.
        let sql = format!("ALTER ROLE {role} PASSWORD '{verifier}'");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .with_context(|| format!("set the password of {role}"))?;
    }
    sqlx::query("SELECT watershed_control.set_probe_secret($1)")
        .bind(&secrets.probe_secret)
        .execute(&mut admin)
        .await
        .context("set the probe secret")?;
    admin.close().await?;
    Ok(())
}

/// Migrations that were amended for servers on which they could not run before: version, and the checksum (SHA-384) of the text before. A
/// cluster that has the former text needs nothing anew.
const AMENDED: [(i64, &str); 1] = [
    // PostgreSQL 18 keeps NOT NULL as a constraint of its own.
    (5, "00f9c4dcfd8a0d979a75b0d06c8cd0450cf2de3c4d784dcba4352df67cd3d63bf251510b949ed15553f5a250fecac903"),
];

async fn accept_amended(migrator: &sqlx::migrate::Migrator, admin: &mut PgConnection) -> Result<()> {
    let known: bool = sqlx::query_scalar("SELECT pg_catalog.to_regclass('watershed_migrations.applied') IS NOT NULL")
        .fetch_one(&mut *admin)
        .await?;
    if !known {
        return Ok(());
    }
    for (version, before) in AMENDED {
        let Some(now) = migrator.iter().find(|m| m.version == version) else { continue };
        sqlx::query("UPDATE watershed_migrations.applied SET checksum = $3 WHERE version = $1 AND checksum = pg_catalog.decode($2, 'hex')")
            .bind(version)
            .bind(before)
            .bind(&*now.checksum)
            .execute(&mut *admin)
            .await
            .context("accept an amended migration")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
