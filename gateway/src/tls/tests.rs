use super::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Runs the openssl program in `dir`.
fn openssl(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `NAME.crt` and `NAME.key`, signed by itself.
fn certificate(dir: &Path, name: &str, kind: &str) {
    openssl(
        dir,
        &format!(
            "req -x509 -newkey {kind} -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt"
        ),
    );
    fs::set_permissions(dir.join(format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
}

fn settings(dir: &Path, name: &str) -> Settings {
    Settings {
        cert: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
        client_ca: None,
        client_certificate_optional: false,
    }
}

#[test]
fn the_end_point_is_the_hash_that_the_signature_names() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, kind, hash) in [
        ("rsa", "rsa:2048 -sha256", "-sha256"),
        ("rsa512", "rsa:2048 -sha512", "-sha512"),
        ("sha1", "rsa:2048 -sha1", "-sha256"),
        ("ec", "ec -pkeyopt ec_paramgen_curve:P-256 -sha256", "-sha256"),
        ("ec384", "ec -pkeyopt ec_paramgen_curve:P-384 -sha384", "-sha384"),
    ] {
        certificate(dir, name, kind);
        openssl(dir, &format!("x509 -in {name}.crt -outform DER -out {name}.der"));
        openssl(dir, &format!("dgst {hash} -binary -out {name}.hash {name}.der"));
        let loaded = Tls::load(settings(dir, name)).unwrap();
        assert_eq!(
            loaded.current().end_point,
            Some(fs::read(dir.join(format!("{name}.hash"))).unwrap()),
            "{name}"
        );
    }
    for (name, kind) in [("ed", "ed25519"), ("pss", "rsa:2048 -sha256 -sigopt rsa_padding_mode:pss")] {
        certificate(dir, name, kind);
        assert_eq!(Tls::load(settings(dir, name)).unwrap().current().end_point, None, "{name}");
    }
    for cut in [
        &b""[..],
        b"\x30",
        b"\x30\x84",
        b"\x30\x85\x01\x01\x01\x01\x01",
        b"\x30\x03\x30\x01\x00",
        b"\x30\xff",
    ] {
        assert_eq!(end_point(cut), None, "{cut:?}");
    }
}

#[test]
fn files_that_are_wrong_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    certificate(dir, "one", "ec -pkeyopt ec_paramgen_curve:P-256");
    certificate(dir, "two", "ec -pkeyopt ec_paramgen_curve:P-256");
    let tls = Tls::load(settings(dir, "one")).unwrap();
    let first = tls.current();
    let copy = |from: &str, to: &str| fs::copy(dir.join(from), dir.join(to)).unwrap();
    let refused = |says: &str| {
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(Arc::ptr_eq(&first, &tls.current()), "{says}");
    };
    copy("one.crt", "kept.crt");
    copy("one.key", "kept.key");
    // The certificate is there before its key.
    copy("two.crt", "one.crt");
    refused("do not go together");
    fs::write(dir.join("one.crt"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    refused("one.crt");
    fs::write(dir.join("one.crt"), "nothing").unwrap();
    refused("no certificate");
    fs::remove_file(dir.join("one.crt")).unwrap();
    refused("cannot be read");
    copy("kept.crt", "one.crt");
    fs::set_permissions(dir.join("one.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(dir.join("one.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(
        dir.join("one.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    refused("without a passphrase");
    // Both are there.
    copy("two.crt", "one.crt");
    copy("two.key", "one.key");
    tls.reload().unwrap();
    assert_ne!(tls.current().end_point, first.end_point);

    let mut with_ca = settings(dir, "two");
    with_ca.client_ca = Some(dir.join("kept.crt"));
    Tls::load(with_ca.clone()).unwrap();
    with_ca.client_ca = Some(dir.join("two.key"));
    assert!(Tls::load(with_ca).unwrap_err().to_string().contains("no certificate"));
}
