//! The proxy: threads, sockets and as much of HTTP/1.1 as a test needs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown as SocketShutdown, shutdown};

use super::{Fault, Faulty, HELD_BYTES_MAX, Request, Response, Verdict};
use crate::host::Host;

/// Bodies of requests up to this length are taken whole in any case, in octets.
const SHORT_BYTES_MAX: usize = 2 << 20;

/// Octets that are passed on at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The longest line of a head, in octets.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The most lines of a head.
const LINES_MAX: usize = 100;

/// A proxy on a port of this host. It ends, with all connections, when it is dropped.
#[derive(Debug)]
pub struct FaultyProxy {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    accepter: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    faulty: Mutex<Faulty>,
    ended: AtomicBool,
    /// What is to be shut down at the end.
    streams: Mutex<BTreeMap<u64, TcpStream>>,
    count: AtomicU64,
}

/// A connection that is to be shut down at the end, unless it ends before.
struct Kept<'a> {
    id: u64,
    shared: &'a Shared,
}

/// A connection to a server, and where it leads.
struct Server<'a> {
    host: String,
    reader: BufReader<TcpStream>,
    _kept: Kept<'a>,
}

impl FaultyProxy {
    /// Starts a proxy on a free port of 127.0.0.1. After a leak it forbids everything for `block`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(faults: impl IntoIterator<Item = Fault>, block: Duration) -> io::Result<Self> {
        Self::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, faults, block)
    }

    /// The same at an address of a host of a lab.
    ///
    /// # Errors
    /// When the host is gone or the address taken.
    pub fn start_on(
        host: &Host,
        address: SocketAddr,
        faults: impl IntoIterator<Item = Fault> + Send,
        block: Duration,
    ) -> io::Result<Self> {
        // Its threads are of the network of the one that starts them.
        let start = || {
            host.enter().map_err(io::Error::other)?;
            Self::serve(TcpListener::bind(address)?, faults, block)
        };
        thread::scope(|scope| {
            let started = scope.spawn(start).join();
            started.unwrap_or_else(|_| Err(io::Error::other("it did not start")))
        })
    }

    fn serve(
        listener: TcpListener,
        faults: impl IntoIterator<Item = Fault>,
        block: Duration,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            began: Instant::now(),
            faulty: Mutex::new(Faulty::new(faults, block)),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
            count: AtomicU64::new(0),
        });
        let (accepting, taken) = (shared.clone(), listener.try_clone()?);
        let accepter = Some(thread::spawn(move || accept(&taken, &accepting)));
        Ok(Self {
            address,
            listener,
            shared,
            accepter,
        })
    }

    /// Has other faults from now on, and forgets everything.
    pub fn change(&self, faults: impl IntoIterator<Item = Fault>, block: Duration) {
        *lock(&self.shared.faulty) = Faulty::new(faults, block);
    }

    /// Returns where the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The accepter waits for a connection, and may do so in another network.
        let _ = shutdown(self.listener.as_raw_fd(), SocketShutdown::Both);
        let joined = self.accepter.take().map(JoinHandle::join);
        drop(joined);
        for stream in lock(&self.shared.streams).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let shared = shared.clone();
        thread::spawn(move || {
            let closing = client.try_clone();
            // However it ends, the connection ends.
            let _ = serve(client, &shared);
            if let Ok(closing) = closing {
                let _ = closing.shutdown(Shutdown::Both);
            }
        });
    }
}

/// Passes requests on, one after the other.
fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let _kept = shared.keep(&client)?;
    let mut writer = client.try_clone()?;
    let mut reader = BufReader::new(client);
    let mut server = None;
    while let Some(mut request) = read_request(&mut reader)? {
        let length = request.length();
        let taken = match lock(&shared.faulty).holds_requests() {
            true => HELD_BYTES_MAX,
            false => SHORT_BYTES_MAX,
        };
        if length <= taken {
            request.body = vec![0; length];
            reader.read_exact(&mut request.body)?;
        }
        let left = length - request.body.len();
        let came = request.clone();
        let verdict = lock(&shared.faulty).request(shared.now(), request);
        let response = match verdict {
            Verdict::Drop => return Ok(()),
            Verdict::Answer(response) => response,
            Verdict::Pass(request) if request.method == "CONNECT" => {
                return tunnel(&request.target, reader, writer, shared);
            }
            Verdict::Pass(request) => {
                let stream = pass(&mut server, &request, left, shared)?;
                copy(&mut reader, stream, left)?;
                let (first, headers) = read_head(stream)?.ok_or_else(invalid)?;
                let status = first.split(' ').nth(1);
                let status = status.and_then(|status| status.parse().ok());
                let mut response = Response {
                    status: status.ok_or_else(invalid)?,
                    headers,
                    body: Vec::new(),
                };
                if is_chunked(&response) && !lock(&shared.faulty).holds_replies() {
                    let response = lock(&shared.faulty).reply(shared.now(), &came, response);
                    write_chunked(&mut writer, &response)?;
                    let most = lock(&shared.faulty).reply_bytes_max();
                    pass_chunks(stream, &mut writer, most)?;
                    if lock(&shared.faulty).ends_connections() {
                        break;
                    }
                    continue;
                }
                response.body = read_body(stream, &response)?;
                lock(&shared.faulty).reply(shared.now(), &came, response)
            }
        };
        write_response(&mut writer, &response)?;
        // What was not read stands before the next request.
        if lock(&shared.faulty).ends_connections() || left > 0 {
            break;
        }
    }
    Ok(())
}

