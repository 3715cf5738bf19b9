use super::ask::{only_reads, verdict};
use super::client::{Answer, ClientError};
use super::sessions::{Limits, Sessions, is_over, same, secret};
use super::*;
use axum::body::Body;
use axum::http::Request;
use tower_service::Service;

#[test]
fn the_box_takes_what_reads() {
    for sql in [
        "SELECT 1",
        "  select 1",
        "/* watershed: lake */ SELECT 1",
        "/* a /* nested */ one */ -- and a line\n (SELECT 1)",
        "WITH x AS (SELECT 1) TABLE x",
        "values (1)",
        "SHOW all",
        "EXPLAIN SELECT 1",
    ] {
        assert!(only_reads(sql), "{sql}");
    }
    for sql in [
        "", "-- SELECT", "/* SELECT", "COMMIT", "COPY (SELECT 1) TO PROGRAM 'x'", "SET x = 1", "BEGIN", "DO $$ $$", "CALL p()", "LISTEN x",
        "PREPARE a AS SELECT 1", "SELECTED", "é", "DELETE FROM logs",
    ] {
        assert!(!only_reads(sql), "{sql}");
    }
}

#[test]
fn verdicts_say_what_can_be_said() {
    let of = |rows: &[&str], more| Answer {
        columns: vec![("a".into(), 25)],
        rows: rows.iter().map(|r| vec![Some((*r).to_owned())]).collect(),
        tag: format!("SELECT {}", rows.len()),
        more,
    };
    assert_eq!(verdict(&of(&["1", "2"], false), &of(&["1", "2"], false)), "equal");
    assert_eq!(verdict(&of(&["1", "2"], false), &of(&["2", "1"], false)), "equal, in another order");
    assert_eq!(verdict(&of(&["1", "2"], false), &of(&["1", "3"], false)), "the rows differ");
    assert_eq!(verdict(&of(&["1", "2"], true), &of(&["1", "2"], true)), "equal, as far as rows are shown");
    assert!(verdict(&of(&["1", "2"], true), &of(&["1", "3"], true)).starts_with("not told"));
    let other = Answer { columns: vec![("a".into(), 23)], ..of(&["1"], false) };
    assert_eq!(verdict(&of(&["1"], false), &other), "the columns differ");
}

#[test]
fn sessions_end_when_unused_and_in_any_case() {
    let limits = Limits::default();
    let s = Duration::from_secs;
    assert!(!is_over(&limits, s(60), s(60), 0));
    assert!(is_over(&limits, s(3600), limits.idle, 0), "unused");
    assert!(!is_over(&limits, s(3600), limits.idle, 1), "somebody looks at it");
    assert!(is_over(&limits, limits.age, s(0), 1), "too old, whatever it does");
    assert_ne!(secret(), secret());
    assert!(same("a", "a") && !same("a", "b") && !same("", "b"));
}

#[test]
fn guessing_is_slow() {
    let sessions = Sessions::new(Limits { failures: 3, pause: Duration::from_secs(3600), ..Limits::default() });
    let wrong = ClientError::Server { sqlstate: "28P01".into(), message: "no".into(), detail: None, hint: None };
    let busy = ClientError::Server { sqlstate: "53300".into(), message: "no".into(), detail: None, hint: None };
    for _ in 0..10 {
        sessions.failed(&busy);
    }
    for _ in 0..3 {
        assert!(sessions.may_try());
        sessions.failed(&wrong);
    }
    assert!(!sessions.may_try());
}

/// Script and style are what the policy names by digest, and nothing in the markup would be let run beside them.
#[test]
fn the_page_is_whole_and_brings_nothing_from_outside() {
    let (page, policy, sources) = page::parts();
    assert!(!page.contains("/*STYLE*/") && !page.contains("/*SCRIPT*/"));
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("<style").count(), 1);
    assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"));
    let markup = sources[0];
    for word in [" style=", " onclick", " onload", " onerror", " src=", " href=", "http:", "https:", "//"] {
        assert!(!markup.contains(word), "the markup has {word}");
    }
    for script in &sources[2..] {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "</script", "setAttribute(\"style\""] {
            assert!(!script.contains(word), "a script has {word}");
        }
    }
}

#[test]
fn cookies_and_origins_are_read_as_browsers_send_them() {
    let of = |pairs: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    };
    let headers = of(&[("cookie", "a=1; watershed_84320=no; watershed_8432=yes")]);
    assert_eq!(cookie(&headers, "watershed_8432"), Some("yes"));
    assert_eq!(cookie(&headers, "watershed_1"), None);
    assert!(is_own(&of(&[])));
    assert!(is_own(&of(&[("origin", "http://localhost:8432"), ("host", "localhost:8432"), ("sec-fetch-site", "same-origin")])));
    assert!(!is_own(&of(&[("origin", "http://evil.example"), ("host", "localhost:8432")])));
    assert!(!is_own(&of(&[("sec-fetch-site", "same-site")])));
    assert!(!is_own(&of(&[("origin", "null"), ("host", "localhost:8432")])));
    assert!(!is_own(&of(&[("origin", "http://localhost:8432")])));
}

async fn ask_router(router: &mut Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = router.call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

/// What is asked without a login, from elsewhere, or of a server that is not there.
#[tokio::test]
async fn nobody_comes_in_without_a_login() {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let mut config = Config::new(nowhere, "watershed", Onlookers::default());
    config.trusted_users = vec!["trusted".into()];
    let stop = CancellationToken::new();
    let mut router = router(config.clone(), 8432, stop.clone());
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let post = |path: &str, body: &str| {
        Request::post(path).header("content-type", "application/json").body(Body::from(body.to_owned())).unwrap()
    };
    let (status, headers, body) = ask_router(&mut router, get("/status")).await;
    assert_eq!(status, 200);
    assert!(body.contains("<title>Watershed</title>"));
    for name in ["content-security-policy", "x-frame-options", "x-content-type-options", "cache-control", "referrer-policy"] {
        assert!(headers.contains_key(name), "{name}");
    }
    for path in ["/status/session", "/status/events"] {
        assert_eq!(ask_router(&mut router, get(path)).await.0, 401, "{path}");
    }
    for path in ["/status/query", "/status/compare", "/status/logout"] {
        assert_eq!(ask_router(&mut router, post(path, "{\"sql\": \"SELECT 1\"}")).await.0, 401, "{path}");
    }
    let (status, _, body) = ask_router(&mut router, post("/status/login", "{\"user\": \"trusted\", \"password\": \"\"}")).await;
    assert_eq!(status, 403);
    assert!(body.contains("asks for no password"), "{body}");
    let mut elsewhere = post("/status/login", "{\"user\": \"a\", \"password\": \"b\"}");
    elsewhere.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
    assert_eq!(ask_router(&mut router, elsewhere).await.0, 403);
    assert_eq!(ask_router(&mut router, post("/status/login", "{}")).await.0, 400);
    // Nobody listens there: ten tries, and then a pause.
    let login = || post("/status/login", "{\"user\": \"a\", \"password\": \"b\"}");
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(ask_router(&mut router, login()).await.0.as_u16());
    }
    assert!(statuses.starts_with(&[403; 10]) && statuses.contains(&429), "{statuses:?}");
    stop.cancel();

    config.in_the_clear = false;
    let mut far = super::router(config, 8432, CancellationToken::new());
    let (status, _, body) = ask_router(&mut far, login()).await;
    assert_eq!(status, 403);
    assert!(body.contains("in the clear"), "{body}");
    let mut proxied = login();
    proxied.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("https"));
    assert!(!ask_router(&mut far, proxied).await.2.contains("in the clear"));
}
