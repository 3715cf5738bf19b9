//! Bulk ingestion: a client's batches into a table by COPY, all of them or none, as its session. ✗ the protocol's other calls, values (`incoming`).

use super::client::{Client, Event, affected, given_up, is_gone};
use super::failure::Failure;
use super::service::{batches, broken, next_of, quoted};
use super::sessions::FlightSession;
use super::{incoming, types};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use bytes::{BufMut, BytesMut};
use futures::FutureExt;

/// Rows of a client's into a table, all or none of them; in the transaction that is meant, if one is.
pub(super) async fn ingest(
    session: &FlightSession,
    command: &CommandStatementIngest,
    within: Option<u64>,
    rows: PeekableFlightDataStream,
) -> Result<i64, Failure> {
    let mut rows = batches(rows);
    let first = next_of(&mut rows).await.map_err(broken)?;
    let schema: SchemaRef = match (&first, rows.schema()) {
        (Some(batch), _) => batch.schema(),
        (None, Some(schema)) => schema.clone(),
        (None, None) => return Err(Failure::new("08P01", "rows without a schema")),
    };
    let table = table_name(command);
    let columns: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
    let mut client = session.client().await?;
    session.check(within, &client)?;
    let (before, own) = (definition(command, &table, &schema)?, client.status() == b'I');
    if own {
        client.command("BEGIN").await?;
    }
    let mut outcome = async {
        if incoming::has_lists(&schema) {
            client.command(incoming::NULLS_IN_LISTS).await?;
        }
        for sql in &before {
            client.command(sql).await?;
        }
        let sql = match columns.is_empty() {
            true => return Err(Failure::new("0A000", "rows without columns")),
            false => format!("COPY {table} ({}) FROM STDIN", columns.join(", ")),
        };
        copy(&mut client, &sql, &schema, first, &mut rows).await
    }
    .await;
    if is_gone() {
        outcome = outcome.and_then(|_| Err(given_up()));
    }
    if own {
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        if let Err(e) = client.command(end).await {
            outcome = outcome.and(Err(e));
        }
    }
    outcome
}

fn table_name(command: &CommandStatementIngest) -> String {
    let table = quoted(&command.table);
    match &command.schema {
        Some(schema) if !schema.is_empty() => format!("{}.{table}", quoted(schema)),
        _ if command.temporary => format!("pg_temp.{table}"),
        _ => table,
    }
}

/// What makes the table, as the client wants it.
fn definition(command: &CommandStatementIngest, table: &str, schema: &Schema) -> Result<Vec<String>, Failure> {
    let Some(options) = &command.table_definition_options else { return Ok(Vec::new()) };
    if options.if_not_exist() != TableNotExistOption::Create {
        return Ok(match options.if_exists() {
            // It must be there, and is emptied.
            TableExistsOption::Replace => vec![format!("TRUNCATE {table}")],
            _ => Vec::new(),
        });
    }
    let columns: Result<Vec<String>, Failure> = schema
        .fields()
        .iter()
        .map(|f| {
            let t = types::sql_type(f.data_type(), f.metadata()).ok_or_else(|| {
                Failure::new("0A000", format!("column \"{}\": no type of PostgreSQL holds Arrow's {}", f.name(), f.data_type()))
            })?;
            Ok(format!("{} {t}{}", quoted(f.name()), if f.is_nullable() { "" } else { " NOT NULL" }))
        })
        .collect();
    let (columns, temporary) = (columns?.join(", "), if command.temporary { "TEMPORARY " } else { "" });
    Ok(match options.if_exists() {
        TableExistsOption::Append => vec![format!("CREATE {temporary}TABLE IF NOT EXISTS {table} ({columns})")],
        TableExistsOption::Replace => vec![format!("DROP TABLE IF EXISTS {table}"), format!("CREATE {temporary}TABLE {table} ({columns})")],
        _ => vec![format!("CREATE {temporary}TABLE {table} ({columns})")],
    })
}

/// COPY from a client's batches, each as it comes. Gives the number of rows.
async fn copy(
    client: &mut Client,
    sql: &str,
    schema: &Schema,
    first: Option<RecordBatch>,
    rest: &mut FlightRecordBatchStream,
) -> Result<i64, Failure> {
    let mut out = BytesMut::new();
    crate::wire::message::frame(&mut out, b'Q', |b| {
        b.put_slice(sql.as_bytes());
        b.put_u8(0);
    });
    client.send(&out).await?;
    loop {
        match client.event().await? {
            Event::Frame(b'G', _) => break,
            Event::Frame(b'E', body) => {
                let failure = Failure::read(&body);
                return client.finish(|_, _| ()).await.and(Err(failure));
            }
            _ => {}
        }
    }
    let uuids: Vec<bool> = schema.fields().iter().map(|f| incoming::is_uuid(f)).collect();
    let mut next = first;
    let mut scratch = String::new();
    let mut refused: Option<Failure> = None;
    let mut ended: Option<Failure> = None;
    while let Some(batch) = next {
        let mut data = Vec::new();
        'rows: for row in 0..batch.num_rows() {
            for (n, column) in batch.columns().iter().enumerate() {
                if n > 0 {
                    data.push(b'\t');
                }
                if let Err(unfit) = incoming::put_copy(column, row, uuids[n], &mut scratch, &mut data) {
                    refused = Some(unfit.into());
                    break 'rows;
                }
            }
            data.push(b'\n');
            if data.len() > 1 << 18 {
                send_data(client, &mut data).await?;
            }
        }
        send_data(client, &mut data).await?;
        // PostgreSQL may have refused a row: no need for the rest.
        if let Some(event) = client.event().now_or_never()
            && let Event::Frame(b'E', body) = event?
        {
            ended = Some(Failure::read(&body));
        }
        if refused.is_some() || ended.is_some() {
            break;
        }
        next = match next_of(rest).await {
            Ok(next) => next,
            Err(e) => {
                refused = Some(broken(e));
                None
            }
        };
    }
    if is_gone() {
        refused.get_or_insert_with(given_up);
    }
    let mut out = BytesMut::new();
    match &refused {
        Some(_) => crate::wire::message::frame(&mut out, b'f', |b| b.put_slice(b"refused\0")),
        None => crate::wire::message::frame(&mut out, b'c', |_| ()),
    }
    client.send_more(&out).await?;
    let mut rows = 0;
    let finished = client
        .finish(|tag, body| {
            if tag == b'C' {
                rows = affected(body);
            }
        })
        .await;
    match refused.or(ended) {
        Some(e) => Err(e),
        None => finished.map(|()| rows),
    }
}

async fn send_data(client: &mut Client, data: &mut Vec<u8>) -> Result<(), Failure> {
    if data.is_empty() {
        return Ok(());
    }
    let mut out = BytesMut::with_capacity(data.len() + 5);
    crate::wire::message::frame(&mut out, b'd', |b| b.put_slice(data));
    data.clear();
    client.send_more(&out).await
}
