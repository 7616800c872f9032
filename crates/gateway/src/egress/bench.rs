//! A door for the package `benches`: callers over streams that are no sockets, and a request's preparation alone.
//!
//! Owns nothing that the product uses; compiled only with the feature `bench`.

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Core, Egress,
    callers::Peer,
    headers, path,
    route::{self, Asked},
    service::check_form,
};

impl Egress {
    /// Serves one caller over this stream as the first worker would, until it leaves. To be spawned.
    pub fn serve_stream<S>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.acceptor.servers[0].clone().serve(stream, Peer::Unix(None))
    }
}

/// What is done to each request's header before the pool is asked, without the records about it: survey, form,
/// route, target, fields of this hop. False if it would be refused.
#[must_use]
pub fn prepare<B>(core: &Core, request: &mut Request<B>) -> bool {
    let found = headers::survey(request.headers());
    if found.bytes > core.limits.max_header_bytes || check_form(request, found.upgrade).is_err() {
        return false;
    }
    let Some(index) = route::find(&core.routes, Asked::of(request)) else { return false };
    let route = &core.routes[index];
    let upstream = &core.upstreams[route.environment];
    let asked = request.uri().path_and_query();
    let stripped = route.strip_prefix.as_deref().map_or(0, str::len);
    let target =
        asked.and_then(|path| path::target(&upstream.authority, &upstream.base_path, stripped, path));
    let Some(target) = target else { return false };
    *request.uri_mut() = target;
    headers::to_provider(request.headers_mut(), found, core.client_headers);
    true
}
