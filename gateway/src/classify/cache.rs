//! Classified texts by text, and their shapes by what texts share that differ in literals only; bounded. A change of the
//! catalog empties it. ✗ classification.

use super::{Classified, Names, Shape, classify, shape};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Texts and shapes kept, each; how long all of either may be, and the longest one worth keeping, in bytes.
const KEPT: usize = 4_096;
const KEPT_BYTES: usize = 8 * 1024 * 1024;
const LONGEST: usize = 16 * 1024;

/// Shared by all sessions of a gateway.
#[derive(Debug, Default)]
pub struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    generation: u64,
    texts: HashMap<Arc<str>, Arc<Classified>>,
    text_bytes: usize,
    shapes: HashMap<Box<[u8]>, Arc<Shape>>,
    shape_bytes: usize,
}

thread_local! {
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Cache {
    /// Classifies `sql` under the names of catalog generation `generation`.
    pub fn get(&self, sql: &str, generation: u64, names: &Names) -> Arc<Classified> {
        KEY.with_borrow_mut(|key| {
            let general = shape::key(sql, key);
            {
                let mut inner = self.inner.lock();
                if inner.generation != generation {
                    *inner = Inner { generation, ..Inner::default() };
                }
                if general {
                    if let Some(shape) = inner.shapes.get(key.as_slice()) {
                        let shape = shape.clone();
                        drop(inner);
                        return Arc::new(Classified { sql: sql.into(), shape });
                    }
                }
                if let Some(c) = inner.texts.get(sql) {
                    return c.clone();
                }
            }
            let c = Arc::new(classify(sql, names));
            let mut inner = self.inner.lock();
            if inner.generation == generation {
                // Starting over is rare, cheap, and needs no bookkeeping at each hit.
                if general && c.is_general() {
                    if inner.shapes.len() >= KEPT || inner.shape_bytes + key.len() > KEPT_BYTES {
                        inner.shapes.clear();
                        inner.shape_bytes = 0;
                    }
                    // Another session may have had the same thought.
                    if inner.shapes.insert(key.as_slice().into(), c.shape.clone()).is_none() {
                        inner.shape_bytes += key.len();
                    }
                } else if sql.len() <= LONGEST {
                    if inner.texts.len() >= KEPT || inner.text_bytes + c.sql.len() > KEPT_BYTES {
                        inner.texts.clear();
                        inner.text_bytes = 0;
                    }
                    if inner.texts.insert(c.sql.clone(), c.clone()).is_none() {
                        inner.text_bytes += c.sql.len();
                    }
                }
            }
            c
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Kind, NameKind};

    #[test]
    fn texts_share_a_shape_and_keep_themselves() {
        let cache = Cache::default();
        let names: Names = [("logs".to_string(), NameKind::Tiered)].into();
        let a = cache.get("SELECT * FROM logs WHERE id = 1", 1, &names);
        let b = cache.get("SELECT * FROM logs WHERE id = 22", 1, &names);
        assert!(Arc::ptr_eq(&a.shape, &b.shape));
        assert_eq!(&*b.sql, "SELECT * FROM logs WHERE id = 22");
        assert!(matches!(b.kind, Kind::Keyed(_)));
        // What holds some of its text is found by its text alone.
        let c = cache.get("EXPLAIN SELECT count(*) FROM logs WHERE id = 1", 1, &names);
        let d = cache.get("EXPLAIN SELECT count(*) FROM logs WHERE id = 2", 1, &names);
        assert_eq!(c.kind, Kind::Explain("SELECT count(*) FROM logs WHERE id = 1".into()));
        assert_eq!(d.kind, Kind::Explain("SELECT count(*) FROM logs WHERE id = 2".into()));
        // Another catalog, another meaning.
        let e = cache.get("SELECT * FROM logs WHERE id = 22", 2, &Names::new());
        assert!(matches!(e.kind, Kind::Relay(_)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (cache, names) = (Cache::default(), Names::default());
        let held = |cache: &Cache| {
            let inner = cache.inner.lock();
            assert_eq!(inner.text_bytes, inner.texts.keys().map(|sql| sql.len()).sum::<usize>());
            assert_eq!(inner.shape_bytes, inner.shapes.keys().map(|key| key.len()).sum::<usize>());
            assert!(inner.texts.len() <= KEPT && inner.shapes.len() <= KEPT);
            assert!(inner.text_bytes <= KEPT_BYTES && inner.shape_bytes <= KEPT_BYTES);
            (inner.texts.len(), inner.shapes.len())
        };
        let get = |sql: &str| cache.get(sql, 1, &names);
        assert!(Arc::ptr_eq(&get("SELECT a -- note"), &get("SELECT a -- note")));
        let (mut texts, mut shapes) = (0, 0);
        for n in 0..KEPT + 10 {
            get(&format!("SELECT a{n} -- note"));
            get(&format!("SELECT a{n} + 1"));
            texts = texts.max(held(&cache).0);
            shapes = shapes.max(held(&cache).1);
        }
        assert_eq!((texts, shapes), (KEPT, KEPT));
        let long = "x".repeat(LONGEST - 40);
        for n in 0..KEPT_BYTES / LONGEST + 10 {
            get(&format!("SELECT {long}{n} -- note"));
            get(&format!("SELECT {long}{n} + 1"));
            held(&cache);
        }
        let before = held(&cache);
        get(&format!("SELECT '{long}{long}' -- note"));
        assert_eq!(held(&cache), before);
        cache.get("SELECT a -- note", 2, &names);
        assert_eq!(held(&cache), (1, 0));
    }
}
