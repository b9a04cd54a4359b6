//! Lists of nodes in the DNS: TXT records (RFC 1035, section 3.3.14) of a name that the
//! configuration has, looked up by the system's servers.
//!
//! ```text
//!   enishi.example.org. 300 IN TXT "enishi=NODE@192.0.2.7:4242,[2001:db8::7]:4242"
//!   enishi.example.org. 300 IN TXT "enishi=192.0.2.7:4242"
//! ```
//!
//! Without a node id the address is asked who it is. Records are not signed: whoever writes the zone
//! decides which nodes a newcomer meets first, as whoever writes an invitation does, and DNSSEC is for
//! who wants to be sure of the zone. The sessions prove the keys. Names in records are not looked up.

use std::time::Duration;

use enishi_services::rendezvous::{Listed, RECORD_PREFIX};
use n0_dns_resolver::DnsResolver;
use serde::Deserialize;

use super::ask::{Heard, rng};
use super::pace::Pace;
use super::server::asked_at;
use super::{Around, Source};

/// The most records of a name that are read.
const RECORDS_MAX: usize = 16;

/// How long one name may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(10);

/// The name of a list, at most 253 octets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListName(String);

impl TryFrom<String> for ListName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |label: &str| {
            let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
            (1..=63).contains(&label.len()) && label.bytes().all(fits)
        };
        let name = text.strip_suffix('.').unwrap_or(&text);
        match name.len() <= 253 && name.split('.').all(fits) {
            true => Ok(Self(name.to_owned())),
            false => Err(format!(
                "`{text}` is no name of a DNS record, as enishi.example.org"
            )),
        }
    }
}

/// Reads the lists whenever the node needs others.
pub(super) async fn run(around: Around, names: Vec<ListName>) {
    let Some(rng) = rng() else { return };
    let mut pace = Pace::new(around.company.clone(), rng);
    loop {
        pace.turn().await;
        // The system's servers may be others than the last time.
        let resolver = DnsResolver::builder().use_system_config().build();
        for ListName(name) in &names {
            match look_up(&resolver, name).await {
                Err(error) => around
                    .book
                    .failed(Source::DnsList, format!("{name}: {error}")),
                Ok(named) if named.is_empty() => {
                    let error = format!("{name} has no record that begins with `{RECORD_PREFIX}`");
                    around.book.failed(Source::DnsList, error);
                }
                Ok(named) => use_list(&around, named).await,
            }
        }
    }
}

async fn look_up(resolver: &DnsResolver, name: &str) -> Result<Vec<Listed>, String> {
    // Absolute: what the system appends to names is not for these.
    let looked_up = resolver.lookup_txt(format!("{name}."));
    let records = tokio::time::timeout(LOOKUP_TIME_MAX, looked_up).await;
    let records = records.map_err(|_| "no DNS server answers".to_owned())?;
    let records = records.map_err(|error| error.to_string())?;
    let texts = records.into_iter().take(RECORDS_MAX);
    let texts = texts.map(|record| record.into_boxed_slices().concat());
    Ok(texts.filter_map(|text| Listed::read(&text)).collect())
}

async fn use_list(around: &Around, named: Vec<Listed>) {
    around.book.worked(Source::DnsList);
    let (mut contacts, mut addresses) = (Vec::new(), Vec::new());
    for named in named {
        match named {
            Listed::Contact(contact) => contacts.push(contact),
            Listed::Addresses(some) => addresses.extend(some),
        }
    }
    if !contacts.is_empty() {
        around.tell(Source::DnsList, contacts).await;
    }
    if !addresses.is_empty() {
        let at = asked_at(&addresses);
        around
            .ask_and_tell(Source::DnsList, &at, Heard::FromStrangers)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lists_are_names() {
        let name = |text: &str| ListName::try_from(text.to_owned());
        assert_eq!(name("enishi.example.org."), name("enishi.example.org"));
        for bad in ["", ".", "a..b", "a b", "http://a", &"a".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
