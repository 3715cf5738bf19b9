//! Classified texts by text, bounded. A change of the catalog empties it. ✗ classification.

use super::{Classified, Names, classify};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Texts kept, and the longest one worth keeping, in bytes.
const KEPT: usize = 4_096;
const LONGEST: usize = 16 * 1024;

/// Shared by all sessions of a gateway.
#[derive(Debug, Default)]
pub struct Cache {
    inner: Mutex<(u64, HashMap<Arc<str>, Arc<Classified>>)>,
}

impl Cache {
    /// Classifies `sql` under the names of catalog generation `generation`.
    pub fn get(&self, sql: &str, generation: u64, names: &Names) -> Arc<Classified> {
        {
            let mut inner = self.inner.lock();
            if inner.0 != generation {
                *inner = (generation, HashMap::new());
            }
            if let Some(c) = inner.1.get(sql) {
                return c.clone();
            }
        }
        let c = Arc::new(classify(sql, names));
        if sql.len() <= LONGEST {
            let mut inner = self.inner.lock();
            if inner.0 == generation {
                // Starting over is rare, cheap, and needs no bookkeeping at each hit.
                if inner.1.len() >= KEPT {
                    inner.1.clear();
                }
                inner.1.insert(c.sql.clone(), c.clone());
            }
        }
        c
    }
}
