//! Small files from a disk or by HTTP, plain or by TLS, within limits of size and time.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CACHE_CONTROL, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::body::{self, BodyError};
use crate::settings::Location;
use crate::target::Target;
use crate::tls::Trust;

/// How long a fetch takes at most.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a file is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It is longer than may be.
    #[error("{0} is longer than {1} octets")]
    Long(Location, usize),
    /// The host does not answer, or breaks off.
    #[error("{0} cannot be fetched: {1}")]
    Unreachable(Location, String),
    /// The host has no such file, or says so.
    #[error("{0} cannot be fetched: the host answers {1}")]
    Refused(Location, u16),
    /// It took longer than [`FETCH_TIME_MAX`].
    #[error("{0} cannot be fetched: nobody answers in time")]
    Slow(Location),
}

/// Fetches a file of at most `bytes_max` octets, within [`FETCH_TIME_MAX`]. Goes straight, by no proxy,
/// and follows no redirection.
///
/// # Errors
/// [`FetchError`] tells what to look at.
pub async fn fetch(
    location: &Location,
    bytes_max: usize,
    trust: &Trust,
) -> Result<Vec<u8>, FetchError> {
    let fetched = async {
        match location {
            Location::Http(url) => by_http(location, url, bytes_max, trust).await,
            Location::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path, bytes_max));
                let read = read
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                match read {
                    Ok(octets) if octets.len() > bytes_max => {
                        Err(FetchError::Long(location.clone(), bytes_max))
                    }
                    Ok(octets) => Ok(octets),
                    Err(error) => Err(unreachable(location, &error)),
                }
            }
        }
    };
    let fetched = tokio::time::timeout(FETCH_TIME_MAX, fetched).await;
    fetched.unwrap_or_else(|_| Err(FetchError::Slow(location.clone())))
}

/// Reads a file, one octet more than may be at most. What is no file is not read: a pipe may never end.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut octets = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut octets)?;
    Ok(octets)
}

async fn by_http(
    location: &Location,
    url: &str,
    bytes_max: usize,
    trust: &Trust,
) -> Result<Vec<u8>, FetchError> {
    let target = Target::parse(url);
    let target = target.map_err(|error| unreachable(location, &error))?;
    let stream = TcpStream::connect((target.host(), target.port())).await;
    let stream = stream.map_err(|error| unreachable(location, &error))?;
    if target.scheme() == "https" {
        let stream = trust.connect(target.host(), stream).await;
        let stream = stream.map_err(|error| unreachable(location, &error))?;
        return ask(location, (url, &target), bytes_max, stream).await;
    }
    ask(location, (url, &target), bytes_max, stream).await
}

/// Asks the host of a URL for it, over a stream.
async fn ask(
    location: &Location,
    (url, target): (&str, &Target),
    bytes_max: usize,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Vec<u8>, FetchError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(location, &error))?;
    let exchange = async {
        let seen = target.to_string();
        let authority = seen.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.trim_end_matches('/');
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.find(['/', '?']).map_or("/", |at| &rest[at..]);
        let path = path.split('#').next().unwrap_or("/");
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        let request = Request::get(path)
            .header(HOST, authority)
            .header(USER_AGENT, "enishi")
            .header(CACHE_CONTROL, "no-cache")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|error| unreachable(location, &error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| unreachable(location, &error))?;
        if response.status() != StatusCode::OK {
            let status = response.status().as_u16();
            return Err(FetchError::Refused(location.clone(), status));
        }
        match body::read(response.into_body(), bytes_max).await {
            Ok(octets) => Ok(octets),
            Err(BodyError::Long) => Err(FetchError::Long(location.clone(), bytes_max)),
            Err(BodyError::Broken(error)) => Err(unreachable(location, &error)),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer was read.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(unreachable(location, &error)),
        },
    }
}

fn unreachable(location: &Location, error: &impl ToString) -> FetchError {
    FetchError::Unreachable(location.clone(), error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers every request with `answer`, and returns where.
    pub(crate) async fn serve(answer: Vec<u8>) -> Location {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut octets = [0; 1024];
                let _ = stream.read(&mut octets).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        Location::Http(format!("http://{place}/file?x#y"))
    }

    #[tokio::test]
    async fn files_come_from_disk_and_by_http() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
        let location = serve(answer).await;
        assert_eq!(
            fetch(&location, 5, &Trust::default()).await.unwrap(),
            b"hello"
        );
        assert_eq!(
            fetch(&location, 4, &Trust::default()).await,
            Err(FetchError::Long(location, 4))
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let location = Location::File(file.path().to_owned());
        assert_eq!(
            fetch(&location, 5, &Trust::default()).await.unwrap(),
            b"hello"
        );
        assert_eq!(
            fetch(&location, 4, &Trust::default()).await,
            Err(FetchError::Long(location, 4))
        );
    }

    #[tokio::test]
    async fn a_body_in_parts_of_one_octet_comes_whole_or_is_too_long() {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.extend(b"1\r\nx\r\n".repeat(3_000));
        answer.extend(b"0\r\n\r\n");
        let location = serve(answer).await;
        let found = fetch(&location, 3_000, &Trust::default()).await;
        assert_eq!(found.unwrap(), vec![b'x'; 3_000]);
        assert_eq!(
            fetch(&location, 2_999, &Trust::default()).await,
            Err(FetchError::Long(location, 2_999))
        );
    }

    #[tokio::test]
    async fn what_is_not_there_or_never_ends_is_told() {
        let location = serve(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
        let found = fetch(&location, 5, &Trust::default()).await;
        assert_eq!(found, Err(FetchError::Refused(location, 404)));
        for path in ["/nowhere/at/all", "/dev/zero", "/tmp"] {
            let found = fetch(&Location::File(path.into()), 5, &Trust::default()).await;
            assert!(matches!(found, Err(FetchError::Unreachable(..))), "{path}");
        }
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.extend(vec![b'x'; 100_000]);
        let location = serve(endless).await;
        assert_eq!(
            fetch(&location, 50, &Trust::default()).await,
            Err(FetchError::Long(location, 50))
        );
        let location = serve(b"nonsense\r\n\r\n".to_vec()).await;
        assert!(fetch(&location, 5, &Trust::default()).await.is_err());
    }
}
