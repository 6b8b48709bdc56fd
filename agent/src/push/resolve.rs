//! A host name in, the addresses of it that a tenant may have out.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use sluice_engine::loki;

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    /// There is no such name, or nobody who knows it.
    #[error("the name does not resolve")]
    NotFound,
    /// All its addresses are such as a tenant may not have.
    #[error("the address is not allowed")]
    NotAllowed,
}

/// Resolves the name of one tenant's server, checking each time: names are not to be trusted to stay.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Every address is allowed.
    pub(super) allow_local: bool,
    /// What to look up in place of the name that TLS shows.
    pub(super) host: String,
}

/// Whether an address may be connected to.
pub(super) fn is_allowed(address: IpAddr, allow_local: bool) -> bool {
    allow_local || loki::is_allowed_address(address)
}

impl Resolve for Resolver {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.host.clone();
        let allow_local = self.allow_local;
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map_err(|_| ResolveError::NotFound)?;
            let found: Vec<SocketAddr> = found.collect();
            let any = !found.is_empty();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| is_allowed(address.ip(), allow_local)).collect();
            match (allowed.is_empty(), any) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, true) => Err(ResolveError::NotAllowed.into()),
                (true, false) => Err(ResolveError::NotFound.into()),
            }
        })
    }
}
