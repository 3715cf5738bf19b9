//! Notices come at the client's level, and no setting of the session's is changed.

use super::*;

#[test]
fn notices_come_at_the_clients_own_level() {
    table("noisy");
    owner().run(
        "CREATE FUNCTION noise(int4) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$ BEGIN
           RAISE DEBUG 'noise debug %', $1; RAISE LOG 'noise log %', $1; RAISE INFO 'noise info %', $1;
           RAISE NOTICE 'noise notice %', $1; RAISE WARNING 'noise warning %', $1; RETURN true; END $$",
    );
    owner().run("CREATE DOMAIN noisy_value AS int4 CHECK (noise(VALUE))");
    let statements = [
        "SELECT count(*) FROM noisy WHERE a < 3 AND noise(a)",
        "SELECT count(*) FROM noisy WHERE a = ANY ('{1,2}'::noisy_value[]::int4[])",
        "SELECT count(*) FROM noisy",
        "SELECT noise(1)",
        "SELECT count(*) FROM noisy WHERE no_such_column",
    ];
    for level in ["debug5", "debug1", "log", "notice", "warning", "error"] {
        let (mut direct, mut gateway) = (direct(), owner());
        same_script(&mut direct, &mut gateway, &[&format!("SET client_min_messages = {level}")]);
        // PostgreSQL's own debugging chatter is not the same twice.
        let own = |reply: Reply| Reply {
            frames: reply
                .frames
                .into_iter()
                .filter(|frame| frame.tag != b'N' || frame.fields()[&'M'].starts_with("noise"))
                .collect(),
        };
        for sql in statements {
            let (expected, actual) = (own(direct.query(sql)), own(gateway.query(sql)));
            assert_same(&format!("{sql} at {level}"), &expected, &actual);
            let bytes = [extended(sql), frontend::sync()].concat();
            direct.send(&bytes);
            gateway.send(&bytes);
            let (expected, actual) = (own(direct.reply()), own(gateway.reply()));
            assert_same(&format!("{sql} at {level}, extended"), &expected, &actual);
        }
        let (expected, actual) =
            (direct.value("SHOW client_min_messages"), gateway.value("SHOW client_min_messages"));
        assert_eq!(expected, actual);
    }
}

#[test]
fn a_probe_leaves_no_setting_changed() {
    table("settled");
    let show = "SELECT current_setting('client_min_messages'), current_setting('log_min_messages'), current_setting('debug_print_rewritten'), current_setting('debug_pretty_print'), current_setting('debug_print_parse'), current_setting('TimeZone'), current_setting('search_path'), current_setting('statement_timeout'), current_setting('transaction_isolation'), current_user, session_user";
    let lake = "SELECT count(*) FROM settled";
    let unproven = "SELECT jsonb_agg(a) FROM settled";
    let broken = "SELECT count(*) FROM settled WHERE no_such_column = 1";
    let fails_late = "SELECT count(*) FROM settled WHERE a / (a - a) = 1";
    let script = [
        show,
        lake,
        show,
        unproven,
        show,
        broken,
        show,
        fails_late,
        show,
        "SET client_min_messages = warning",
        show,
        lake,
        show,
        "BEGIN",
        show,
        lake,
        show,
        "SET LOCAL client_min_messages = error",
        lake,
        show,
        broken,
        show,
        "ROLLBACK",
        show,
        "BEGIN",
        "SAVEPOINT one",
        lake,
        broken,
        "ROLLBACK TO one",
        show,
        lake,
        show,
        "SET LOCAL debug_pretty_print = off",
        lake,
        show,
        "COMMIT",
        show,
        "BEGIN",
        fails_late,
        show,
        "COMMIT",
        show,
        lake,
        show,
        "BEGIN",
        unproven,
        show,
        "SAVEPOINT two",
        fails_late,
        "ROLLBACK TO two",
        show,
        lake,
        show,
        "RELEASE two",
        show,
        "COMMIT",
        show,
        "SET debug_print_rewritten = off",
        "RESET client_min_messages",
        lake,
        show,
        "BEGIN",
        "SET client_min_messages = warning",
        lake,
        "ROLLBACK",
        show,
        "BEGIN",
        "SET client_min_messages = warning",
        lake,
        "COMMIT",
        show,
        "RESET ALL",
        show,
    ];
    same_script(&mut direct(), &mut owner(), &script);

    // A superuser may change what the gateway has to lower and restore itself.
    let (mut direct, mut gateway) = (admin(), Client::connect(&instance().admin_through_gateway()));
    let log_level = "SHOW log_min_messages";
    same_script(
        &mut direct,
        &mut gateway,
        &[
            lake,
            log_level,
            "SET log_min_messages = error",
            lake,
            log_level,
            "BEGIN",
            log_level,
            lake,
            log_level,
            "SET LOCAL log_min_messages = notice",
            lake,
            log_level,
            "COMMIT",
            log_level,
            lake,
            log_level,
            "RESET log_min_messages",
            log_level,
        ],
    );
}

#[test]
fn odd_output_settings_are_obeyed() {
    table("styled");
    let sql = "SELECT date_trunc('day', ts), count(*), avg(a) FROM styled GROUP BY 1 ORDER BY 1 LIMIT 5";
    let (mut direct, mut gateway) = (direct(), owner());
    for setting in [
        "SET DateStyle = 'SQL, DMY'",
        "SET DateStyle = 'German'",
        "SET DateStyle = 'Postgres'",
        "RESET DateStyle",
        "SET client_encoding = 'LATIN1'",
        "SET client_encoding = 'UTF8'",
        "SET TimeZone = 'Australia/Lord_Howe'",
        "SET TimeZone = '+03:30'",
        "SET TimeZone = 'posix/America/Havana'",
        "SET TimeZone = 'EST5EDT'",
        "SET TimeZone = '<WAT>-7'",
        "SET IntervalStyle = 'iso_8601'",
        "SET transform_null_equals = on",
        "SET row_security = off",
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_read_only = on",
        "SET standard_conforming_strings = off",
        "SET enable_partition_pruning = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET quote_all_identifiers = on",
        "SET array_nulls = off",
        "SET backslash_quote = on",
        "SET extra_float_digits = -3",
    ] {
        same_script(&mut direct, &mut gateway, &[setting, sql, "SELECT count(*) FROM styled WHERE t = NULL"]);
        let frames = [extended(sql), frontend::sync()];
        same_frames(&mut direct, &mut gateway, setting, &frames, 1);
    }
}
