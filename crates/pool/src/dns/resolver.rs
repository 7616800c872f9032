//! Asking for the addresses of a name: the hosts file, then DNS as `/etc/resolv.conf` says.
//!
//! One question at a time, nothing kept: what an answer means and how long it lasts is `answers`. Both files are read
//! anew for each question (off the runtime's threads), so that a change of them needs no restart.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::answers::{Answer, Family, ResolveError};

/// Where the system says which name servers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long the hosts file is believed: it has no TTL of its own.
const HOSTS_TTL: Duration = Duration::from_secs(30);
/// Longest wait for one name server, so that a second can be asked within a dial's time.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the half of an answer that came first waits for the other (RFC 8305 §3, Resolution Delay).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long "no such name" is believed if the answer does not say.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// Who hears the half of an answer that comes long before the other, once.
pub(crate) type Early = oneshot::Sender<Answer>;

/// Asks for the addresses of a name.
pub(crate) trait Resolve: Send + Sync + 'static {
    /// One question, asked now. Where one family is answered and the other is slow to, `early` hears the half that
    /// is there; the whole answer, that half included, is returned when the other has come too.
    ///
    /// # Cancel safety
    /// Dropping it gives up what has not come.
    fn resolve(&self, host: &str, early: Early) -> impl Future<Output = Result<Answer, ResolveError>> + Send;
}

/// The resolver of the system, or of a list of name servers.
pub(crate) struct SystemResolver {
    servers: Vec<SocketAddr>,
    /// Made from these bytes of `/etc/resolv.conf`; made anew when they differ.
    made: Mutex<Option<(Vec<u8>, Arc<Made>)>>,
}

/// A resolver and how names are completed.
struct Made {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
}

impl SystemResolver {
    /// Asks `servers`, or those of the system if there are none.
    pub(crate) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, made: Mutex::new(None) }
    }

    /// Reads the files as they are now.
    async fn read(&self) -> Result<(Hosts, io::Result<Vec<u8>>), ResolveError> {
        let wants_system = self.servers.is_empty();
        let read = move || {
            // Without a hosts file there are no static names.
            let hosts = Hosts::from_system().unwrap_or_default();
            let conf = if wants_system { std::fs::read(RESOLV_CONF) } else { Ok(Vec::new()) };
            (hosts, conf)
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| failed(e.to_string()))
    }

    /// The resolver for this `/etc/resolv.conf`.
    fn made(&self, conf: io::Result<Vec<u8>>) -> Result<Arc<Made>, ResolveError> {
        let conf = conf.map_err(|e| failed(format!("{RESOLV_CONF} cannot be read: {e}")))?;
        let mut kept = self.made.lock();
        if let Some((bytes, made)) = kept.as_ref()
            && *bytes == conf
        {
            return Ok(made.clone());
        }
        let made = self.make(&conf).map_err(|e| failed(format!("{RESOLV_CONF} is of no use: {e}")))?;
        let made = Arc::new(made);
        *kept = Some((conf, made.clone()));
        Ok(made)
    }

    fn make(&self, conf: &[u8]) -> Result<Made, NetError> {
        let (config, options) = if self.servers.is_empty() {
            system_conf(conf)?
        } else {
            let servers = self.servers.iter().map(|server| name_server(*server)).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        let (search, ndots) = (config.search().to_vec(), options.ndots);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        let options = builder.options_mut();
        // What is kept, and for how long, is decided by `answers`.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // The TTLs of aliases count too.
        options.preserve_intermediates = true;
        options.try_tcp_on_error = true;
        options.timeout = options.timeout.min(SERVER_TIMEOUT);
        Ok(Made { resolver: builder.build()?, search, ndots })
    }
}

#[cfg(target_os = "linux")]
fn system_conf(conf: &[u8]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    hickory_resolver::system_conf::parse_resolv_conf(conf)
}

/// Elsewhere the system has ways of its own; a change is noticed when the file changes.
#[cfg(not(target_os = "linux"))]
fn system_conf(_: &[u8]) -> Result<(ResolverConfig, ResolverOpts), NetError> {
    hickory_resolver::system_conf::read_system_conf()
}

fn name_server(at: SocketAddr) -> NameServerConfig {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = at.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    NameServerConfig::new(at.ip(), true, connections)
}

impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, early: Early) -> Result<Answer, ResolveError> {
        let (hosts, conf) = self.read().await?;
        let name = Name::from_utf8(host).map_err(|e| failed(format!("{host} is no name: {e}")))?;
        if let Some(answer) = in_hosts(&hosts, &name) {
            return Ok(answer);
        }
        let made = self.made(conf)?;
        let (mut first, mut early) = (None, Some(early));
        for name in completed(&name, &made.search, made.ndots) {
            match made.ask(&name, &mut early).await {
                Ok(answer) => return Ok(answer),
                // Who knows what would have been answered: that outweighs "no such name" elsewhere.
                Err(e @ ResolveError::Failed { .. }) => first = Some(e),
                Err(e) => {
                    first.get_or_insert(e);
                }
            }
        }
        Err(first.unwrap_or_else(|| failed(format!("{host} is no name that can be asked for"))))
    }
}

