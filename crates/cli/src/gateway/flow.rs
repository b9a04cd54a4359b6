//! One connection: decided about, written down, carried, and cut when it is allowed no more.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use enishi_api::{PortConnection, StreamRequest};
use enishi_host::audit::{Event, Passage};
use enishi_host::gateway::{Limits, Opening};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{error::Elapsed, timeout};

use super::Shared;
use super::limits::{Place, Places};
use super::watch::State;
use crate::client::Client;
use crate::problem::Problem;
use crate::problem::sentence;

/// How long connecting to the member that has the service may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);

/// How long taking over or ending a connection from its daemon may take.
const TAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether a connection is idle.
const IDLE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Numbers of connections since the gateway started.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A stream of a daemon.
type Stream = TokioIo<Upgraded>;

/// What was decided about a connection.
struct Decision {
    /// The user's side, and the gateway's port there.
    at: (usize, u16),
    passage: Passage,
    user: Client,
    allowed: Result<Allowed, String>,
}

struct Allowed {
    /// The user's, and the service's.
    overlays: [String; 2],
    opening: Opening,
    place: Place,
    owner: Client,
    owner_channel: String,
    /// The user's node id.
    node: String,
}

/// What has passed.
#[derive(Default)]
struct Passed {
    octets_in: AtomicU64,
    octets_out: AtomicU64,
    /// When the last octet did, in milliseconds since the connection began.
    last_ms: AtomicU64,
    /// How many of the two directions have octets that wait for the rate.
    waiting: AtomicU64,
}

/// Decides about a connection at a port of the gateway in an overlay, and carries it to its end.
pub(super) async fn run(shared: Arc<Shared>, overlay: String, port: u16, arrived: PortConnection) {
    let decision = decide(&shared, &overlay, port, &arrived);
    let Some(Decision {
        at,
        passage,
        user,
        allowed,
    }) = decision
    else {
        return;
    };
    let taken = StreamRequest::Take {
        connection: arrived.connection,
    };
    let allowed = match allowed {
        Ok(allowed) => allowed,
        Err(reason) => {
            complain(&shared, shared.journal.refuse(passage, reason).await);
            // It ends with what holds it.
            drop(timeout(TAKE_TIME_MAX, user.stream(&taken)).await);
            return;
        }
    };
    let flow = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let passage = Box::new(passage);
    let opened = shared.journal.write(Event::Opened { flow, passage }).await;
    let passed = Passed::default();
    let started = Instant::now();
    let reason = match opened {
        Ok(()) => carry(&shared, at, &user, &taken, &allowed, &passed).await,
        // What cannot be written down does not pass.
        Err(error) => {
            complain(&shared, Err(error));
            drop(timeout(TAKE_TIME_MAX, user.stream(&taken)).await);
            return;
        }
    };
    let closed = Event::Closed {
        flow,
        octets_in: passed.octets_in.load(Ordering::Relaxed),
        octets_out: passed.octets_out.load(Ordering::Relaxed),
        open_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        reason,
    };
    complain(&shared, shared.journal.write(closed).await);
}

fn complain(shared: &Shared, written: Result<(), enishi_host::audit::AuditError>) {
    if let Err(error) = written {
        shared.out.notice(&sentence(&error.to_string()));
    }
}

