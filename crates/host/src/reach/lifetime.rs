//! For how long the site's router keeps the mapping of a silent socket, measured with nodes that answer
//! STUN's questions at other ports (`enishi_stun`); and how often ways are therefore used.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use enishi_dataplane::engine::{KEEP_ALIVE, KEEP_ALIVE_MIN};
use enishi_overlay::Time;
use enishi_stun::{Lifetime, Measurement, MeasurementInput, Question, SOCKETS, mapped, question};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The longest answer that is looked at, in octets.
const ANSWER_BYTES_MAX: usize = 512;

/// The most answers that wait; further ones are lost.
const WAITING_MAX: usize = 256;

/// How long to wait when a socket gives no datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How often each server is asked whether it is there, and for how long each time.
const PRESENCE_TRIES: u32 = 3;
const PRESENCE_WAIT: Duration = Duration::from_millis(500);

/// What is known of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How long it keeps a mapping; none when nobody could help to find it out.
    pub(crate) lifetime: Option<Lifetime>,
    /// Whether it is being found out.
    pub(crate) is_measuring: bool,
}

impl Kept {
    /// Returns how often a silent way is to be used: three times in four lifetimes, if that is more
    /// often than otherwise.
    pub(crate) fn keep_alive(&self) -> Duration {
        match self.lifetime {
            Some(Lifetime::Kept {
                at_least,
                less_than: Some(_),
                ..
            }) => (at_least * 3 / 4).clamp(KEEP_ALIVE_MIN, KEEP_ALIVE),
            Some(Lifetime::Kept { .. } | Lifetime::Unlimited) | None => KEEP_ALIVE,
        }
    }
}

/// Measures with servers that answer, within five minutes, and tells what is known so far; nothing if none
/// answers. `servers` are of one family, `own` are the addresses of this host.
///
/// # Errors
/// When the system gives no sockets.
pub(crate) async fn measure(
    servers: &[SocketAddr],
    own: Vec<IpAddr>,
    mut tell: impl FnMut(Option<Lifetime>),
) -> io::Result<()> {
    let servers = answering(servers).await?;
    if servers.is_empty() {
        return Ok(());
    }
    let sockets = open(&servers).await?;
    let unspoken = sockets.last().map(|socket| socket.local_addr());
    let unspoken = unspoken.transpose()?.map_or(0, |at| at.port());
    let (came, mut inlet) = mpsc::channel(WAITING_MAX);
    // They end with this measurement.
    let mut receiving = JoinSet::new();
    for (number, socket) in sockets.iter().enumerate() {
        receiving.spawn(receive(number, Arc::clone(socket), came.clone()));
    }
    let started = Instant::now();
    let now = || Time::ZERO + started.elapsed();
    let mut measurement = Measurement::new(now(), &servers, own, unspoken);
    while let Some(due) = measurement.next_timeout() {
        let questions: Vec<Question> = tokio::select! {
            () = tokio::time::sleep(due.since(now())) => {
                measurement.handle(now(), MeasurementInput::Timeout).collect()
            }
            Some((socket, from, octets)) = inlet.recv() => {
                let octets = octets.as_slice();
                let input = MeasurementInput::Datagram { socket, from, octets };
                measurement.handle(now(), input).collect()
            }
        };
        for question in questions {
            let socket = sockets.get(question.socket);
            // What the system does not take is lost; it is tried again.
            socket.map(|socket| socket.try_send_to(&question.octets, question.to));
        }
        tell(measurement.lifetime());
    }
    Ok(())
}

