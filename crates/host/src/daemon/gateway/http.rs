//! The HTTP proxy (RFC 9110, sections 7.6 and 9.3.6): tunnels by CONNECT, and requests with the
//! whole target in their first line.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::super::desk::Desk;
use super::destination::{Destination, Refusal};
use super::{Place, join};
use crate::socks::Host;

/// How long a client may take for the head of a request.
const HEAD_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Headers that are of one hop only (RFC 9110, section 7.6.1), besides those that `Connection`
/// names.
const OF_ONE_HOP: [HeaderName; 7] = [
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

/// Serves one client.
pub(super) async fn serve(desk: Desk, client: TcpStream, place: Place) -> io::Result<()> {
    client.set_nodelay(true)?;
    let answer = service_fn(move |request| {
        let (desk, place) = (desk.clone(), Arc::clone(&place));
        async move { Ok::<_, std::convert::Infallible>(answer(&desk, request, place).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(client), answer)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}

async fn answer(desk: &Desk, request: Request<Incoming>, place: Place) -> Response<Body> {
    let Some((host, port)) = target(request.uri(), request.method()) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "This is a proxy for the members of Enishi channels: send `CONNECT host:port`, or \
             a request for `http://host.channel.enishi/`.",
        );
    };
    let destination = match Destination::find(desk, host, port).await {
        Ok(destination) => destination,
        Err(refusal) => return refuse(of_refusal(&refusal), &refusal.to_string()),
    };
    match *request.method() {
        Method::CONNECT => tunnel(destination, request, place).await,
        _ => pass_on(destination, request).await,
    }
}

/// Reads which member's port is meant.
fn target(uri: &Uri, method: &Method) -> Option<(Host, u16)> {
    let port = match *method {
        Method::CONNECT => uri.port_u16()?,
        _ if uri.scheme() == Some(&Scheme::HTTP) => uri.port_u16().unwrap_or(80),
        _ => return None,
    };
    let host = uri.host()?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bare.unwrap_or(host).parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(host.to_owned()),
    };
    Some((host, port))
}

/// Leads a client to a member; the tunnel has the place of the connection that it goes on with.
async fn tunnel(
    destination: Destination,
    request: Request<Incoming>,
    place: Place,
) -> Response<Body> {
    let mut member = match destination.connect().await {
        Ok(member) => member,
        Err(error) => return unreachable(&error),
    };
    tokio::spawn(async move {
        let joined = match hyper::upgrade::on(request).await {
            Ok(client) => join(&mut TokioIo::new(client), &mut *member).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = joined {
            tracing::debug!(%error, "a tunnel broke off");
        }
        drop(place);
    });
    Response::new(Body::empty())
}

/// Asks the member what was asked of the proxy, and returns its answer.
async fn pass_on(destination: Destination, mut request: Request<Incoming>) -> Response<Body> {
    let member = match destination.connect().await {
        Ok(member) => member,
        Err(error) => return unreachable(&error),
    };
    prepare(&mut request);
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(member)).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    match exchange.await {
        Ok(mut response) => {
            strip(response.headers_mut());
            response.map(Body::new)
        }
        Err(error) => refuse(
            StatusCode::BAD_GATEWAY,
            &format!("the member's answer is not understood: {error}"),
        ),
    }
}

/// Makes of a request to a proxy one to the server itself (RFC 9112, section 3.2).
fn prepare(request: &mut Request<Incoming>) {
    // Without the name and password that may be before the host.
    let authority = request.uri().authority().map(Authority::as_str);
    let authority = authority.and_then(|authority| authority.rsplit('@').next());
    let authority = authority.and_then(|host| HeaderValue::from_str(host).ok());
    strip(request.headers_mut());
    if let Some(authority) = authority {
        request.headers_mut().insert(HOST, authority);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
}

/// Removes what is of one hop only.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_ONE_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn of_refusal(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Outside(_) | Refusal::Own(_) => StatusCode::FORBIDDEN,
        Refusal::Unknown(_) => StatusCode::NOT_FOUND,
        Refusal::NoNetwork | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn unreachable(error: &io::Error) -> Response<Body> {
    let status = match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    refuse(status, &format!("the member is not reached: {error}"))
}

fn refuse(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_rfc_9112_writes_them() {
        let read = |method: Method, uri: &str| target(&uri.parse().unwrap(), &method);
        let name = Host::Name("aki.office.enishi".to_owned());
        let expected = Some((name.clone(), 443));
        assert_eq!(read(Method::CONNECT, "aki.office.enishi:443"), expected);
        let expected = Some((name, 80));
        assert_eq!(read(Method::GET, "http://aki.office.enishi/a?b"), expected);
        let six = Host::Address("fd77::2".parse().unwrap());
        assert_eq!(
            read(Method::GET, "http://[fd77::2]:8000/"),
            Some((six, 8000))
        );
        assert_eq!(read(Method::GET, "/a"), None);
        assert_eq!(read(Method::GET, "https://aki.office.enishi/"), None);
    }

    #[test]
    fn what_is_of_one_hop_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("proxy-connection", "keep-alive"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
    }
}