/// Passes a request on, of whose body so much is still to come, and returns the connection on which the answer
/// comes.
fn pass<'a, 'b>(
    server: &'b mut Option<Server<'a>>,
    request: &Request,
    left: usize,
    shared: &'a Shared,
) -> io::Result<&'b mut BufReader<TcpStream>> {
    let rest = request.target.strip_prefix("http://").ok_or_else(invalid)?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    if server.as_ref().is_none_or(|server| server.host != host) {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        *server = Some(Server {
            host: host.to_owned(),
            _kept: shared.keep(&stream)?,
            reader: BufReader::new(stream),
        });
    }
    let stream = &mut server.as_mut().ok_or_else(invalid)?.reader;
    let path = if path.is_empty() { "/" } else { path };
    let mut head = format!("{} {path} HTTP/1.1\r\n", request.method);
    let kept = |name: &str| {
        !name.eq_ignore_ascii_case("content-length")
            && !name.to_ascii_lowercase().starts_with("proxy-")
    };
    for (name, value) in request.headers.iter().filter(|(name, _)| kept(name)) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = request.body.len() + left;
    head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
    stream.get_mut().write_all(head.as_bytes())?;
    stream.get_mut().write_all(&request.body)?;
    Ok(stream)
}

/// Passes so much of a body on, as it comes.
fn copy(
    from: &mut BufReader<TcpStream>,
    to: &mut BufReader<TcpStream>,
    mut left: usize,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    while left > 0 {
        let most = left.min(block.len());
        let read = from.read(&mut block[..most])?;
        if read == 0 {
            return Err(invalid());
        }
        to.get_mut().write_all(&block[..read])?;
        left -= read;
    }
    Ok(())
}

/// Carries octets both ways until both have ended.
fn tunnel(
    to: &str,
    mut reader: BufReader<TcpStream>,
    mut writer: TcpStream,
    shared: &Shared,
) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let _kept = shared.keep(&server)?;
    writer.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    let back = thread::spawn(move || {
        // An end by error is an end.
        let _ = io::copy(&mut from_server, &mut writer);
        let _ = writer.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut reader, &mut to_server);
    let _ = to_server.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}

fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some((first, headers)) = read_head(reader)? else {
        return Ok(None);
    };
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    Ok(Some(Request {
        method,
        target,
        version,
        headers,
        body: Vec::new(),
    }))
}

type Head = (String, Vec<(String, String)>);

/// Returns the first line and the headers; `None` when the connection has ended.
fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let first = read_line(reader)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        match line.split_once(':') {
            Some((name, value)) if headers.len() < LINES_MAX => {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
            None if line.is_empty() => return Ok(Some((first, headers))),
            Some(_) | None => return Err(invalid()),
        }
    }
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn is_chunked(response: &Response) -> bool {
    let mut found = response.headers.iter();
    found.any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
    })
}

fn read_body(reader: &mut BufReader<TcpStream>, response: &Response) -> io::Result<Vec<u8>> {
    if is_chunked(response) {
        let mut body = Vec::new();
        while let Some(chunk) = read_chunk(reader)? {
            body.extend(chunk);
            if body.len() > HELD_BYTES_MAX {
                return Err(invalid());
            }
        }
        return Ok(body);
    }
    let mut lengths = response
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths
        .next()
        .map_or(Ok(0), |(_, value)| value.parse::<usize>());
    let length = length.ok().filter(|length| *length <= HELD_BYTES_MAX);
    let mut body = vec![0; length.ok_or_else(invalid)?];
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// Reads a chunk (RFC 9112, section 7.1); `None` at the end.
fn read_chunk(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let length = usize::from_str_radix(&read_line(reader)?, 16).map_err(|_| invalid())?;
    if length > HELD_BYTES_MAX {
        return Err(invalid());
    }
    let mut chunk = vec![0; length];
    reader.read_exact(&mut chunk)?;
    // What ends a chunk, or the trailer.
    let end = read_line(reader)?;
    match (length, end.is_empty()) {
        (_, false) => Err(invalid()),
        (0, true) => Ok(None),
        (_, true) => Ok(Some(chunk)),
    }
}

/// Passes a body on as it comes, and ends the connection after so many octets.
fn pass_chunks(
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
    mut left: usize,
) -> io::Result<()> {
    while let Some(chunk) = read_chunk(reader)? {
        left = left.checked_sub(chunk.len()).ok_or_else(invalid)?;
        write!(writer, "{:x}\r\n", chunk.len())?;
        writer.write_all(&chunk)?;
        writer.write_all(b"\r\n")?;
    }
    writer.write_all(b"0\r\n\r\n")
}

/// Writes the head of a response whose body follows.
fn write_chunked(writer: &mut TcpStream, response: &Response) -> io::Result<()> {
    writer.write_all(head(response).as_bytes())?;
    writer.write_all(b"Transfer-Encoding: chunked\r\n\r\n")
}

/// Returns the head of a response but for what tells how long the body is.
fn head(response: &Response) -> String {
    let mut head = format!("HTTP/1.1 {} .\r\n", response.status);
    let told = ["content-length", "transfer-encoding"];
    for (name, value) in &response.headers {
        if !told.iter().any(|told| name.eq_ignore_ascii_case(told)) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head
}

fn write_response(writer: &mut TcpStream, response: &Response) -> io::Result<()> {
    let mut head = head(response);
    head.push_str(&format!("Content-Length: {}\r\n\r\n", response.body.len()));
    writer.write_all(head.as_bytes())?;
    writer.write_all(&response.body)
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Remembers a connection, to shut it down at the end.
    fn keep(&self, stream: &TcpStream) -> io::Result<Kept<'_>> {
        let stream = stream.try_clone()?;
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        lock(&self.streams).insert(id, stream);
        let kept = Kept { id, shared: self };
        // Who comes after the end was not shut down.
        if self.ended.load(Ordering::SeqCst) {
            return Err(invalid());
        }
        Ok(kept)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        lock(&self.shared.streams).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
