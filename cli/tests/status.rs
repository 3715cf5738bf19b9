//! The status page in a real browser: login, what is shown live, the box, and what hostile texts can do there (nothing).
//! Pictures at three sizes are left in cargo's folder for tests (`target/tmp/status-*.png`), to be looked at.

mod support;

use std::path::{Path, PathBuf};

use support::browser::Browser;
use support::instance::{Instance, Options};
use support::wait_for;
use support::wire::{Client, Host};

/// What an attacker would like to be more than a text.
const HOSTILE: &str = "<script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 2\"><svg/onload=alert(3)>";

fn pictures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-{name}.png"))
}

fn credentials(instance: &Instance) -> (String, String) {
    let target = instance.gateway();
    assert!(matches!(target.host, Host::Tcp(..)));
    (target.user, target.password)
}

fn log_in(browser: &mut Browser, user: &str, password: &str) {
    browser.fill("#login-user", user);
    browser.fill("#login-password", password);
    browser.click("#login button");
}

/// Runs the box and waits for its answer.
fn ask(browser: &mut Browser, sql: &str, button: &str) {
    browser.eval("document.getElementById('answer').replaceChildren()");
    browser.fill("#sql", sql);
    browser.click(button);
    browser.until("an answer", "document.getElementById('answer').children.length > 0 && document.getElementById('busy').textContent === ''");
}

