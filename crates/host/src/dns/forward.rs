//! Asks other servers what is not for this one, as they were asked here: the octets pass
//! unchanged, but for the number of the query.
//!
//! Each query has a socket and a port of its own and a random number (RFC 5452, section 9), is
//! answered by the address that was asked, and by the question that was asked, or not at all.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use enishi_dns::Transport;
use enishi_dns::answer::{HEADER_BYTES, is_answer_to};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How many servers are asked, one after the other.
const SERVERS_MAX: usize = 3;

/// How long each of them may take: together less than the five seconds after which a program
/// asks the next server itself.
const SERVER_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The longest answer by UDP that is taken, in octets.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// The flag of an answer that was cut, in the third octet (RFC 1035, section 4.1.1).
const TRUNCATED: u8 = 0x02;

/// Asks the servers in turn; none when none of them answers. The answer of one that cannot
/// answer counts only when no other does.
pub(super) async fn ask(
    servers: &[SocketAddr],
    query: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let mut poor = None;
    for server in servers.iter().take(SERVERS_MAX) {
        let asked = async {
            match transport {
                Transport::Udp => by_datagram(*server, query).await,
                Transport::Tcp => by_stream(*server, query).await,
            }
        };
        match timeout(SERVER_TIME_MAX, asked).await {
            Ok(Ok(answer)) if could_answer(&answer) => return Some(answer),
            Ok(Ok(answer)) => poor = poor.or(Some(answer)),
            Ok(Err(error)) => tracing::debug!(%error, "a DNS server cannot be asked"),
            Err(_) => tracing::debug!("a DNS server does not answer"),
        }
    }
    poor
}

/// Reads a message of a stream: its length in two octets before it (RFC 1035, section 4.2.2).
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut octets = vec![0; usize::from(length)];
    stream.read_exact(&mut octets).await?;
    Ok(octets)
}

/// Writes a message to a stream, with its length before it.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let octets = [&length.to_be_bytes(), message].concat();
    stream.write_all(&octets).await
}

async fn by_datagram(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let renumbered = renumber(query)?;
    socket.send(&renumbered).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &mut buffer[..length];
        if length < HEADER_BYTES || !is_answer(answer, &renumbered) {
            continue;
        }
        if length == DATAGRAM_BYTES_MAX {
            answer[2] |= TRUNCATED;
        }
        answer[..2].copy_from_slice(&query[..2]);
        return Ok(answer.to_vec());
    }
}

async fn by_stream(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let renumbered = renumber(query)?;
    write_message(&mut stream, &renumbered).await?;
    let mut answer = read_message(&mut stream).await?;
    if !is_answer(&answer, &renumbered) {
        return Err(io::Error::other("it answers something else"));
    }
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

fn is_answer(answer: &[u8], query: &[u8]) -> bool {
    answer.len() >= HEADER_BYTES && answer[..2] == query[..2] && is_answer_to(answer, query)
}

/// Gives a query a number that nobody can guess.
fn renumber(query: &[u8]) -> io::Result<Vec<u8>> {
    let mut number = [0; 2];
    getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
    let mut query = query.to_vec();
    query[..2].copy_from_slice(&number);
    Ok(query)
}

/// Tells whether a server answered anything but that it failed or refuses.
fn could_answer(answer: &[u8]) -> bool {
    let code = answer.get(3).map_or(0, |flags| flags & 0x0f);
    !matches!(code, 2 | 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `example.org. A`, number 7.
    const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";

    fn answer_to(query: &[u8], code: u8) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] |= code;
        answer
    }

    async fn server(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                for answer in answer(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_to_other_questions_and_numbers_are_not_taken() {
        let good = server(|query| {
            let mut other_number = answer_to(query, 0);
            other_number[0] ^= 1;
            let mut other_name = answer_to(query, 0);
            other_name[13] ^= 1;
            vec![
                vec![0],
                query.to_vec(),
                other_number,
                other_name,
                answer_to(query, 3),
            ]
        });
        let answer = ask(&[good.await], QUERY, Transport::Udp).await.unwrap();
        assert_eq!(answer, answer_to(QUERY, 3));
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_is_silent_or_fails() {
        let silent = server(|_| Vec::new()).await;
        let failing = server(|query| vec![answer_to(query, 2)]).await;
        let good = server(|query| vec![answer_to(query, 0)]).await;
        let servers = [silent, failing, good];
        let answer = ask(&servers, QUERY, Transport::Udp).await.unwrap();
        assert_eq!(answer, answer_to(QUERY, 0));
        let answer = ask(&servers[..2], QUERY, Transport::Udp).await.unwrap();
        assert_eq!(answer, answer_to(QUERY, 2));
        assert_eq!(ask(&[], QUERY, Transport::Udp).await, None);
    }
}
