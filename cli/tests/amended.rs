//! Clusters of before: what their bookkeeping of migrations says, and that they start as ever.

mod support;

use support::instance::{Instance, Options};
use support::wire::Client;

/// A cluster that was made before a migration was amended for newer servers starts as ever.
#[test]
fn amended_migrations_are_accepted() {
    let instance = Instance::start(Options::on_demand());
    let checksum = "SELECT encode(checksum, 'hex') FROM watershed_migrations.applied WHERE version = 5";
    let mut admin = Client::connect(&instance.admin());
    let now = admin.value(checksum);
    let before = "00f9c4dcfd8a0d979a75b0d06c8cd0450cf2de3c4d784dcba4352df67cd3d63bf251510b949ed15553f5a250fecac903";
    assert_ne!(now, before);
    admin.run(&format!("UPDATE watershed_migrations.applied SET checksum = decode('{before}', 'hex') WHERE version = 5"));
    drop(admin);
    instance.terminate();
    instance.restart();
    assert_eq!(Client::connect(&instance.admin()).value(checksum), now);
}
