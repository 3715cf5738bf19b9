//! The cluster's settings, from the machine's memory and the number of sessions it must serve. Pure but for
//! a look at the size of shared memory.

use std::path::Path;

/// What `watershed.conf` is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bytes of memory of the machine.
    pub memory: u64,
    /// Client sessions of the gateway; each has one connection.
    pub sessions: usize,
    /// Bytes; None: an eighth of the memory.
    pub shared_buffers: Option<u64>,
    /// ICU's name of the language by which texts are sorted and folded in a new cluster; None: by code points (C.UTF-8).
    pub icu_locale: Option<String>,
    /// The data directory, which clients can ask for as `watershed.data_dir`.
    pub data_dir: String,
    /// Whether dynamic shared memory must be files: /dev/shm is too small (containers give it 64 MiB).
    pub small_shm: bool,
    /// Whether the server was built with lz4, which costs a fraction of what its own compression does.
    pub lz4: bool,
}

/// Connections beside the sessions: services, people with psql on the cluster itself, and PostgreSQL's reserve.
const OTHER_CONNECTIONS: usize = 50;
const MIB: u64 = 1 << 20;

impl Settings {
    /// The file's text.
    pub fn print(&self, port: u16, socket_dir: &Path) -> String {
        let shared_buffers =
            self.shared_buffers.unwrap_or_else(|| (self.memory / 8).clamp(128 * MIB, 8192 * MIB));
        let connections = self.sessions + OTHER_CONNECTIONS;
        let mib = |bytes: u64| format!("{}MB", bytes / MIB);
        let mut lines = vec![
            ("listen_addresses", "'127.0.0.1'".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", quote(&socket_dir.display().to_string())),
            ("unix_socket_permissions", "0700".into()),
            ("password_encryption", "'scram-sha-256'".into()),
            ("max_connections", connections.to_string()),
            // A statement over a tiered table locks each of its day partitions and their indexes.
            ("max_locks_per_transaction", "1024".into()),
            ("max_prepared_transactions", connections.to_string()),
            ("fsync", "on".into()),
            ("full_page_writes", "on".into()),
            ("synchronous_commit", "on".into()),
            ("shared_buffers", mib(shared_buffers)),
            ("effective_cache_size", mib((self.memory / 2).max(256 * MIB))),
            ("work_mem", mib((self.memory / 512).clamp(8 * MIB, 64 * MIB))),
            ("maintenance_work_mem", mib((self.memory / 32).clamp(64 * MIB, 1024 * MIB))),
            ("wal_compression", if self.lz4 { "lz4" } else { "on" }.into()),
            ("max_wal_size", "4GB".into()),
            ("min_wal_size", "256MB".into()),
            ("checkpoint_timeout", "15min".into()),
            ("checkpoint_completion_target", "0.9".into()),
            ("random_page_cost", "1.1".into()),
            // With many partitions, compiling a plan takes longer than running it.
            ("jit", "off".into()),
            ("timezone", "'UTC'".into()),
            ("log_timezone", "'UTC'".into()),
            ("log_line_prefix", "'%m [%p] %q%u@%d '".into()),
            ("log_checkpoints", "off".into()),
            ("watershed.data_dir", quote(&self.data_dir)),
        ];
        if self.small_shm {
            lines.push(("dynamic_shared_memory_type", "'mmap'".into()));
        }
        let mut text = String::from(
            "# Written by watershed at each start; change settings with ALTER SYSTEM instead.\n",
        );
        for (name, value) in lines {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text
    }

    /// Whether /dev/shm is too small for parallel queries.
    pub fn shm_is_small() -> bool {
        nix::sys::statvfs::statvfs("/dev/shm")
            .is_ok_and(|space| u64::from(space.blocks()).saturating_mul(space.fragment_size()) < 256 * MIB)
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
