//! The gateway's other door: asks by Arrow Flight SQL, and gives what came as the rows that PostgreSQL would send in binary, so that they
//! compare to the byte. ✗ what is asked, what is right.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Field, IntervalMonthDayNanoType, IntervalUnit, Schema, SchemaRef, Time64MicrosecondType, TimeUnit, UInt32Type,
};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use bytes::BytesMut;
use futures::TryStreamExt;
use pgexact::Zone;
use pgexact::encode::{Format, RowEncoder, Target as Column, oid};
use tonic::transport::{Channel, Endpoint};

use super::expr::Parameters;
use crate::wire_client::{Answer, ServerError, Target};

/// Where a field says which type of PostgreSQL's it is.
const TYPE_KEY: &str = "watershed.type_oid";

/// One session of Flight's.
pub struct Flight {
    client: FlightSqlServiceClient<Channel>,
}

/// What came, in binary.
pub struct Answered {
    pub answer: Answer,
    /// Names and types of the columns.
    pub columns: Vec<(String, u32)>,
}

impl Flight {
    pub async fn connect(url: &str, target: &Target) -> Result<Flight> {
        let url = url.replacen("grpc://", "http://", 1);
        let channel = Endpoint::from_shared(url.clone())?.connect().await.with_context(|| format!("connect to {url}"))?;
        let mut client = FlightSqlServiceClient::new(channel);
        client.handshake(&target.user, &target.password).await.with_context(|| format!("log in to {url} as {}", target.user))?;
        Ok(Flight { client })
    }

    /// A statement that gives no rows.
    pub async fn tell(&mut self, sql: &str) -> Result<()> {
        self.client.execute_update(sql.to_owned(), None).await.map_err(error)?;
        Ok(())
    }

    /// An error of the server's is a [`ServerError`].
    pub async fn ask(&mut self, sql: &str, parameters: &Parameters) -> Result<Answered> {
        if parameters.is_empty() {
            let info = self.client.execute(sql.to_owned(), None).await.map_err(error)?;
            return self.fetch(info).await;
        }
        let mut statement = self.client.prepare(sql.to_owned(), None).await.map_err(error)?;
        let (fields, values): (Vec<Field>, Vec<ArrayRef>) = parameters
            .iter()
            .enumerate()
            .map(|(n, (_, value))| (Field::new((n + 1).to_string(), DataType::Utf8, true), Arc::new(StringArray::from(vec![*value])) as ArrayRef))
            .unzip();
        statement.set_parameters(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?).map_err(error)?;
        let outcome = match statement.execute().await {
            Ok(info) => self.fetch(info).await,
            Err(e) => Err(error(e)),
        };
        // In a failed transaction too.
        statement.close().await.map_err(error)?;
        outcome
    }

    async fn fetch(&mut self, info: FlightInfo) -> Result<Answered> {
        let endpoints = info.endpoint.clone();
        let schema = Arc::new(info.try_decode_schema()?);
        let mut batches = Vec::new();
        for endpoint in endpoints {
            let ticket = endpoint.ticket.context("an endpoint without a ticket")?;
            let stream = self.client.do_get(ticket).await.map_err(error)?;
            batches.extend(stream.try_collect::<Vec<_>>().await.map_err(error)?);
        }
        answered(&schema, &batches)
    }
}

/// What the server said of a failure, in one text: `SQLSTATE: message`, detail and hint on lines of their own.
fn error(e: FlightError) -> anyhow::Error {
    let FlightError::Tonic(status) = &e else { return e.into() };
    let text = status.message();
    match text.split_once(": ") {
        Some((sqlstate, rest)) if sqlstate.len() == 5 => {
            let end = ["\nDETAIL:  ", "\nHINT:  "].iter().filter_map(|label| rest.find(label)).min();
            ServerError { sqlstate: sqlstate.into(), message: rest[..end.unwrap_or(rest.len())].into(), hint: None }.into()
        }
        _ => e.into(),
    }
}