impl Made {
    /// Both families of one complete name.
    async fn ask(&self, name: &Name, early: &mut Option<Early>) -> Result<Answer, ResolveError> {
        // Even a cache of size 0 holds an entry for a moment.
        self.resolver.clear_cache();
        let half = |kind| {
            let lookup = self.resolver.lookup(name.clone(), kind);
            async move { addresses(lookup.await) }
        };
        both(half(RecordType::AAAA), half(RecordType::A), early).await
    }
}

/// Both halves of an answer. A good one never waits long for the other: who drops AAAA or A questions (some resolvers
/// and middleboxes do) must not hold back the addresses that are known.
async fn both(
    v6: impl Future<Output = Half>,
    v4: impl Future<Output = Half>,
    early: &mut Option<Early>,
) -> Result<Answer, ResolveError> {
    let (mut v6, mut v4) = (pin!(v6), pin!(v4));
    tokio::select! {
        biased;
        half = &mut v6 => {
            let other = other_half(&half, Family::V4, v4, early).await;
            joined(half, other)
        }
        half = &mut v4 => {
            let other = other_half(&half, Family::V6, v6, early).await;
            joined(other, half)
        }
    }
}

/// Waits for the other half; when that is slow, `early` hears the first, if it holds an address.
async fn other_half(
    first: &Half,
    silent: Family,
    mut other: Pin<&mut impl Future<Output = Half>>,
    early: &mut Option<Early>,
) -> Half {
    if let Ok((addresses, ttl)) = first
        && !addresses.is_empty()
    {
        if let Ok(half) = tokio::time::timeout(RESOLUTION_DELAY, other.as_mut()).await {
            return half;
        }
        let answer = Answer { addresses: addresses.clone(), ttl: *ttl, silent: Some(silent) };
        // Whoever does not listen any more has no use for it.
        let _ = early.take().map(|early| early.send(answer));
    }
    other.await
}

/// The addresses and shortest TTL of one family; an empty list where the name has none of it.
type Half = Result<(Vec<std::net::IpAddr>, Duration), ResolveError>;

fn addresses(lookup: Result<Lookup, NetError>) -> Half {
    let lookup = lookup.map_err(why)?;
    let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok((addresses, Duration::from_secs(u64::from(ttl))))
}

/// Both halves of an answer. One that failed leaves its family unknown; both must speak for "no address".
fn joined(v6: Half, v4: Half) -> Result<Answer, ResolveError> {
    let silent = match (&v6, &v4) {
        (Err(ResolveError::Failed { .. }), _) => Some(Family::V6),
        (_, Err(ResolveError::Failed { .. })) => Some(Family::V4),
        _ => None,
    };
    let mut answer = Answer { addresses: Vec::new(), ttl: Duration::MAX, silent };
    let mut error = None;
    for half in [v6, v4] {
        match half {
            Ok((addresses, ttl)) if !addresses.is_empty() => {
                answer.ttl = answer.ttl.min(ttl);
                answer.addresses.extend(addresses);
            }
            Ok((_, ttl)) => {
                let detail = "the name has no address".to_owned();
                error.get_or_insert(ResolveError::NoAddress { detail, ttl });
            }
            Err(e @ ResolveError::Failed { .. }) => error = Some(e),
            Err(e) => {
                error.get_or_insert(e);
            }
        }
    }
    match error {
        Some(error) if answer.addresses.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn why(error: NetError) -> ResolveError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let detail = match none.response_code {
                ResponseCode::NXDomain => "there is no such name (NXDOMAIN)".to_owned(),
                ResponseCode::NoError => "the name has no address".to_owned(),
                code => return failed(format!("the name server answered {code}")),
            };
            let ttl = none.negative_ttl.map_or(NEGATIVE_TTL, |ttl| Duration::from_secs(u64::from(ttl)));
            ResolveError::NoAddress { detail, ttl }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => failed(format!("the name server answered {code}")),
        NetError::Timeout => failed("no name server answered in time".to_owned()),
        NetError::Io(e) if e.kind() == io::ErrorKind::TimedOut => {
            failed("no name server answered in time".to_owned())
        }
        e => failed(e.to_string()),
    }
}

fn failed(detail: String) -> ResolveError {
    ResolveError::Failed { detail }
}

/// What the hosts file says. Where it names one family, DNS is not asked for the other.
fn in_hosts(hosts: &Hosts, name: &Name) -> Option<Answer> {
    let half = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let records = [half(RecordType::AAAA), half(RecordType::A)];
    let addresses: Vec<_> = records
        .iter()
        .flatten()
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()))
        .collect();
    (!addresses.is_empty()).then_some(Answer { addresses, ttl: HOSTS_TTL, silent: None })
}

