//! Owns the server's session memory: bounded, and replaced when trust is withdrawn, because a resumed
//! handshake does not look at certificates again.

use std::sync::Arc;

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// Room for a few hundred connections with twenty tickets each.
const CAPACITY: usize = 8192;

/// Sessions that can be resumed.
#[derive(Debug)]
pub(crate) struct Sessions(Arc<ServerSessionMemoryCache>);

impl Sessions {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(ServerSessionMemoryCache::new(CAPACITY)))
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Says that it remembers, so that tickets are sent, and does not.
#[derive(Debug)]
pub(super) struct Amnesia;

impl StoresServerSessions for Amnesia {
    fn put(&self, _key: Vec<u8>, _value: Vec<u8>) -> bool {
        true
    }

    fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}