/// Decides; none when the port is the gateway's no more.
fn decide(shared: &Shared, overlay: &str, port: u16, arrived: &PortConnection) -> Option<Decision> {
    let state = shared.state.borrow().clone();
    let side = state
        .sides
        .iter()
        .position(|side| side.overlay == overlay)?;
    let at = (side, port);
    let port = state.ports.get(&at)?.clone();
    // Of two, the other one.
    let (from, to) = (state.sides.get(side)?, state.sides.get(1 - side));
    let opening = port.opening.as_ref();
    let passage = Passage {
        from_overlay: from.overlay.clone(),
        from_node: arrived.node_id.clone(),
        from: arrived.from.to_string(),
        service: port.service.clone(),
        to_overlay: to.map_or_else(String::new, |to| to.overlay.clone()),
        to_node: opening.map(|opening| opening.member.to_string()),
        to_port: opening.map(|opening| opening.member_port),
        consents: [Some(from), to]
            .into_iter()
            .flatten()
            .map(|side| side.consent.clone())
            .collect(),
    };
    let allowed = || {
        let node = arrived.node_id.clone();
        let node = node.ok_or("the address is no member's that has proved it")?;
        let (Some(opening), Some(to)) = (port.opening.clone(), to) else {
            return Err(port.reason.clone());
        };
        let overlays = [from.overlay.clone(), to.overlay.clone()];
        if !state.allows(at, &overlays, &node, &opening) {
            return Err("the consent does not name this member as a user".to_owned());
        }
        let place = shared.places.take(&node, opening.limits)?;
        Ok(Allowed {
            overlays,
            opening,
            place,
            owner: Client::new(to.data.clone(), shared.out),
            owner_channel: to.channel.clone(),
            node,
        })
    };
    Some(Decision {
        at,
        passage,
        user: Client::new(from.data.clone(), shared.out),
        allowed: allowed(),
    })
}

/// Carries a connection; returns why it ended.
async fn carry(
    shared: &Shared,
    at: (usize, u16),
    user: &Client,
    taken: &StreamRequest,
    allowed: &Allowed,
    passed: &Passed,
) -> String {
    let _place = &allowed.place;
    let request = StreamRequest::ConnectPort {
        channel: allowed.owner_channel.clone(),
        member: allowed.opening.member.to_string(),
        port: allowed.opening.member_port,
    };
    let taking = timeout(TAKE_TIME_MAX, user.stream(taken));
    let connecting = connect(shared, at, &allowed.owner, &request);
    let joined = async {
        // Taken first: it would not wait for the other to be reached.
        let taken = result(taking.await, "the connection could not be taken");
        let taken = taken?;
        let connected = result(connecting.await, "the service is not reached")?;
        Ok::<_, String>((taken, connected))
    };
    let relayed = async {
        let (taken, connected) = joined.await?;
        let ((from_user, to_user), (from_owner, to_owner)) = (split(taken), split(connected));
        let began = Instant::now();
        // Those of consents that were accepted meanwhile count, too.
        let limits = || {
            let state = shared.state.borrow();
            let opening = state.opening(at).unwrap_or(&allowed.opening);
            opening.limits
        };
        let meter = |octets| Meter {
            octets,
            passed,
            began,
            places: &shared.places,
            limits: &limits,
        };
        let both = async {
            tokio::try_join!(
                relay(from_user, to_owner, meter(&passed.octets_in)),
                relay(from_owner, to_user, meter(&passed.octets_out)),
            )
        };
        tokio::select! {
            ended = both => match ended {
                Ok(_) => Ok("ended".to_owned()),
                Err(error) => Err(format!("broke off: {error}")),
            },
            () = idle(passed, began, limits) => Err("idle".to_owned()),
        }
    };
    tokio::select! {
        ended = relayed => ended.unwrap_or_else(|reason| reason),
        reason = forbidden(shared, at, allowed) => format!("cut: {reason}"),
        () = shared.stop.cancelled() => "cut: the gateway stops".to_owned(),
    }
}

/// Connects to a service when it is its turn.
async fn connect(
    shared: &Shared,
    at: (usize, u16),
    owner: &Client,
    request: &StreamRequest,
) -> Result<Result<Stream, Problem>, Elapsed> {
    timeout(CONNECT_TIME_MAX, async {
        let _turn = shared.pending.turn(at).await;
        owner.stream(request).await
    })
    .await
}

fn result<T>(result: Result<Result<T, Problem>, Elapsed>, what: &str) -> Result<T, String> {
    match result {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(problem)) => Err(format!("{what}: {}", problem.message().unwrap_or_default())),
        Err(_) => Err(format!("{what} in time")),
    }
}

