//! The question "who are you?" to addresses of which no node id is known.
//!
//! The form of question and answer is told in `enishi_services::rendezvous`. Questions leave from a
//! socket of their own, each round from another port; an answer counts from an address that was asked.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_overlay::{Contact, Rng};
use enishi_services::rendezvous::{Asked, QUESTION_BYTES, Rendezvous};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The most addresses that are asked at once; further ones are not.
pub(super) const ADDRESSES_MAX: usize = 16;

/// When the question is sent, and how long answers are waited for, from the first on.
const SENT_AT: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(400),
    Duration::from_millis(1_200),
];
const ANSWER_TIME_MAX: Duration = Duration::from_millis(2_500);

/// From where an address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A person of this node wrote it down.
    FromOperator,
    /// Anybody may have told it.
    FromStrangers,
}

/// Asks who is at some addresses, and gives `found` the contacts of each who answers as soon as it does,
/// the answerer's own first: with the address at which it was asked, and the port that it says. Takes
/// 2.5 seconds at most, while somebody receives.
pub(super) async fn ask(
    rendezvous: &Rendezvous,
    addresses: &[SocketAddr],
    heard: Heard,
    found: mpsc::Sender<Vec<Contact>>,
) {
    let askable = addresses.iter().filter(|to| is_askable(to, heard));
    let targets: BTreeSet<SocketAddr> = askable.copied().take(ADDRESSES_MAX).collect();
    let Some(mut rng) = rng() else { return };
    let (asked, question) = rendezvous.question(&mut rng);
    let round = Round {
        rendezvous,
        asked,
        question,
        found,
    };
    let (four, six): (BTreeSet<_>, BTreeSet<_>) =
        targets.into_iter().partition(SocketAddr::is_ipv4);
    tokio::join!(
        round.by(Ipv4Addr::UNSPECIFIED.into(), four),
        round.by(Ipv6Addr::UNSPECIFIED.into(), six),
    );
}

/// Makes a generator of random numbers; none when the system gives none.
pub(super) fn rng() -> Option<Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).ok()?;
    Some(Rng::from_seed(seed))
}

/// Tells whether a datagram to an address could reach one node, and may be sent.
fn is_askable(to: &SocketAddr, heard: Heard) -> bool {
    let ip = to.ip();
    let of_one = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
    };
    let of_this_host = ip.is_loopback() && heard == Heard::FromStrangers;
    of_one && !of_this_host && !ip.is_unspecified() && !ip.is_multicast() && to.port() != 0
}

/// One question to many.
struct Round<'a> {
    rendezvous: &'a Rendezvous,
    asked: Asked,
    question: Vec<u8>,
    found: mpsc::Sender<Vec<Contact>>,
}

impl Round<'_> {
    /// Asks by a socket of one IP version. Fails by finding nobody: the next round asks again.
    async fn by(&self, any: IpAddr, targets: BTreeSet<SocketAddr>) {
        if !targets.is_empty()
            && let Err(error) = self.collect(any, targets).await
        {
            tracing::debug!(%error, "nobody can be asked who they are");
        }
    }

    async fn collect(&self, any: IpAddr, mut silent: BTreeSet<SocketAddr>) -> io::Result<()> {
        let socket = UdpSocket::bind((any, 0)).await?;
        let start = Instant::now();
        let mut sends = SENT_AT.iter();
        let mut next = sends.next().map(|after| start + *after);
        // One octet more than an answer may have.
        let mut buffer = [0; QUESTION_BYTES + 1];
        while !silent.is_empty() {
            let send = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let receive = timeout_at(start + ANSWER_TIME_MAX, socket.recv_from(&mut buffer));
            tokio::select! {
                () = send => {
                    for to in &silent {
                        // Where there is no route nobody answers.
                        let _ = socket.send_to(&self.question, *to).await;
                    }
                    next = sends.next().map(|after| start + *after);
                }
                received = receive => match received {
                    Err(_) => break,
                    // What ICMP said of an earlier question.
                    Ok(Err(_)) => {}
                    Ok(Ok((bytes, from))) => {
                        if let Some(contacts) = self.take(&buffer[..bytes], from, &mut silent) {
                            // Nobody may want to know any more.
                            let _ = self.found.send(contacts).await;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn take(
        &self,
        octets: &[u8],
        from: SocketAddr,
        silent: &mut BTreeSet<SocketAddr>,
    ) -> Option<Vec<Contact>> {
        let is_asked = silent.contains(&from);
        let answer = self.rendezvous.read_answer(&self.asked, octets);
        let answer = answer.filter(|_| is_asked)?;
        silent.remove(&from);
        let mut contacts = answer.contacts;
        let first = contacts.first_mut()?;
        let here = SocketAddr::new(from.ip(), answer.port);
        let others = first.addresses().iter().copied();
        let others = others.filter(|address| *address != here);
        *first = Contact::new(first.id(), std::iter::once(here).chain(others));
        Some(contacts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enishi_overlay::{Keypair, OverlayId};
    use enishi_services::rendezvous::Answer;

    #[test]
    fn strangers_have_no_question_sent_to_groups_or_to_this_host() {
        let askable = |text: &str, heard| is_askable(&text.parse().unwrap(), heard);
        let bad = "0.0.0.0:1 255.255.255.255:1 224.0.0.251:5353 192.0.2.1:0 [::]:1 [ff02::fb]:1 \
                   [fe80::1]:1 [::ffff:192.0.2.1]:1";
        for text in bad.split_whitespace() {
            assert!(!askable(text, Heard::FromOperator), "{text}");
        }
        assert!(askable("192.168.1.2:7", Heard::FromStrangers));
        assert!(askable("[2001:db8::1]:7", Heard::FromStrangers));
        assert!(!askable("127.0.0.1:7", Heard::FromStrangers));
        assert!(askable("127.0.0.1:7", Heard::FromOperator));
    }

    #[tokio::test]
    async fn who_answers_is_known_by_the_address_that_was_asked() {
        let rendezvous = Rendezvous::new(&OverlayId::from_name("office"), None);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let targets = [&socket, &silent].map(|socket| socket.local_addr().unwrap());
        let id = Keypair::from_seed(&[3; 32]).id();
        let answering = async {
            let mut rng = Rng::from_seed([1; 32]);
            let mut buffer = [0; 2_000];
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = rendezvous.read_question(&buffer[..bytes]).unwrap();
            let answer = Answer {
                port: 4242,
                contacts: vec![Contact::new(id, ["192.0.2.1:4242".parse().unwrap()])],
            };
            let octets = rendezvous.answer(&mut rng, &asked, answer);
            // Noise, and the answer of somebody who was not asked.
            socket.send_to(b"1 noise", from).await.unwrap();
            other.send_to(&octets, from).await.unwrap();
            socket.send_to(&octets, from).await.unwrap();
        };
        let (sender, mut found) = mpsc::channel(2);
        let asking = ask(&rendezvous, &targets, Heard::FromOperator, sender);
        tokio::join!(asking, answering);
        let addresses = ["127.0.0.1:4242", "192.0.2.1:4242"].map(|text| text.parse().unwrap());
        assert_eq!(found.recv().await, Some(vec![Contact::new(id, addresses)]));
        assert_eq!(found.recv().await, None);
    }
}
