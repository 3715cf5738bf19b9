//! Finding a running `watershed up`: by `--data-dir`, by the environment, or in the default place. Reads its
//! address and secrets; changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lake::store::Settings;
use url::Url;

use crate::args::Running;
use crate::bootstrap::lake_url;
use crate::config::{self, DEFAULT_DATA_DIR, check_lake};
use crate::datadir::{DataDir, Pairs};
use crate::exit::Failure;
use crate::wire_client::{Client, Target};

/// What the commands that move or compare rows work with.
#[derive(Clone, Debug)]
pub struct Stores {
    /// PostgreSQL as `watershed_ingest`.
    pub ingest_url: String,
    /// PostgreSQL as `watershed_archiver`.
    pub archiver_url: String,
    pub lake_root: Url,
    /// Where sorting may spill to; None: the system's temporary directory.
    pub spill_dir: Option<PathBuf>,
    /// Where PostgreSQL and the lake are, if they are in one place of this machine.
    pub data_dir: Option<PathBuf>,
}

impl Stores {
    pub fn archiver(&self) -> ingest::archiver::Config {
        ingest::archiver::Config::new(&self.archiver_url, self.lake_root.clone())
    }

    pub fn compactor(&self) -> compactor::Config {
        compactor::Config {
            database_url: self.archiver_url.clone(),
            lake_root: self.lake_root.clone(),
            spill_dir: self.spill_dir.clone(),
            ..Default::default()
        }
    }
}

/// The stores of the running `watershed up` that the arguments and the environment lead to. From here on, this process reaches the
/// lake as they say.
pub async fn stores(running: &Running) -> Result<Stores> {
    // Services elsewhere than in a data directory: all three named by hand, the rest in the settings file.
    if let Some(stores) = stores_in_environment()? {
        reach_lake(&config::lake_store(variable("WATERSHED_CONFIG").as_deref().map(Path::new))?, &stores.lake_root)?;
        return Ok(stores);
    }
    let data = data_dir(running).await?;
    let secrets = Pairs::read(&data.secrets())?.ok_or_else(|| nothing_at(&data))?;
    let value = |key: &str| {
        secrets
            .get(key)
            .map(str::to_owned)
            .with_context(|| format!("{} lacks {key}", data.secrets().display()))
    };
    let stores = Stores {
        ingest_url: value("WATERSHED_INGEST_URL")?,
        archiver_url: value("WATERSHED_ARCHIVER_URL")?,
        lake_root: Url::parse(secrets.get("WATERSHED_LAKE").unwrap_or(&lake_url(&data)))
            .context("read WATERSHED_LAKE")?,
        spill_dir: Some(data.spill()),
        data_dir: Some(data.root().to_owned()),
    };
    let store = match secrets.get("WATERSHED_LAKE_STORE") {
        Some(kept) => serde_json::from_str(kept).context("read WATERSHED_LAKE_STORE")?,
        None => Settings::default(),
    };
    reach_lake(&store, &stores.lake_root)?;
    Ok(stores)
}

/// Lets this process reach a lake, or says why it cannot.
pub fn reach_lake(store: &Settings, lake: &Url) -> Result<()> {
    lake::store::configure(store.clone());
    check_lake(lake)
}

/// Where the gateway answers, and as whom to ask.
pub async fn gateway(running: &Running) -> Result<Target> {
    if running.data_dir.is_none() {
        if let Some(target) = target_in_environment()? {
            return Ok(target);
        }
    }
    let data = running_at(&DataDir::at(running.data_dir.as_deref().unwrap_or(Path::new(DEFAULT_DATA_DIR)))?)?;
    let connection = Pairs::read(&data.connection_env())?.ok_or_else(|| nothing_at(&data))?;
    target(|key| connection.get(key).map(str::to_owned))?
        .with_context(|| format!("{} is incomplete", data.connection_env().display()))
}

/// The data directory meant: named, or the one the gateway in PG* keeps, or the default.
pub async fn data_dir(running: &Running) -> Result<DataDir> {
    if let Some(named) = &running.data_dir {
        return running_at(&DataDir::at(named)?);
    }
    let usual = DataDir::at(Path::new(DEFAULT_DATA_DIR))?;
    let Some(target) = target_in_environment()? else { return running_at(&usual) };
    match ask_for_data_dir(&target).await {
        Ok(path) => DataDir::at(Path::new(&path)),
        Err(_) if usual.holder().is_some() => Ok(usual),
        Err(error) => Err(Failure::environment(
            format!(
                "PGHOST and PGPORT lead to {}:{}, where no watershed of this machine answers: {error:#}",
                target.host, target.port
            ),
            "name its data directory with --data-dir, or start it with `watershed up`",
        )
        .into()),
    }
}

async fn ask_for_data_dir(target: &Target) -> Result<String> {
    let ask = async {
        let mut client = Client::connect(target).await?;
        client.simple("SELECT pg_catalog.current_setting('watershed.data_dir', true)").await?.text()
    };
    let rows =
        tokio::time::timeout(Duration::from_secs(10), ask).await.context("no answer within 10 s")??;
    let path = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    path.filter(|path| !path.is_empty()).context("that PostgreSQL does not belong to watershed")
}

fn running_at(data: &DataDir) -> Result<DataDir> {
    match data.holder() {
        Some(_) => Ok(data.clone()),
        None => Err(nothing_at(data).into()),
    }
}

fn nothing_at(data: &DataDir) -> Failure {
    Failure::environment(
        format!("no watershed is running in {}", data.root().display()),
        format!(
            "start it with `watershed up --data-dir {0}`, or name the directory of one that runs with --data-dir",
            data.root().display()
        ),
    )
}

fn variable(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.is_empty())
}

fn stores_in_environment() -> Result<Option<Stores>> {
    let keys = ["WATERSHED_INGEST_URL", "WATERSHED_ARCHIVER_URL", "WATERSHED_LAKE"];
    let [Some(ingest_url), Some(archiver_url), Some(lake)] = keys.map(variable) else { return Ok(None) };
    let lake_root = Url::parse(&lake).map_err(|error| {
        Failure::usage(
            format!("WATERSHED_LAKE is no URL: {error}"),
            "write it like file:///srv/watershed/lake/ or hdfs://nameservice/watershed",
        )
    })?;
    Ok(Some(Stores { ingest_url, archiver_url, lake_root, spill_dir: None, data_dir: None }))
}

fn target_in_environment() -> Result<Option<Target>> {
    if variable("PGHOST").is_none() && variable("PGPORT").is_none() {
        return Ok(None);
    }
    target(variable)
}

fn target(get: impl Fn(&str) -> Option<String>) -> Result<Option<Target>> {
    let user = get("PGUSER").unwrap_or_else(|| "watershed".into());
    let port = get("PGPORT").unwrap_or_else(|| "6432".into());
    let port = port.parse().map_err(|_| {
        Failure::usage(
            format!("PGPORT is `{port}`, which is no port"),
            "set it to the gateway's port, like 6432",
        )
    })?;
    Ok(Some(Target {
        host: get("PGHOST").unwrap_or_else(|| "127.0.0.1".into()),
        port,
        password: get("PGPASSWORD").unwrap_or_default(),
        database: get("PGDATABASE").unwrap_or_else(|| user.clone()),
        user,
    }))
}
