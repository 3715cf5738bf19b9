//! tokio-postgres: the contract in binary, pipelined futures, cancel tokens, portals, COPY, notifications.
//!
//! It knows the driver and prints lines. It does not know which server answers.

use std::error::Error;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, SimpleQueryMessage};

use super::support::wire::{Host, Target};

/// A value as it travels: whatever its type, its bytes.
#[derive(Debug)]
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn Error + Sync + Send>> {
        Ok(Raw(Some(raw.to_vec())))
    }
    fn from_sql_null(_: &Type) -> Result<Raw, Box<dyn Error + Sync + Send>> {
        Ok(Raw(None))
    }
    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match &self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    to_sql_checked!();
}

type Parameter = Box<dyn ToSql + Sync + Send>;

struct Case {
    name: String,
    sql: String,
    values: Vec<Parameter>,
}

fn cases(mark: &str) -> Vec<Case> {
    let value = |pair: &str| -> Parameter {
        match pair.split_once('=').expect("type=value") {
            ("int4", text) => Box::new(text.parse::<i32>().expect("a number")),
            ("int8", text) => Box::new(text.parse::<i64>().expect("a number")),
            ("null", _) => Box::new(Raw(None)),
            ("uuid", text) => Box::new(Raw(Some(hex::decode(text.replace('-', "")).expect("a UUID")))),
            ("ts", text) => {
                let time = chrono::DateTime::parse_from_rfc3339(text).expect("a time");
                Box::new(SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp() as u64))
            }
            (_, text) => Box::new(text.to_owned()),
        }
    };
    let lines =
        include_str!("statements.tsv").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.split('\t').collect();
            let values = parts[3..].iter().map(|pair| value(pair)).collect();
            Case { name: parts[0].into(), sql: parts[2].replace("MARK", mark), values }
        })
        .collect()
}

fn borrowed(values: &[Parameter]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}

/// What happens at one door.
struct Run {
    target: Target,
    key: String,
    mark: String,
    lines: Vec<String>,
}

impl Run {
    fn say(&mut self, name: &str, value: impl AsRef<str>) {
        self.lines.push(format!("{name}: {}", value.as_ref()).replace(&self.key, "KEY"));
    }

    fn rows(&mut self, name: &str, rows: &[Row]) {
        if let Some(first) = rows.first() {
            let columns: Vec<String> =
                first.columns().iter().map(|c| format!("{} {}", c.name(), c.type_())).collect();
            self.say(name, columns.join(", "));
        }
        for row in rows {
            let mut line = String::new();
            for n in 0..row.len() {
                match row.get::<_, Raw>(n).0 {
                    Some(bytes) => {
                        let _ = write!(line, "{} ", hex::encode(bytes)); // writing to a String cannot fail
                    }
                    None => line.push_str("NULL "),
                }
            }
            self.say(name, line);
        }
        self.say(name, rows.len().to_string());
    }

    fn error(&mut self, name: &str, error: &tokio_postgres::Error) {
        let text = match error.as_db_error() {
            Some(e) => format!(
                "{} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                e.severity(),
                e.code().code(),
                e.message(),
                e.detail(),
                e.hint(),
                e.position(),
                e.table(),
                e.column(),
                e.constraint()
            ),
            None => error.to_string(),
        };
        self.say(name, text);
    }

    fn either(&mut self, name: &str, answer: Result<Vec<Row>, tokio_postgres::Error>) {
        match answer {
            Ok(rows) => self.rows(name, &rows),
            Err(error) => self.error(name, &error),
        }
    }

