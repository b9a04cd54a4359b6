//! An endpoint of iroh alone, as its authors' examples make one: with a relay server of theirs, and
//! nothing of ours. `cargo xtask lab matrix --iroh` holds Enishi against it.
//!
//!     iroh_alone RELAY_URL CERTIFICATE SOCKET
//!
//! prints its id and whether it has come to its relay, echoes what others send, and at the Unix
//! socket takes orders: an id to connect to. The answer is one line of JSON: after how many seconds
//! the first octet came back and after how many packets went straight, or null. The certificate is that
//! of the relay server, signed by itself, as PEM. It listens at those addresses of the host by which
//! the relay is reached: at all of them, it would also take the networks that Enishi makes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use data_encoding::BASE64;
use iroh::endpoint::{Connection, Incoming, RecvStream, SendStream, presets};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, RelayUrl};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

const ALPN: &[u8] = b"enishi-lab/echo/0";
/// Where the relay listens.
const RELAY_PORT: u16 = 443;
/// How long it may take to come to the relay.
const ONLINE_MAX: Duration = Duration::from_secs(15);
/// How long the first octet may take to come back.
const FIRST_MAX: Duration = Duration::from_secs(12);
/// How long after that a direct way may take.
const DIRECT_MAX: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let relay = arguments.next().context("no URL of a relay")?;
    let certificate = arguments.next().context("no path of a certificate")?;
    let socket = arguments.next().context("no path of a socket")?;
    let relay: RelayUrl = relay.parse().context("no URL of a relay")?;
    let certificate = octets(&std::fs::read_to_string(certificate)?)?;
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::custom([relay.clone()]))
        .ca_tls_config(CaTlsConfig::custom_roots([certificate.into()]))
        .proxy_from_env()
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports();
    for address in own_addresses(&relay)? {
        builder = builder.bind_addr(SocketAddr::new(address, 0))?;
    }
    let endpoint = builder.bind().await?;
    let listener = UnixListener::bind(Path::new(&socket)).context("listening")?;
    let is_online = timeout(ONLINE_MAX, endpoint.online()).await.is_ok();
    println!(
        "{}",
        json!({ "id": endpoint.id().to_string(), "online": is_online })
    );
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let incoming = incoming.context("the endpoint is closed")?;
                tokio::spawn(echo(incoming));
            }
            asked = listener.accept() => {
                let (stream, _) = asked?;
                tokio::spawn(obey(endpoint.clone(), relay.clone(), stream));
            }
        }
    }
}

/// Returns by which addresses of this host the relay is reached.
fn own_addresses(relay: &RelayUrl) -> anyhow::Result<BTreeSet<IpAddr>> {
    let name = relay.host_str().context("a relay without a host")?;
    let reaching = |to: SocketAddr| {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let all = (name, RELAY_PORT)
        .to_socket_addrs()
        .context("looking for the relay")?;
    Ok(all.filter_map(reaching).collect())
}

/// Returns what is in the one block of a file of PEM.
fn octets(pem: &str) -> anyhow::Result<Vec<u8>> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.collect();
    BASE64.decode(text.as_bytes()).context("no certificate")
}

/// Sends back what one connection sends.
async fn echo(incoming: Incoming) -> anyhow::Result<()> {
    let connection = incoming.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    tokio::io::copy(&mut receive, &mut send).await?;
    connection.closed().await;
    Ok(())
}

/// Takes one order and answers it.
async fn obey(endpoint: Endpoint, relay: RelayUrl, stream: UnixStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let id: EndpointId = line.trim().parse().context("no id")?;
    let found = attempt(&endpoint, EndpointAddr::new(id).with_relay_url(relay)).await;
    stream.write_all(format!("{found}\n").as_bytes()).await?;
    Ok(())
}

async fn attempt(endpoint: &Endpoint, to: EndpointAddr) -> Value {
    let started = Instant::now();
    let Ok(Ok((connection, mut send, mut receive))) = timeout(FIRST_MAX, open(endpoint, to)).await
    else {
        return json!({ "first_s": null, "direct_s": null });
    };
    let first = started.elapsed();
    let mut direct = None;
    while direct.is_none() && started.elapsed() < first + DIRECT_MAX {
        let paths = connection.paths();
        let is_direct = paths.iter().any(|path| path.is_selected() && path.is_ip());
        // Something is always said, as the other side of the comparison pings.
        match word(&mut send, &mut receive).await {
            Ok(()) if is_direct => direct = Some(started.elapsed()),
            Ok(()) => sleep(LOOK_INTERVAL).await,
            Err(_) => break,
        }
    }
    connection.close(0_u32.into(), b"seen");
    let direct = direct.map(|time| time.as_secs_f64());
    json!({ "first_s": first.as_secs_f64(), "direct_s": direct })
}

async fn open(
    endpoint: &Endpoint,
    to: EndpointAddr,
) -> anyhow::Result<(Connection, SendStream, RecvStream)> {
    let connection = endpoint.connect(to, ALPN).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    word(&mut send, &mut receive).await?;
    Ok((connection, send, receive))
}

/// Says one octet and waits until it has come back.
async fn word(send: &mut SendStream, receive: &mut RecvStream) -> anyhow::Result<()> {
    send.write_all(b"w").await?;
    let mut heard = [0];
    timeout(FIRST_MAX, receive.read_exact(&mut heard)).await??;
    Ok(())
}
