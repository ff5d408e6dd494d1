//! Telling somebody that a job ended, without becoming their hand inside this network.
//!
//! Webhooks are off unless `ALLOW_WEBHOOKS` is set. They go to `https` addresses of the public network
//! only: every address that the name has must be public, and the connection goes to exactly those.
//! Redirects are not followed, proxies of the environment are not used, and the answer's body is not
//! read. Hosts in `WEBHOOK_HOSTS` may be private, and may speak plain `http`.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::warn;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::App;
use crate::config::Config;
use crate::jobs::routes::view;

const TRIES: u32 = 3;

/// Whether a job may name this address. Nothing is sent, and no name is looked up.
pub(crate) fn check(config: &Config, url: &str) -> Result<(), String> {
    allowed(config, url).map(drop)
}

fn allowed(config: &Config, url: &str) -> Result<Uri, String> {
    if !config.webhooks {
        return Err("webhooks are switched off on this server".to_owned());
    }
    if url.len() > 2048 || url.chars().any(|c| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err("this is no plain address".to_owned());
    }
    let uri: Uri = url.parse().map_err(|e| format!("this is no address: {e}"))?;
    let host = uri.host().unwrap_or_default();
    if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("expected https://host/path".to_owned());
    }
    let is_listed = config.webhook_hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host));
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_listed => {}
        _ => return Err("only https is allowed".to_owned()),
    }
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    if !is_listed && literal.is_ok_and(|ip| !is_public(ip)) {
        return Err("the address is not public".to_owned());
    }
    Ok(uri)
}

/// Looks names up, and gives public addresses only.
#[derive(Debug)]
struct Careful {
    hosts: Vec<String>,
    system: DefaultResolver,
}

impl Resolver for Careful {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.system.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        let is_listed = self.hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host));
        match is_listed || found.iter().all(|address| is_public(address.ip())) {
            true => Ok(found),
            false => Err(ureq::Error::HostNotFound),
        }
    }
}

/// Whether an address belongs to the public network.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(ip) => match inner(ip) {
            Some(ip) => is_public(ip),
            // 2000::/3 is what is given out, less documentation and Teredo.
            None => {
                let [first, second, ..] = ip.segments();
                first & 0xe000 == 0x2000
                    && !(first == 0x2001 && (second == 0xdb8 || second < 0x200))
                    && !(first == 0x3fff && second < 0x1000)
            }
        },
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, translated (NAT64) or tunnelled (6to4).
fn inner(ip: Ipv6Addr) -> Option<IpAddr> {
    let [a, b, c, d, ..] = ip.segments();
    let octets = ip.octets();
    let v4 = |at: usize| IpAddr::from([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    match (a, b) {
        _ if ip.to_ipv4_mapped().is_some() => Some(v4(12)),
        (0x64, 0xff9b) if c == 0 && d == 0 => Some(v4(12)),
        (0x2002, _) => Some(v4(2)),
        _ => None,
    }
}

/// Tells who wants to know that a job ended: three times at most.
pub(crate) async fn tell(app: App, id: String) {
    let own = id.clone();
    let Ok(Some(record)) = app.jobs.with_store(move |store| store.get(&own)).await else { return };
    let base = app.config.public_url.clone();
    let base = base.unwrap_or_else(|| format!("http://{}", app.config.address()));
    let body = view(&record, None, &base).to_string();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(1 << (2 * attempt))).await;
        }
        if app.jobs.is_stopping() {
            return; // It is still due, and the next server tells.
        }
        let (config, url, body) = (app.config.clone(), record.webhook_url.clone(), body.clone());
        match tokio::task::spawn_blocking(move || post(&config, &url, &body)).await {
            Ok(Ok(())) => break,
            Ok(Err(why)) => warn!(task = %id, attempt, "a webhook failed: {why}"),
            Err(e) => warn!(task = %id, attempt, "a webhook failed: {e}"),
        }
    }
    app.jobs.with_store(move |store| store.webhook_done(&id)).await.ok();
}

fn post(config: &Config, url: &str, body: &str) -> Result<(), String> {
    let uri = allowed(config, url)?;
    let settings = ureq::Agent::config_builder()
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(10)))
        .build();
    let resolver =
        Careful { hosts: config.webhook_hosts.clone(), system: DefaultResolver::default() };
    let agent = ureq::Agent::with_parts(settings, DefaultConnector::default(), resolver);
    let mut request = agent.post(uri).header("content-type", "application/json");
    if let Some(secret) = &config.webhook_secret {
        let signature = crate::ids::hex(&hmac(secret.as_bytes(), body.as_bytes()));
        request = request.header("x-tagbrush-signature", format!("sha256={signature}"));
    }
    let answer = request.send(body).map_err(|e| e.to_string())?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(format!("answered with {}", answer.status())),
    }
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hosts: &str) -> Config {
        Config::from_vars(&|name| match name {
            "ALLOW_WEBHOOKS" => Some("true".to_owned()),
            "WEBHOOK_HOSTS" => Some(hosts.to_owned()),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn the_way_into_this_network_is_closed() {
        let config = config("");
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "https://169.254.169.254/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[fd00::1]/",
            "https://10.1.2.3/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://user:pw@example.com/",
            "https://example.com\\@127.0.0.1/",
            "https://example.com/a b",
            "http://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "//example.com/",
            "",
        ] {
            assert!(check(&config, url).is_err(), "{url}");
        }
        check(&config, "https://example.com/hook?x=1").unwrap();
        check(&config, "https://1.1.1.1/").unwrap();
        let off = Config::from_vars(&|_| None).unwrap();
        assert!(check(&off, "https://example.com/").is_err());
    }

    #[test]
    fn names_that_lead_inside_get_no_packet() {
        let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        inside.set_nonblocking(true).unwrap();
        let port = inside.local_addr().unwrap().port();
        // Names and spellings that only the resolver can tell.
        for host in ["localhost", "0x7f.1", "127.1", "2130706433"] {
            assert!(post(&config(""), &format!("https://{host}:{port}/"), "{}").is_err(), "{host}");
        }
        assert!(inside.accept().is_err(), "nobody came");
        // The same address is reached when it is listed, so that the test could fail.
        let url = format!("http://localhost:{port}/");
        std::thread::spawn(move || post(&config("localhost"), &url, "{}"));
        let came = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            inside.accept().is_ok()
        });
        assert!(came);
    }

    #[test]
    fn signatures_are_hmac_sha256() {
        // RFC 4231, test cases 2 and 6.
        let found = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(crate::ids::hex(&found)[..16], *"5bdcc146bf60754e");
        let found = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(crate::ids::hex(&found)[..16], *"60e431591ee0b67f");
    }
}
