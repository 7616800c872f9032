//! The state that every request needs: environments, routes, limits. Made once, never changed.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderName, uri::Authority};
use pool::Pool;

use super::{callers::Callers, headers::ClientHeaders};
use crate::{
    config::{CallerTimeouts, Limits, Route},
    outcome::ErrorCode,
};

/// One environment, ready for requests.
pub struct Upstream {
    /// Name, as configured.
    pub name: String,
    /// `:authority` of requests: the endpoint's host, with the port unless it is 443.
    pub authority: Authority,
    /// Put before every path; empty or without a slash at its end.
    pub base_path: String,
    /// Its connections, or why it has none.
    pub pool: Result<Pool, Refusal>,
    /// Time limits of requests that name the environment instead of a route.
    pub timeouts: pool::Timeouts,
}

/// Why an environment serves nothing.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The code its requests get.
    pub code: ErrorCode,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// What every request needs.
pub struct Core {
    /// Environments, in the order of the configuration.
    pub upstreams: Vec<Upstream>,
    /// Routes, in the order of the configuration.
    pub routes: Vec<Route>,
    /// Bounds on callers.
    pub limits: Limits,
    /// Time limits on callers.
    pub caller_timeouts: CallerTimeouts,
    /// What becomes of `Forwarded`-style headers.
    pub client_headers: ClientHeaders,
    /// Header in which callers give their deadline, in milliseconds. Default none.
    pub deadline_header: Option<HeaderName>,
    /// Callers by name. Default none.
    pub callers: Callers,
    stopping: AtomicBool,
}

impl Core {
    /// Puts the parts together; what has a default keeps it.
    #[must_use]
    pub fn new(
        upstreams: Vec<Upstream>,
        routes: Vec<Route>,
        limits: Limits,
        caller_timeouts: CallerTimeouts,
        client_headers: ClientHeaders,
    ) -> Self {
        Self {
            upstreams,
            routes,
            limits,
            caller_timeouts,
            client_headers,
            deadline_header: None,
            callers: Callers::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on the gateway is on its way out.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