fn answered(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Answered> {
    let columns = schema.fields().iter().map(|f| Ok((f.name().clone(), type_of(f)?))).collect::<Result<Vec<_>>>()?;
    let mut out = BytesMut::new();
    for batch in batches {
        let (mut fields, mut values, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            let (array, type_oid) = sent(array, type_of(field)?)?;
            fields.push(Field::new(field.name(), array.data_type().clone(), true));
            values.push(array);
            targets.push(Column { type_oid, typmod: -1, format: Format::Binary });
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?;
        let encoder = RowEncoder::try_new(&targets, &batch.schema(), &Zone::utc())?;
        encoder.encode_batch(&batch, 0, usize::MAX, &mut out)?;
    }
    let mut rows = Vec::new();
    let mut rest: &[u8] = &out;
    while let Some((head, after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let (row, after) = after.split_at_checked(length).context("a row is cut short")?;
        rows.push(row.to_vec());
        rest = after;
    }
    let tag = format!("SELECT {}", rows.len());
    Ok(Answered { answer: Answer { rows, tag, ..Answer::default() }, columns })
}

fn type_of(field: &Field) -> Result<u32> {
    let text = field.metadata().get(TYPE_KEY).with_context(|| format!("column {} has no {TYPE_KEY}", field.name()))?;
    text.parse().with_context(|| format!("column {} is of type {text}", field.name()))
}

/// A column as the encoder takes it; what it has no type for, as the bytes that PostgreSQL's send functions make.
fn sent(array: &ArrayRef, type_oid: u32) -> Result<(ArrayRef, u32)> {
    let bytes = |of: &dyn Fn(usize) -> Vec<u8>| -> (ArrayRef, u32) {
        let values: Vec<Option<Vec<u8>>> = (0..array.len()).map(|row| array.is_valid(row).then(|| of(row))).collect();
        (Arc::new(BinaryArray::from_iter(values)), oid::BYTEA)
    };
    Ok(match (array.data_type(), type_oid) {
        (DataType::Interval(IntervalUnit::MonthDayNano), _) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            bytes(&|row| {
                let v = values.value(row);
                [&(v.nanoseconds / 1000).to_be_bytes()[..], &v.days.to_be_bytes(), &v.months.to_be_bytes()].concat()
            })
        }
        (DataType::Time64(TimeUnit::Microsecond), _) => {
            let values = array.as_primitive::<Time64MicrosecondType>();
            bytes(&|row| values.value(row).to_be_bytes().to_vec())
        }
        (DataType::UInt32, _) => {
            let values = array.as_primitive::<UInt32Type>();
            bytes(&|row| values.value(row).to_be_bytes().to_vec())
        }
        // name, json, bpchar: sent as text is. unknown becomes text.
        (DataType::Utf8, 19 | 114 | 705 | 1042) => (array.clone(), oid::TEXT),
        (DataType::Utf8, oid::TEXT | oid::VARCHAR | oid::NUMERIC | oid::JSONB) => (array.clone(), type_oid),
        (DataType::Utf8, _) => bail!("values of type {type_oid} come as PostgreSQL prints them: nothing to compare their bytes with"),
        _ => (array.clone(), type_oid),
    })
}

/// `$1` with its type beside it: over Flight nothing else tells it.
pub fn typed(sql: &str, parameters: &Parameters) -> String {
    let mut out = String::with_capacity(sql.len() + parameters.len() * 12);
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        let digits = rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let (before, after) = rest.split_at(at + 1 + digits);
        out.push_str(before);
        let number = before[at + 1..].parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        if let Some((oid, _)) = number.and_then(|n| parameters.get(n)) {
            out.push_str("::");
            out.push_str(super::expr::name_of(*oid));
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_say_their_types() {
        let parameters: Parameters = vec![(23, Some("1")), (25, None)];
        assert_eq!(typed("a = $1 AND b = $2 || '$'", &parameters), "a = $1::int4 AND b = $2::text || '$'");
        assert_eq!(typed("SELECT 1", &parameters), "SELECT 1");
    }

    #[test]
    fn failures_are_the_servers_own_words() {
        let status = tonic::Status::internal("22012: division by zero: so it is\nHINT:  none");
        let e = error(FlightError::from(status)).downcast::<ServerError>().expect("the server's");
        assert_eq!((e.sqlstate.as_str(), e.message.as_str()), ("22012", "division by zero: so it is"));
        assert!(error(FlightError::from(tonic::Status::internal("gone"))).downcast::<ServerError>().is_err());
    }
}