/// Returns when a connection is allowed no more, and why.
async fn forbidden(shared: &Shared, at: (usize, u16), allowed: &Allowed) -> String {
    let mut states = shared.state.subscribe();
    let is_over =
        |state: &State| !state.allows(at, &allowed.overlays, &allowed.node, &allowed.opening);
    match states.wait_for(is_over).await {
        Ok(state) => {
            let reason = state.reason.clone();
            reason.unwrap_or_else(|| "it is not allowed any more".to_owned())
        }
        Err(_) => "the gateway stops".to_owned(),
    }
}

/// Returns when nothing has passed for too long.
async fn idle(passed: &Passed, began: Instant, limits: impl Fn() -> Limits) {
    loop {
        tokio::time::sleep(IDLE_LOOK_INTERVAL).await;
        let limit_ms = u64::from(limits().idle_s).saturating_mul(1000);
        let now_ms = elapsed_ms(began);
        let idle_ms = now_ms.saturating_sub(passed.last_ms.load(Ordering::Relaxed));
        if passed.waiting.load(Ordering::Relaxed) == 0 && idle_ms >= limit_ms {
            return;
        }
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Counts and slows what passes in one direction.
struct Meter<'a> {
    octets: &'a AtomicU64,
    passed: &'a Passed,
    began: Instant,
    places: &'a Places,
    limits: &'a (dyn Fn() -> Limits + Send + Sync),
}

impl Meter<'_> {
    /// Waits until so many octets may pass, which is no time without any.
    async fn wait(&self, octets: usize) {
        self.note();
        self.passed.waiting.fetch_add(1, Ordering::Relaxed);
        self.places.pass(octets, (self.limits)()).await;
        self.note();
        self.passed.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn note(&self) {
        let now_ms = elapsed_ms(self.began);
        self.passed.last_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// Hands records (`enishi_host::control::records`) on until the one of length 0.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    meter: Meter<'_>,
) -> io::Result<()> {
    let mut octets = vec![0; usize::from(u16::MAX)];
    loop {
        let length = from.read_u16().await?;
        let record = &mut octets[..usize::from(length)];
        from.read_exact(record).await?;
        meter.wait(record.len()).await;
        to.write_u16(length).await?;
        to.write_all(record).await?;
        to.flush().await?;
        meter.octets.fetch_add(length.into(), Ordering::Relaxed);
        meter.note();
        if length == 0 {
            return match to.shutdown().await {
                // The other has all it needs.
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
                ended => ended,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use enishi_api::{Answer, Request};

    use super::super::daemon::{OUT, no, overlay, serve, shared};
    use super::*;

    /// More than a daemon takes at a time (`enishi_host::control::CONNECTIONS_MAX`).
    const CONNECTIONS: usize = 80;

    #[tokio::test]
    async fn a_service_that_is_silent_leaves_the_daemon_to_others() {
        let dir = tempfile::tempdir().unwrap();
        // It answers no request for a stream, and keeps them.
        let mut asked = serve(dir.path(), |request| match request {
            Request::OverlayShow => overlay("beta"),
            _ => no("it is not asked that"),
        });
        let shared = shared(dir.path(), State::default());
        let owner = Client::new(dir.path().to_owned(), OUT);
        for _ in 0..CONNECTIONS {
            let (shared, owner) = (Arc::clone(&shared), owner.clone());
            tokio::spawn(async move {
                let request = StreamRequest::ConnectPort {
                    channel: "office".to_owned(),
                    member: "ben".to_owned(),
                    port: 80,
                };
                let _ = connect(&shared, (0, 8080), &owner, &request).await;
            });
        }
        let mut held = vec![asked.recv().await];
        tokio::task::yield_now().await;
        let show = async { owner.call(&Request::OverlayShow).await?.next().await };
        let shown = timeout(TAKE_TIME_MAX, show).await;
        assert!(
            matches!(shown, Ok(Ok(Some(Answer::Overlay(_))))),
            "{shown:?}"
        );
        // Another service's turn has come, too.
        let other = timeout(TAKE_TIME_MAX, shared.pending.turn((0, 8081)));
        assert!(other.await.is_ok());
        while let Ok(call) = asked.try_recv() {
            held.push(Some(call));
        }
        assert!(held.len() < CONNECTIONS / 2, "{}", held.len());
    }
}
