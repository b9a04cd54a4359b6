//! `dht put`, `get` and `remove`.

use enishi_api::{Answer, Failure, VALUE_BYTES_MAX};
use enishi_overlay::Rng;
use enishi_services::dht::{GetAnswer, PutAnswer};
use enishi_services::names::{NAME_BYTES_MAX, OpenName};
use enishi_services::record::{LEASE_S, Record};

use super::desk::{Desk, no, usage};
use super::outbox;

pub(super) async fn put(
    desk: &Desk,
    name: &str,
    value: &[u8],
    lease_s: u32,
) -> Result<Answer, Failure> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(usage(format!(
            "The value has {} octets; at most {VALUE_BYTES_MAX} can be stored.",
            value.len()
        )));
    }
    if !LEASE_S.contains(&lease_s) {
        return Err(usage(format!(
            "A lease lasts {} seconds to {} days.",
            LEASE_S.start(),
            LEASE_S.end() / 86_400
        )));
    }
    let name = open_name(desk, name)?;
    let request = name.put_request(&mut rng()?, lease_s, Some(value));
    match desk.put(request).await? {
        PutAnswer::Stored { seq, replicas } => Ok(Answer::Stored { replicas, seq }),
        PutAnswer::Taken => Err(taken()),
        PutAnswer::Full => Err(no(
            "The nodes in charge have no room for more of this node's values; remove some, or \
             try again later.",
        )),
        PutAnswer::Failed => Err(not_stored(desk)),
    }
}

pub(super) async fn get(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let name = open_name(desk, name)?;
    let record = read(desk, &name).await?;
    let value = name.open(&record).ok_or_else(|| {
        no("What is stored under this name is not a value that was put there by its name.")
    })?;
    let seq = record.content().seq;
    Ok(Answer::Value { value, seq })
}

pub(super) async fn remove(desk: &Desk, name: &str) -> Result<Answer, Failure> {
    let name = open_name(desk, name)?;
    let record = read(desk, &name).await?;
    if record.content().owner != name.owner() {
        return Err(taken());
    }
    let request = name.put_request(&mut rng()?, record.content().lease_s, None);
    match desk.put(request).await? {
        PutAnswer::Stored { .. } => Ok(Answer::Done),
        PutAnswer::Taken => Err(taken()),
        PutAnswer::Full | PutAnswer::Failed => Err(not_stored(desk)),
    }
}

/// Reads the record of a name that is there.
async fn read(desk: &Desk, name: &OpenName) -> Result<Record, Failure> {
    match desk.get(name.key()).await? {
        GetAnswer::Records(records) => {
            let mut records = records.into_iter();
            let record = records.find(|record| !record.content().removed);
            record.ok_or_else(|| no("There is no value under this key."))
        }
        GetAnswer::Failed => Err(silent()),
    }
}

fn open_name(desk: &Desk, name: &str) -> Result<OpenName, Failure> {
    OpenName::new(name, &desk.shared.keypair)
        .ok_or_else(|| usage(format!("A key has 1 to {NAME_BYTES_MAX} octets.")))
}

/// Makes randomness from the system for one seal.
pub(super) fn rng() -> Result<Rng, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| no(format!("The system gives no random numbers: {error}.")))?;
    Ok(Rng::from_seed(seed))
}

fn taken() -> Failure {
    no("The key belongs to another node, which alone may change its value.")
}

/// Why a value is not stored: where the own disk keeps nothing, that alone is reason enough.
fn not_stored(desk: &Desk) -> Failure {
    match desk.shared.noted_about(outbox::ABOUT) {
        Some(notice) => no(format!("The value is not stored. {notice}")),
        None => silent(),
    }
}

fn silent() -> Failure {
    no(
        "Too few of the nodes in charge answered; try again, and look at `enishi status` if it \
         stays so.",
    )
}