#[test]
fn the_page_shows_what_happens_and_nothing_else_happens() {
    let instance = Instance::start(Options::busy().with("WATERSHED_COMPACT_INTERVAL", "24h"));
    let (user, password) = credentials(&instance);
    let mut client = Client::connect(&instance.gateway());
    for day in 1..4 {
        client.run(&format!(
            "INSERT INTO logs (ts, level, service, message) SELECT now() - interval '{day} days' + i * interval '7 seconds', (ARRAY['INFO','WARN','ERROR'])[1 + i % 3], 'shop', 'line ' || i FROM generate_series(1, 9000) i"
        ));
    }
    client.run(&format!("INSERT INTO logs (ts, level, message) VALUES (now(), 'ERROR', $x${HOSTILE}$x$)"));
    // Several files of one day, which are then made one.
    for batch in 0..4 {
        let files = "SELECT count(*) FROM watershed.files WHERE table_name = 'logs'";
        let before: i64 = client.value(files).parse().expect("a number");
        client.run(&format!("INSERT INTO logs (ts, level, message) SELECT date_trunc('day', now()) - interval '10 days' + i * interval '1 second', 'DEBUG', 'batch {batch}, line ' || i FROM generate_series(1, 2000) i"));
        wait_for("another file", || (client.value(files).parse::<i64>().expect("a number") > before).then_some(()));
    }
    instance.run(&["compact"]);

    let home = tempfile::Builder::new().prefix("watershed-browser-").tempdir().expect("a folder");
    let mut browser = Browser::start(home.path());
    browser.look(1400, 900, false, "light");
    browser.open(&format!("http://127.0.0.1:{}/", instance.http_port()));
    assert!(browser.eval("!document.getElementById('entrance').hidden && document.getElementById('board').hidden").as_bool().unwrap_or(false));
    browser.picture(&pictures("login"));

    // A wrong password is refused in PostgreSQL's words.
    log_in(&mut browser, &user, "wrong");
    browser.until("a refusal", "!document.getElementById('login-error').hidden");
    assert!(browser.text("#login-error").contains("password authentication failed"), "{}", browser.text("#login-error"));
    log_in(&mut browser, &user, &password);
    browser.until("the board", "!document.getElementById('board').hidden");
    assert_eq!(browser.text("#user"), user);
    assert_eq!(browser.eval("document.cookie"), "", "no script sees the cookie");

    // What happens now is there a moment later, with its route and reason.
    client.run("/* watershed: lake */ SELECT level, count(*) AS live_marker FROM logs GROUP BY level");
    browser.until("the statement", "document.getElementById('live').innerText.includes('live_marker')");
    let row = browser.eval("[...document.querySelectorAll('#live tbody tr')].find((r) => r.innerText.includes('live_marker')).innerText");
    let row = row.as_str().unwrap_or_default();
    assert!(row.contains("lake") && row.contains("proven equal"), "{row}");

    // The box, and both paths beside each other.
    ask(&mut browser, "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level", "#box button[type=submit]");
    let answer = browser.text("#answer");
    assert!(answer.contains("ERROR") && answer.contains("9001") && answer.contains("lake"), "{answer}");
    ask(&mut browser, "SELECT level, count(*) FROM logs GROUP BY level ORDER BY level", "#compare");
    assert_eq!(browser.text("#verdict"), "equal");
    let routes = browser.eval("[...document.querySelectorAll('#answer .route')].map((r) => r.innerText)");
    assert_eq!(routes, serde_json::json!(["PostgreSQL", "lake"]));
    let titles = browser.eval("[...document.querySelectorAll('#answer details summary')].map((s) => s.innerText)");
    assert_eq!(titles, serde_json::json!(["Plan", "The lake's plan, as it ran", "PostgreSQL's plan, had it answered"]));
    let plan = browser.eval("document.querySelectorAll('#answer details pre')[1].textContent");
    assert!(plan.as_str().is_some_and(|p| p.contains("AggregateExec") && p.contains("output_rows=")), "{plan}");
    let plan = browser.eval("document.querySelector('#answer details pre').textContent");
    assert!(plan.as_str().is_some_and(|p| p.contains("Aggregate")), "{plan}");
    ask(&mut browser, "SELECT message FROM logs LIMIT 3 OFFSET 1 FOR UPDATE", "#compare");
    assert!(browser.text("#answer").contains("25006"), "{}", browser.text("#answer"));

    // It reads: by its first word, and by the transaction.
    ask(&mut browser, "DELETE FROM logs", "#box button[type=submit]");
    assert!(browser.text("#answer").contains("only statements that read"), "{}", browser.text("#answer"));
    ask(&mut browser, "WITH gone AS (INSERT INTO logs (ts, message) VALUES (now(), 'x') RETURNING 1) SELECT * FROM gone", "#box button[type=submit]");
    assert!(browser.text("#answer").contains("25006"), "{}", browser.text("#answer"));
    ask(&mut browser, "SELECT 1; DROP TABLE logs", "#box button[type=submit]");
    assert!(browser.text("#answer").contains("42601"), "{}", browser.text("#answer"));
    ask(&mut browser, "SELECT i FROM generate_series(1, 100000) i", "#box button[type=submit]");
    assert!(browser.text("#answer").contains("The first 500 rows."), "bounded");

    // Hostile texts: in a row, in a name, in a statement, in an error.
    ask(&mut browser, &format!("SELECT message, 1 AS \"{}\" FROM logs WHERE message LIKE '<script>%'", HOSTILE.replace('"', "\"\"").chars().take(50).collect::<String>()), "#box button[type=submit]");
    assert!(browser.text("#answer").contains(HOSTILE), "{}", browser.text("#answer"));
    client.query(&format!("SELECT $x${HOSTILE}$x$::int"));
    client.query(&format!("SELECT $x${HOSTILE}$x$ AS told"));
    browser.until("the hostile statement", "document.getElementById('live').innerText.includes('AS told')");
    browser.until("the hostile error", "document.getElementById('wrong').innerText.includes('22P02') && document.getElementById('wrong').innerText.includes('<script>')");
    assert_eq!(browser.eval("window.hacked === undefined"), true);
    assert_eq!(browser.eval("document.querySelectorAll('img, iframe, object, embed').length"), 0);
    assert_eq!(browser.eval("document.scripts.length"), 1);

    // What another site, or a script without the token, could send.
    let post = |headers: &str| format!("fetch('/status/query', {{ method: 'POST', headers: {headers}, body: '{{\"sql\":\"SELECT 1\"}}' }}).then((r) => r.status)");
    assert_eq!(browser.eval(&post("{ 'content-type': 'application/json' }")), 403);
    assert_eq!(browser.eval(&post("{ 'content-type': 'application/json', 'x-watershed-csrf': 'guessed' }")), 403);
    // The policy holds even against a script that would write markup.
    let injected = browser.eval("(() => { try { document.body.innerHTML += '<img src=x onerror=alert(1)>'; return 'written'; } catch (e) { return e.name; } })()");
    assert_eq!(injected, "TypeError");

    // Times on both paths, files, coverage: drawn.
    browser.until("drawings", "document.querySelectorAll('#times-lake .band').length > 0 && document.querySelectorAll('#times-postgres .band').length > 0");
    browser.until("files", "document.querySelectorAll('#files .file').length > 0 && document.querySelectorAll('#coverage .cold').length > 0");
    browser.until("a pair", "document.querySelectorAll('#pairs .pair').length > 0");
    browser.until("compactions", "document.querySelectorAll('#merged .file').length > 1");
    browser.until("rates", "document.querySelectorAll('#tail path.drawn').length > 0");

    // The page looks on: what it asks is not among the statements, and what the user asked is.
    assert_eq!(client.value("SELECT count(*) FROM watershed.queries WHERE sql LIKE '%FROM watershed.queries ORDER BY id DESC LIMIT%'"), "0");
    assert_ne!(client.value("SELECT count(*) FROM watershed.queries WHERE sql LIKE 'SELECT i FROM generate_series%'"), "0");

    // Three sizes, light and dark: nothing sticks out.
    for (name, width, height, mobile, scheme) in
        [("wide", 1400, 900, false, "light"), ("dark", 1400, 900, false, "dark"), ("tablet", 820, 1100, false, "light"), ("phone", 390, 844, true, "light")]
    {
        browser.look(width, height, mobile, scheme);
        browser.eval("new Promise((done) => { dispatchEvent(new Event('resize')); requestAnimationFrame(() => requestAnimationFrame(done)); }).then(() => true)");
        browser.until(&format!("{name}: no wider than the window"), "document.documentElement.scrollWidth <= innerWidth");
        browser.picture(&pictures(name));
    }

    // Loaded again, still logged in; then out, and the stream with it.
    browser.look(1400, 900, false, "light");
    browser.call("Page.reload", serde_json::json!({}));
    browser.until("the board again", "document.readyState === 'complete' && !document.getElementById('board').hidden");
    browser.until("statements of before", "document.querySelectorAll('#live tbody tr').length > 3");
    browser.click("#logout");
    browser.until("the entrance", "!document.getElementById('entrance').hidden && document.getElementById('live').checkVisibility() === false");
    assert_eq!(browser.eval("fetch('/status/events').then((r) => r.status)"), 401);
    wait_for("the page's sessions have ended", || {
        let left = client.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'watershed %page' OR application_name = 'watershed query box'");
        (left == "0").then_some(())
    });

    // Nothing was thrown, refused or opened that should not have been.
    let unexpected: Vec<_> = browser
        .said
        .iter()
        .filter(|said| !(said.contains("status of 403") || said.contains("status of 401") || said.contains("status of 400") || said.contains("TrustedHTML")))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// A user sees on the page what that user may see: no literals of others, no tables of others.
#[test]
fn a_user_sees_only_its_own() {
    let instance = Instance::start(Options::on_demand());
    let mut admin = Client::connect(&instance.admin_through_gateway());
    admin.run("CREATE ROLE visitor LOGIN PASSWORD 'a visitor'");
    admin.run("SELECT 'the admins secret'");
    let home = tempfile::Builder::new().prefix("watershed-browser-").tempdir().expect("a folder");
    let mut browser = Browser::start(home.path());
    browser.open(&format!("http://127.0.0.1:{}/", instance.http_port()));
    log_in(&mut browser, "visitor", "a visitor");
    browser.until("the board", "!document.getElementById('board').hidden");
    browser.until("statements", "document.querySelectorAll('#live tbody tr').length > 1");
    assert!(!browser.text("body").contains("secret"), "{}", browser.text("body"));
    ask(&mut browser, "SELECT count(*) FROM logs", "#box button[type=submit]");
    assert!(browser.text("#answer").contains("42501"), "{}", browser.text("#answer"));
    // The role is gone, and with it what it could do.
    admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'visitor'");
    browser.until("the end", "!document.getElementById('entrance').hidden");
}