/// Returns an address of this host, of the family of these.
fn anywhere(servers: &[SocketAddr]) -> IpAddr {
    match servers.first().is_none_or(SocketAddr::is_ipv4) {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Returns those that answer, in their order: with one that does not, all would be in vain.
async fn answering(servers: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let socket = UdpSocket::bind((anywhere(servers), 0)).await?;
    let mut present = vec![false; servers.len()];
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let (id, octets) = question();
    for _ in 0..PRESENCE_TRIES {
        for (at, _) in servers.iter().zip(&present).filter(|it| !it.1) {
            // What the system does not take is lost; it is tried again.
            let _ = socket.try_send_to(&octets, *at);
        }
        let listen = async {
            while present.contains(&false) {
                match socket.recv_from(&mut buffer).await {
                    Ok((length, from)) => {
                        let answers = mapped(&buffer[..length]).is_some_and(|it| it.0 == id);
                        let of = servers.iter().position(|at| *at == from);
                        if let Some(present) = of.and_then(|of| present.get_mut(of)) {
                            *present |= answers;
                        }
                    }
                    // Somebody on the way says that a server is not there.
                    Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
                }
            }
        };
        if tokio::time::timeout(PRESENCE_WAIT, listen).await.is_ok() {
            break;
        }
    }
    let present = servers.iter().zip(present).filter(|it| it.1);
    Ok(present.map(|(at, _)| *at).collect())
}

async fn open(servers: &[SocketAddr]) -> io::Result<Vec<Arc<UdpSocket>>> {
    let anywhere = anywhere(servers);
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        sockets.push(Arc::new(UdpSocket::bind((anywhere, 0)).await?));
    }
    Ok(sockets)
}

/// Hands on what comes to a socket.
async fn receive(
    number: usize,
    socket: Arc<UdpSocket>,
    came: mpsc::Sender<(usize, SocketAddr, Vec<u8>)>,
) {
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let octets = buffer[..length].to_vec();
                // Without room it is lost; it is asked for again.
                if let Err(mpsc::error::TrySendError::Closed(_)) =
                    came.try_send((number, from, octets))
                {
                    return;
                }
            }
            // Somebody on the way says that a server is not there.
            Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_used_well_before_a_router_forgets_them_and_no_more_than_that() {
        let every = |at_least, less_than: Option<u64>| {
            let kept = Kept {
                lifetime: Some(Lifetime::Kept {
                    at_least: Duration::from_secs(at_least),
                    less_than: less_than.map(Duration::from_secs),
                    is_translated: true,
                }),
                is_measuring: false,
            };
            kept.keep_alive()
        };
        // As long as it is not over, a mapping may last.
        assert_eq!(every(5, None), KEEP_ALIVE);
        assert_eq!(every(0, Some(7)), KEEP_ALIVE_MIN);
        assert_eq!(every(10, Some(20)), Duration::from_millis(7_500));
        assert_eq!(every(28, Some(37)), KEEP_ALIVE);
        assert_eq!(every(175, Some(192)), KEEP_ALIVE);
        assert_eq!(Kept::default().keep_alive(), KEEP_ALIVE);
    }

    #[tokio::test]
    async fn on_loopback_nothing_is_in_between() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        let serve = async {
            let mut answerer = enishi_stun::Answerer::at_ports();
            let mut buffer = [0; ANSWER_BYTES_MAX];
            let started = Instant::now();
            loop {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                // It answers so many questions a second.
                let now = Time::ZERO + started.elapsed();
                if let Some(answer) = answerer.answer(now, from, &buffer[..length]) {
                    server.send_to(&answer.octets, answer.to).await.unwrap();
                }
            }
        };
        let mut known = None;
        // Of the first, which is silent, the second one does not suffer.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (servers, own) = ([silent.local_addr().unwrap(), at], vec![at.ip()]);
        let mut nothing = true;
        let in_vain = measure(&servers[..1], own.clone(), |_| nothing = false);
        in_vain.await.unwrap();
        assert!(nothing, "nobody answers");
        tokio::select! {
            () = serve => unreachable!("it serves for ever"),
            measured = measure(&servers, own, |lifetime| known = lifetime) => measured.unwrap(),
        }
        assert_eq!(known, Some(Lifetime::Unlimited));
    }
}
