//! The SCRAM verifiers that PostgreSQL keeps, for logins that cannot be relayed: one connection as
//! `watershed_gateway`, opened when the first is asked for, through a function that shows it nothing else of
//! `pg_authid`. Nothing is kept: a password that was changed counts at once. ✗ the exchange.

use crate::wire::scram::Verifier;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Mutex;

/// How long a login may wait for the answer, the turn of others before it included.
const LIMIT: Duration = Duration::from_secs(10);

/// Why no verifier could be looked up.
#[derive(Debug, Error)]
pub enum LookupError {
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Late,
}

/// See the module.
pub struct Verifiers {
    options: PgConnectOptions,
    conn: Mutex<Option<PgConnection>>,
}

impl Verifiers {
    /// Opens nothing yet.
    pub fn new(control_url: &str) -> Result<Verifiers, sqlx::Error> {
        let options = PgConnectOptions::from_str(control_url)?
            .application_name("watershed gateway")
            .disable_statement_logging();
        Ok(Verifiers { options, conn: Mutex::new(None) })
    }

    /// The verifier of a role; None: there is no such role, or it has none.
    pub async fn of(&self, user: &str) -> Result<Option<Verifier>, LookupError> {
        tokio::time::timeout(LIMIT, self.look_up(user)).await.map_err(|_| LookupError::Late)?
    }

    async fn look_up(&self, user: &str) -> Result<Option<Verifier>, LookupError> {
        let mut place = self.conn.lock().await;
        // Taken out, so that a login that is given up meanwhile leaves no connection in the middle of an answer.
        if let Some(mut conn) = place.take()
            && let Ok(found) = ask(&mut conn, user).await
        {
            *place = Some(conn);
            return Ok(found);
        }
        let mut conn = self.options.connect().await?;
        let found = ask(&mut conn, user).await?;
        *place = Some(conn);
        Ok(found)
    }
}

async fn ask(conn: &mut PgConnection, user: &str) -> Result<Option<Verifier>, sqlx::Error> {
    let text: Option<String> =
        sqlx::query_scalar("SELECT watershed_control.scram_verifier($1)").bind(user).fetch_one(conn).await?;
    Ok(text.as_deref().and_then(Verifier::parse))
}