/// The complete names that a name may stand for, in order, as resolv.conf(5) has it: with enough dots it is tried as
/// it is first, else after the search list. A final dot makes it complete.
fn completed(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let absolute = {
        let mut name = name.clone();
        name.set_fqdn(true);
        name
    };
    if name.is_fqdn() {
        return vec![absolute];
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let mut names: Vec<_> =
        search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    for name in &mut names {
        name.set_fqdn(true);
    }
    let place = if dots >= ndots { 0 } else { names.len() };
    names.insert(place, absolute);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_utf8(text).unwrap()
    }

    fn all(host: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let search: Vec<_> = search.iter().map(|domain| name(domain)).collect();
        completed(&name(host), &search, ndots).iter().map(Name::to_string).collect()
    }

    #[test]
    fn names_are_completed_as_resolv_conf_says() {
        assert_eq!(all("tmg.example", &["bank.internal"], 1), ["tmg.example.", "tmg.example.bank.internal."]);
        assert_eq!(all("proxy", &["bank.internal"], 1), ["proxy.bank.internal.", "proxy."]);
        assert_eq!(all("proxy.infra", &["svc"], 5), ["proxy.infra.svc.", "proxy.infra."]);
        assert_eq!(all("tmg.example.", &["bank.internal"], 5), ["tmg.example."]);
    }

    #[test]
    fn the_hosts_file_goes_first_and_speaks_for_both_families() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf("192.0.2.7 tmg.example\n2001:db8::7 six.example\n".as_bytes()).unwrap();
        let answer = in_hosts(&hosts, &name("tmg.example")).unwrap();
        assert_eq!(answer.addresses, ["192.0.2.7".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(answer.silent, None);
        assert_eq!(in_hosts(&hosts, &name("six.example")).unwrap().addresses.len(), 1);
        assert_eq!(in_hosts(&hosts, &name("other.example")), None);
    }

    #[tokio::test]
    async fn localhost_needs_no_name_server() {
        let nobody = "127.0.0.1:1".parse().unwrap();
        let early = oneshot::channel().0;
        let answer = SystemResolver::new(vec![nobody]).resolve("localhost", early).await.unwrap();
        assert!(answer.addresses.iter().all(std::net::IpAddr::is_loopback), "{answer:?}");
    }

    #[tokio::test]
    async fn what_is_no_name_is_said_to_be_none() {
        let early = oneshot::channel().0;
        let error = SystemResolver::new(Vec::new()).resolve("a..b", early).await.unwrap_err();
        assert!(error.to_string().contains("a..b is no name"), "{error}");
    }

    #[test]
    fn half_an_answer_says_which_half_is_missing() {
        let v4 = || -> Half { Ok((vec!["192.0.2.1".parse().unwrap()], Duration::from_secs(60))) };
        let none = || -> Half {
            Err(ResolveError::NoAddress { detail: "none".to_owned(), ttl: Duration::from_secs(9) })
        };
        assert_eq!(joined(none(), v4()).unwrap().silent, None);
        let half = joined(Err(failed("SERVFAIL".to_owned())), v4()).unwrap();
        assert_eq!((half.silent, half.ttl), (Some(Family::V6), Duration::from_secs(60)));
        assert!(matches!(joined(none(), none()), Err(ResolveError::NoAddress { .. })));
        // Who knows what the silent half would have said: that is no "no such name".
        assert_eq!(joined(none(), Err(failed("SERVFAIL".to_owned()))), Err(failed("SERVFAIL".to_owned())));
    }

    fn good(address: &str) -> Half {
        Ok((vec![address.parse().unwrap()], Duration::from_secs(60)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_half_waits_fifty_milliseconds_for_the_other_and_no_longer() {
        for (v4, v6, silent) in [(10, 3_600_000, Family::V6), (3_600_000, 10, Family::V4)] {
            let began = tokio::time::Instant::now();
            let after = |ms, half| async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                half
            };
            let (early, heard) = oneshot::channel();
            let question = async {
                both(after(v6, good("2001:db8::1")), after(v4, good("192.0.2.1")), &mut Some(early)).await
            };
            tokio::pin!(question);
            let half = tokio::select! {
                answer = &mut question => panic!("whole: {answer:?}"),
                half = heard => half.unwrap(),
            };
            assert_eq!(began.elapsed(), Duration::from_millis(60));
            assert_eq!((half.addresses.len(), half.silent), (1, Some(silent)));
            let whole = question.await.unwrap();
            assert_eq!((whole.addresses.len(), whole.silent), (2, None), "the late half joins");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_without_an_address_waits_for_the_other() {
        let none = || Err(ResolveError::NoAddress { detail: "none".to_owned(), ttl: Duration::from_secs(9) });
        let late = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            good("192.0.2.1")
        };
        let (early, mut heard) = oneshot::channel();
        let answer = both(async { none() }, late, &mut Some(early)).await.unwrap();
        assert_eq!((answer.addresses.len(), answer.silent), (1, None));
        assert!(heard.try_recv().is_err(), "nothing was there to be used early");
    }
}