    /// A session, and where its notices and notifications come out.
    async fn connect(&self) -> (Client, tokio::sync::mpsc::UnboundedReceiver<AsyncMessage>) {
        let Host::Tcp(host, port) = &self.target.host else { panic!("a target by TCP") };
        let mut config = Config::new();
        config
            .host(host)
            .port(*port)
            .user(&self.target.user)
            .password(&self.target.password)
            .dbname(&self.target.database);
        let (client, mut connection) = config.connect(NoTls).await.expect("a session");
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                let _ = tell.send(message); // nobody may listen
            }
        });
        (client, told)
    }

    fn own(&self) -> String {
        format!("SELECT count(*) AS {}, sum(n), min(note) FROM journal WHERE who = $1", self.mark)
    }

    async fn statements(&mut self) {
        let (client, _) = self.connect().await;
        for case in cases(&self.mark) {
            let answer = client.query(&case.sql, &borrowed(&case.values)).await;
            self.either(&case.name, answer);
            let statement = client.prepare(&case.sql).await.expect("a prepared statement");
            let types: Vec<String> = statement.params().iter().map(ToString::to_string).collect();
            self.say(&format!("parameters of {}", case.name), types.join(", "));
            for n in 0..4 {
                let answer = client.query(&statement, &borrowed(&case.values)).await;
                self.either(&format!("execution {n} of {}", case.name), answer);
            }
            if case.values.is_empty() {
                for message in client.simple_query(&case.sql).await.expect("an answer") {
                    let line = match message {
                        SimpleQueryMessage::Row(row) => {
                            (0..row.len()).map(|n| format!("{:?} ", row.get(n))).collect()
                        }
                        SimpleQueryMessage::CommandComplete(n) => format!("complete {n}"),
                        SimpleQueryMessage::RowDescription(d) => {
                            d.iter().map(|c| format!("{} ", c.name())).collect()
                        }
                        other => format!("{other:?}"),
                    };
                    self.say(&format!("simple {}", case.name), line);
                }
            }
        }
        let answer = client
            .query_typed(
                &format!("SELECT count(*) AS {} FROM samples WHERE id < $1", self.mark),
                &[(&300i64, Type::INT8)],
            )
            .await;
        self.either("typed", answer);
    }

    /// Futures that are polled together are sent together.
    async fn pipelines(&mut self) {
        let (client, _) = self.connect().await;
        let cases = cases(&self.mark);
        let mut statements = Vec::new();
        for case in &cases {
            statements.push(client.prepare(&case.sql).await.expect("a prepared statement"));
        }
        for round in 0..3 {
            let asked = statements.iter().zip(&cases).map(|(statement, case)| {
                let values = borrowed(&case.values);
                let client = &client;
                async move { client.query(statement, &values).await }
            });
            for (n, answer) in futures::future::join_all(asked).await.into_iter().enumerate() {
                self.either(&format!("pipelined {round} {}", cases[n].name), answer);
            }
        }
        let lake = format!("SELECT count(*) AS {} FROM logs", self.mark);
        let (a, b, c, d) = tokio::join!(
            client.query(&lake, &[]),
            client.query("SELECT 1 / $1::int4", &[&0i32]),
            client.simple_query("SELECT 1; SELECT count(*) FROM samples"),
            client.query(&lake, &[])
        );
        self.either("before the error", a);
        self.either("the error", b);
        self.say("several", c.map_or_else(|e| e.to_string(), |m| m.len().to_string()));
        self.either("after the error", d);
    }

    async fn transactions(&mut self) {
        let (mut client, _) = self.connect().await;
        let (own, key) = (self.own(), self.key.clone());
        let insert = "INSERT INTO journal (who, n, note) VALUES ($1, $2, $3)";
        let mut transaction = client.transaction().await.expect("BEGIN");
        self.either("nothing yet", transaction.query(&own, &[&key]).await);
        for n in 0..5i64 {
            transaction.execute(insert, &[&key, &n, &format!("note {n}")]).await.expect("INSERT");
        }
        self.either("own rows", transaction.query(&own, &[&key]).await);
        let nested = transaction.savepoint("a").await.expect("SAVEPOINT");
        nested.execute(insert, &[&key, &100i64, &"nested"]).await.expect("INSERT");
        self.either("in a savepoint", nested.query(&own, &[&key]).await);
        nested.rollback().await.expect("ROLLBACK TO");
        self.either("after its rollback", transaction.query(&own, &[&key]).await);

        // Portals, two at once, in portions; one of the lake and one of PostgreSQL.
        let lake = format!(
            "SELECT kind, id, count(*) AS {} FROM samples WHERE id <= $1 GROUP BY kind, id ORDER BY id",
            self.mark
        );
        let one = transaction.bind(&lake, &[&40i64]).await.expect("a portal");
        let other = transaction
            .bind("SELECT id, t FROM samples WHERE id <= $1 ORDER BY id", &[&40i64])
            .await
            .expect("a portal");
        for n in [1, 7, 20, 0, 5] {
            self.either(&format!("{n} of the lake's portal"), transaction.query_portal(&one, n).await);
            self.either(&format!("{n} of PostgreSQL's portal"), transaction.query_portal(&other, n).await);
            self.either("between", transaction.query(&own, &[&key]).await);
        }
        let third = transaction.bind(&lake, &[&30i64]).await.expect("a portal");
        self.either("a third portal", transaction.query_portal(&third, 4).await);

        // COPY in and out within the transaction.
        {
            let sink = transaction.copy_in("COPY journal (who, n) FROM STDIN").await.expect("COPY");
            let mut sink = pin!(sink);
            for n in 0..50 {
                sink.send(Bytes::from(format!("{key}\t{n}\n"))).await.expect("a row");
            }
            let copied = sink.finish().await.expect("the end of COPY");
            self.say("copied in", copied.to_string());
        }
        self.either("own copied rows", transaction.query(&own, &[&key]).await);
        let out = transaction
            .copy_out(
                "COPY (SELECT id, t, n FROM samples WHERE id <= 60 ORDER BY id) TO STDOUT (FORMAT binary)",
            )
            .await
            .expect("COPY");
        let parts: Vec<Bytes> = out.try_collect().await.expect("rows");
        self.say("copied out", hex::encode(parts.concat()));
        transaction.commit().await.expect("COMMIT");
        self.either("committed", client.query(&own, &[&key]).await);

        let transaction = client.transaction().await.expect("BEGIN");
        transaction.execute(insert, &[&key, &1000i64, &"gone"]).await.expect("INSERT");
        self.either(
            "in a transaction",
            transaction.query("SELECT count(*) FROM samples WHERE nothing = $1", &[&1i32]).await,
        );
        self.either("aborted", transaction.query(&own, &[&key]).await);
        transaction.rollback().await.expect("ROLLBACK");
        self.either("rolled back", client.query(&own, &[&key]).await);
        for level in
            [tokio_postgres::IsolationLevel::RepeatableRead, tokio_postgres::IsolationLevel::Serializable]
        {
            let transaction = client
                .build_transaction()
                .isolation_level(level)
                .read_only(true)
                .start()
                .await
                .expect("BEGIN");
            self.either(
                "isolated",
                transaction
                    .query("SELECT current_setting('transaction_isolation'), count(*) FROM samples", &[])
                    .await,
            );
            self.either("read only", transaction.query(insert, &[&key, &1i64, &"x"]).await);
        }
        // Dropped without a word: the driver rolls back.
        self.either("after both", client.query(&own, &[&key]).await);
    }

    async fn errors(&mut self) {
        let (client, mut told) = self.connect().await;
        client.batch_execute("CREATE TEMP TABLE own (id int PRIMARY KEY, t text CHECK (t <> '')); INSERT INTO own VALUES (1, 'x')").await.expect("a table");
        for sql in [
            "SELECT count(*) FORM samples",
            "SELECT nothing, count(*) FROM samples GROUP BY 1",
            "SELECT count(*) FROM nothing_there",
            "SELECT sum(1 / (i4 - i4)) FROM samples",
            "SELECT sum(i4 * 1000000) FROM samples",
            "INSERT INTO own VALUES (1, 'y')",
            "INSERT INTO own VALUES (2, '')",
            "INSERT INTO journal (who, n) VALUES (NULL, 1)",
            "UPDATE journal SET n = 1",
            "SELECT count(*) FROM samples WHERE d = 'never'::text::date",
        ] {
            self.either(sql, client.query(sql, &[]).await);
            match client.simple_query(sql).await {
                Ok(_) => self.say(sql, "no error"),
                Err(error) => self.error(sql, &error),
            }
            let going_on = client.query(&format!("SELECT count(*) AS {} FROM samples", self.mark), &[]).await;
            self.either("going on", going_on);
        }
        client
            .batch_execute("DO $$ BEGIN RAISE NOTICE 'seen' USING HINT = 'look'; END $$")
            .await
            .expect("a notice");
        if let Some(AsyncMessage::Notice(notice)) = told.recv().await {
            self.say("notice", format!("{} {} {:?}", notice.severity(), notice.message(), notice.hint()));
        }
    }

    async fn cancelled(&mut self, name: &str, sql: &str) {
        let (client, _) = self.connect().await;
        let token = client.cancel_token();
        let mut asked = pin!(client.query(sql, &[]).boxed_local());
        // Until it has ended: the first request may come before it runs.
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break answer,
                () = tokio::time::sleep(Duration::from_millis(500)) => {
                    let _ = token.cancel_query(NoTls).await; // the next one may do
                }
            }
        };
        self.either(name, answer);
        let _ = client.query("SELECT pg_sleep(0.2)", &[]).await; // a request may still be on its way
        let going_on = client.query(&format!("SELECT count(*) AS {} FROM samples", self.mark), &[]).await;
        self.either(&format!("{name}, going on"), going_on);
    }

    async fn notifications(&mut self) {
        let (client, mut told) = self.connect().await;
        let (other, _) = self.connect().await;
        client.batch_execute(&format!("LISTEN \"{}\"", self.key)).await.expect("LISTEN");
        for payload in ["first", "second"] {
            other.execute("SELECT pg_notify($1, $2)", &[&self.key, &payload]).await.expect("NOTIFY");
            if let Some(AsyncMessage::Notification(n)) = told.recv().await {
                self.say("notified", format!("{} {}", n.channel(), n.payload()));
            }
            let row = client.query(&format!("SELECT count(*) AS {} FROM samples", self.mark), &[]).await;
            self.either("and a statement", row);
        }
        let stream = client
            .query_raw(
                &format!("SELECT id, count(*) AS {} FROM samples GROUP BY id ORDER BY id", self.mark),
                Vec::<i64>::new(),
            )
            .await;
        let mut stream = pin!(stream.expect("rows"));
        let mut sum = 0i64;
        while let Some(row) = stream.next().await {
            sum += row.expect("a row").get::<_, i64>(0);
        }
        self.say("streamed", sum.to_string());
    }
}

/// The whole contract at one door.
pub fn contract(target: &Target, key: &str, mark: &str) -> Vec<String> {
    let mut run = Run { target: target.clone(), key: key.into(), mark: mark.into(), lines: Vec::new() };
    let terms: Vec<String> =
        (1..=60).map(|n| format!("count(*) FILTER (WHERE a / (a + {n}.7) > 0.3)")).collect();
    let heavy = format!("SELECT {}, count(*) AS {mark} FROM heavy", terms.join(", "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        run.statements().await;
        run.pipelines().await;
        run.transactions().await;
        run.errors().await;
        run.notifications().await;
        run.cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(300)").await;
        run.cancelled("cancelled in the lake", &heavy).await;
    });
    run.lines
}
