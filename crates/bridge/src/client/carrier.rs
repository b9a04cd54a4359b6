//! The connections of a client, and the requests on them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, PRAGMA, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, USER_AGENT,
};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::{Came, Key, Settings};
use crate::CONNECTIONS_MAX;
use crate::auth::{Authenticator, Credentials};
use crate::body;
use crate::dial::{self, Heads, Proxy};
use crate::exchange::{Answer, Answered, Failure};
use crate::frame::Splitter;
use crate::patience::Patience;
use crate::probe::ProxyAuth;
use crate::way::{Ask, BODY_BYTES_MAX, Coding};

/// So many kept connections in a row that ended in the proxy's hands show that it keeps none.
const ENDED_MAX: u32 = 3;

/// How often a proxy is asked the same with another answer to its 407.
const CHALLENGES_MAX: usize = 3;

/// A request as it is to be sent.
pub(super) struct Job {
    pub(super) ask: Ask,
    /// What follows the beginning of the body, if more does.
    pub(super) poured: Option<mpsc::UnboundedReceiver<Bytes>>,
    /// Whom the frames of the reply are given to, if it is a stream.
    pub(super) parts: Option<(Key, mpsc::Sender<(Key, Came)>)>,
}

/// The body of a request.
struct Outgoing {
    first: Bytes,
    left: usize,
    poured: Option<mpsc::UnboundedReceiver<Bytes>>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let octets = if self.first.is_empty() {
            let next = match &mut self.poured {
                Some(poured) => ready!(poured.poll_recv(cx)),
                None => None,
            };
            match next {
                Some(octets) => octets,
                None => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            }
        } else {
            std::mem::take(&mut self.first)
        };
        self.left = self.left.saturating_sub(octets.len());
        Poll::Ready(Some(Ok(Frame::data(octets))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// The connections of a client.
pub(super) struct Carrier {
    /// Host and port of the bridge.
    bridge: String,
    proxy: Option<Proxy>,
    host: HeaderValue,
    /// What stands before paths; empty without a proxy.
    prefix: String,
    credentials: Option<Arc<Credentials>>,
    idle: Mutex<Vec<Connection>>,
    /// What was said to the proxy on connections that have ended: each nonce goes on with the next
    /// connection, so that a proxy which ends them after each reply need not ask each time.
    said: Mutex<Vec<Authenticator>>,
    /// Whether the proxy ever asked who asks.
    curious: AtomicBool,
    /// How many kept connections in a row were found to have ended.
    ended: AtomicU32,
    free: Semaphore,
}

struct Connection {
    sender: http1::SendRequest<Outgoing>,
    heads: Heads,
    auth: Authenticator,
    driver: AbortHandle,
    /// Whether the last reply was cut, so that nothing can follow it.
    spent: bool,
    /// Whether something was answered on it.
    used: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Carrier {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings {
            bridge,
            proxy,
            credentials,
            ..
        } = settings;
        let prefix = proxy.as_ref().map(|_| format!("http://{bridge}"));
        Self {
            bridge: bridge.clone(),
            proxy: proxy.clone(),
            // A host that is none makes requests that fail, which is told as such.
            host: HeaderValue::from_str(bridge).unwrap_or(HeaderValue::from_static("invalid")),
            prefix: prefix.unwrap_or_default(),
            credentials: credentials
                .clone()
                .filter(|_| proxy.is_some())
                .map(Arc::new),
            idle: Mutex::default(),
            said: Mutex::default(),
            curious: AtomicBool::new(false),
            ended: AtomicU32::new(0),
            free: Semaphore::new(CONNECTIONS_MAX),
        }
    }

    pub(super) async fn ask(&self, job: &mut Job, patience: &Patience) -> (Answered, ProxyAuth) {
        let mut auth = ProxyAuth::None;
        let asking = async {
            let _permit = self.free.acquire().await.map_err(|_| Failure::Broken)?;
            // What follows the beginning of a body can be sent once: not where the proxy may have ended
            // the connection.
            let kept = match job.poured {
                Some(_) => None,
                None => lock(&self.idle).pop(),
            };
            let mut connection = match kept.filter(Connection::is_open) {
                Some(connection) => connection,
                None => self.connect().await.map_err(|_| Failure::Connect)?,
            };
            // A proxy that asks may end the connection before it has read a long request, and its
            // question is lost: it is asked for with a short one.
            let curious = self.curious.load(Ordering::Relaxed);
            if curious && connection.auth.seen() == ProxyAuth::None && !job.ask.body.is_empty() {
                let short = Ask {
                    coding: Coding::Path,
                    body: Bytes::new(),
                    length: None,
                    streamed: false,
                    ..job.ask.clone()
                };
                let mut short = Job {
                    ask: short,
                    poured: None,
                    parts: None,
                };
                connection.introduce(self, &mut short, patience).await?;
            }
            let answer = connection.introduce(self, job, patience).await;
            auth = connection.auth.seen();
            if auth != ProxyAuth::None {
                self.curious.store(true, Ordering::Relaxed);
            }
            self.keep(connection);
            answer
        };
        let answered = tokio::select! {
            answered = asking => answered,
            () = patience.over() => Err(Failure::Silence),
        };
        (answered, auth)
    }

    /// Keeps a connection for the next request, or what was said on it.
    fn keep(&self, mut connection: Connection) {
        let mut idle = lock(&self.idle);
        let (open, ended) = std::mem::take(&mut *idle)
            .into_iter()
            .partition(Connection::is_open);
        *idle = open;
        let mut ended: Vec<Connection> = ended;
        let keeps = self.ended.load(Ordering::Relaxed) < ENDED_MAX;
        if connection.is_open() && keeps && idle.len() < CONNECTIONS_MAX {
            idle.push(connection);
        } else {
            connection.spent = true;
            ended.push(connection);
        }
        let mut said = lock(&self.said);
        said.extend(ended.iter_mut().map(|connection| connection.auth.hand_on()));
        said.truncate(CONNECTIONS_MAX);
    }

    async fn connect(&self) -> io::Result<Connection> {
        let (sender, heads, driver) = self.dial().await?;
        let said = lock(&self.said).pop();
        let auth = said.unwrap_or_else(|| Authenticator::new(self.credentials.clone()));
        Ok(Connection {
            sender,
            heads,
            auth,
            driver,
            spent: false,
            used: false,
        })
    }

    async fn dial(&self) -> io::Result<(http1::SendRequest<Outgoing>, Heads, AbortHandle)> {
        let stream = match &self.proxy {
            Some(proxy) => proxy.dial().await?,
            None => dial::straight(&self.bridge).await?,
        };
        let (stream, heads) = Heads::bound(stream);
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // Its end is seen by the sender.
            let _ = connection.await;
        });
        Ok((sender, heads, driver.abort_handle()))
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.spent
    }

    /// Makes the connection anew if it has ended, and keeps what is to be said to the proxy.
    async fn ready(&mut self, carrier: &Carrier) -> Result<(), Failure> {
        // A connection that has just ended is seen to have by waiting for it.
        if !self.is_open() || self.sender.ready().await.is_err() {
            self.driver.abort();
            let dialled = carrier.dial().await;
            (self.sender, self.heads, self.driver) = dialled.map_err(|_| Failure::Connect)?;
            (self.spent, self.used) = (false, false);
        }
        Ok(())
    }

    /// Sends a request, and again as long as the proxy asks who asks and can be told.
    async fn introduce(
        &mut self,
        carrier: &Carrier,
        job: &mut Job,
        patience: &Patience,
    ) -> Answered {
        let times = if job.poured.is_some() {
            1
        } else {
            CHALLENGES_MAX
        };
        for _ in 0..times {
            self.ready(carrier).await?;
            let kept = self.used;
            let mut asked = self.ask(carrier, job, patience).await;
            if kept && job.ask.length.is_none() && asked == Err(Failure::Broken) {
                // The proxy ended the connection after the reply before, and did not say so. Who is
                // asked twice knows it by the number.
                carrier.ended.fetch_add(1, Ordering::Relaxed);
                self.spent = true;
                self.ready(carrier).await?;
                asked = self.ask(carrier, job, patience).await;
            } else if kept {
                carrier.ended.store(0, Ordering::Relaxed);
            }
            self.used = true;
            if let Some(answer) = asked? {
                return Ok(answer);
            }
        }
        Ok(Answer {
            status: 407,
            body: Bytes::new(),
        })
    }

    /// Sends a request. `None` when the proxy asked who asks, and can be told.
    async fn ask(
        &mut self,
        carrier: &Carrier,
        job: &mut Job,
        patience: &Patience,
    ) -> Result<Option<Answer>, Failure> {
        let ask = &job.ask;
        let method = if ask.coding.is_post() { "POST" } else { "GET" };
        let uri = format!("{}{}", carrier.prefix, ask.path);
        let mut request = Request::builder()
            .method(method)
            .uri(&uri)
            .header(HOST, &carrier.host)
            .header(USER_AGENT, ask.agent.text())
            .header(ACCEPT, "*/*")
            .header(CACHE_CONTROL, "no-cache, no-store")
            .header(PRAGMA, "no-cache");
        if let Some(content_type) = ask.coding.content_type() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let mut nonce = [0; 12];
        // Without randomness the number is a poor one, and the connection still works.
        let _ = getrandom::fill(&mut nonce);
        if let Some(header) = self.auth.header(method, &uri, nonce) {
            let value = HeaderValue::from_str(&header);
            let mut value = value.map_err(|_| Failure::Broken)?;
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        let request = request.body(Outgoing {
            first: ask.body.clone(),
            left: ask.length.unwrap_or(ask.body.len()),
            poured: job.poured.take(),
        });
        let request = request.map_err(|_| Failure::Connect)?;
        self.heads.follow();
        let response = self.sender.send_request(request).await;
        let response = response.map_err(|_| Failure::Broken)?;
        self.heads.came();
        if let Some((key, to)) = job
            .parts
            .as_ref()
            .filter(|_| response.status().as_u16() == 200)
        {
            self.auth.passed();
            let split = split(response.into_body(), (*key, to), patience).await;
            self.spent = split.is_err();
            return split.map(Some);
        }
        self.read(response, patience).await
    }

    async fn read(
        &mut self,
        response: Response<Incoming>,
        patience: &Patience,
    ) -> Result<Option<Answer>, Failure> {
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let challenges = head.headers.get_all(PROXY_AUTHENTICATE);
        let challenges = challenges.iter().filter_map(|value| value.to_str().ok());
        let again = status == 407 && self.auth.challenged(challenges);
        let came = |bytes| {
            patience.came(bytes);
            true
        };
        let body = body::read(body, Bytes::new(), BODY_BYTES_MAX, came).await;
        self.spent = body.is_err();
        if again {
            return Ok(None);
        }
        if status != 407 {
            self.auth.passed();
        }
        // A reply that was cut is no frame, and told as such; of a refusal the status is enough.
        let body = body.unwrap_or_default();
        Ok(Some(Answer { status, body }))
    }
}

/// Gives the frames of a reply on, as they come.
async fn split(
    mut body: Incoming,
    (key, to): (Key, &mpsc::Sender<(Key, Came)>),
    patience: &Patience,
) -> Answered {
    let mut splitter = Splitter::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::Cut)?;
        let Ok(octets) = frame.into_data() else {
            continue;
        };
        patience.came(octets.len());
        splitter.push(&octets);
        while let Some(octets) = splitter.next_frame().map_err(|_| Failure::Cut)? {
            let given = to.send((key, Came::Part(octets))).await;
            given.map_err(|_| Failure::Cut)?;
        }
    }
    if !splitter.is_empty() {
        return Err(Failure::Cut);
    }
    Ok(Answer {
        status: 200,
        body: Bytes::new(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::way::Agent;
    use std::net::Ipv4Addr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A proxy that answers each request with `before`, and then has no end of `Continue`, or an answer.
    async fn proxy(before: usize, ends: bool) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4_096];
                let read = stream.read(&mut head).await.unwrap();
                assert!(read > 0);
                let heads = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(before);
                if ends {
                    stream.write_all(&heads).await.unwrap();
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    stream.write_all(&[b'x'; 300_000]).await.unwrap();
                } else {
                    while stream.write_all(&heads).await.is_ok() {}
                }
            }
        });
        Proxy::plain("127.0.0.1", port)
    }

    #[tokio::test]
    async fn heads_without_end_are_not_read() {
        let asked = |proxy: Proxy| async move {
            let carrier = Carrier::new(&Settings {
                bridge: "192.0.2.1:80".to_owned(),
                proxy: Some(proxy.clone()),
                credentials: None,
                remembered: None,
            });
            let mut job = Job {
                ask: Ask::new(&Bytes::from_static(b"x"), Coding::Raw, Agent::Own, 1),
                poured: None,
                parts: None,
            };
            let patience = Patience::new(Duration::from_secs(60), None);
            carrier.ask(&mut job, &patience).await.0
        };
        assert_eq!(asked(proxy(100, false).await).await, Err(Failure::Broken));
        let tunnel = crate::tunnel::connect(&proxy(100, false).await, None, "192.0.2.1:80").await;
        let Err(crate::tunnel::TunnelError::Io(error)) = tunnel else {
            panic!("there is no tunnel");
        };
        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
        // A few are nothing, and of what follows a head all is read.
        let answer = asked(proxy(20, true).await).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 300_000));
    }
}
