//! The answer of a PAC file: `PROXY host:port; SOCKS5 host:port; DIRECT`.
//!
//! After MDN, "Proxy Auto-Configuration (PAC) file", "Return value format": entries between semicolons,
//! in the order in which they are to be tried. We differ in this: `SOCKS` is taken for version 5, and
//! `SOCKS4`, which is not spoken here, is passed over.

use crate::route::{ProxyServer, Route};
use crate::target::split_port;

/// The longest answer that is read, in octets.
pub const ANSWER_BYTES_MAX: usize = 4_096;

/// The most routes of one answer; further ones are left out.
pub const ROUTES_MAX: usize = 16;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The routes, in the order in which they are to be tried; 1 to [`ROUTES_MAX`].
    pub routes: Vec<Route>,
    /// What is passed over, in words for people; no passwords.
    pub notice: Option<String>,
}

/// Reads an answer. Entries that are none are passed over; what names no route is [`Route::Direct`], as
/// browsers have it.
///
/// An answer of more than [`ANSWER_BYTES_MAX`] octets counts as one that names none.
#[must_use]
pub fn parse(answer: &str) -> Answer {
    let mut notice = None;
    let answer = match answer.len() {
        0..=ANSWER_BYTES_MAX => answer,
        _ => {
            notice = Some(format!(
                "the PAC file's answer has more than {ANSWER_BYTES_MAX} octets and is passed over"
            ));
            ""
        }
    };
    let mut routes: Vec<Route> = Vec::new();
    for text in answer.split(';').filter(|text| !text.trim().is_empty()) {
        match entry(text) {
            Some(route) if routes.contains(&route) => {}
            Some(route) if routes.len() < ROUTES_MAX => routes.push(route),
            Some(_) => {
                notice = Some(format!(
                    "the PAC file names more than {ROUTES_MAX} proxies; the others are passed over"
                ));
            }
            None => notice = Some(passed_over(text)),
        }
    }
    if routes.is_empty() {
        routes.push(Route::Direct);
    }
    Answer { routes, notice }
}

/// Says that an entry is none, by its first word: what follows may hold a password.
fn passed_over(text: &str) -> String {
    let kind = text.split_ascii_whitespace().next().unwrap_or_default();
    let kind = kind.chars().take_while(char::is_ascii_alphanumeric);
    let kind: String = kind.take(16).collect();
    format!(
        "the PAC file's answer has an entry `{kind} …` that is passed over: write PROXY, HTTPS or SOCKS5 \
         with host:port, or DIRECT"
    )
}

fn entry(text: &str) -> Option<Route> {
    let mut words = text.split_ascii_whitespace();
    let kind = words.next()?.to_ascii_uppercase();
    let place = words.next();
    if words.next().is_some() {
        return None;
    }
    let (route, usual): (fn(ProxyServer) -> Route, u16) = match kind.as_str() {
        "DIRECT" => return place.is_none().then_some(Route::Direct),
        "PROXY" | "HTTP" => (Route::Http, 80),
        "HTTPS" => (Route::Https, 443),
        "SOCKS" | "SOCKS5" => (Route::Socks5, 1_080),
        _ => return None,
    };
    let (host, port) = split_port(place?)?;
    let server = ProxyServer::new(host, port.unwrap_or(usual), None);
    server.ok().map(route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(answer: &str) -> String {
        let routes: Vec<String> = parse(answer)
            .routes
            .iter()
            .map(ToString::to_string)
            .collect();
        routes.join("; ")
    }

    #[test]
    fn answers_are_read_in_their_order() {
        for (answer, routes) in [
            (
                "PROXY a:8080; SOCKS5 b:1; DIRECT",
                "PROXY a:8080; SOCKS5 b:1; DIRECT",
            ),
            ("proxy a:1;direct", "PROXY a:1; DIRECT"),
            ("HTTPS a", "HTTPS a:443"),
            ("PROXY a", "PROXY a:80"),
            ("SOCKS [2001:db8::1]", "SOCKS5 [2001:db8::1]:1080"),
            ("SOCKS4 a:1; PROXY b:2", "PROXY b:2"),
            (" ;; PROXY a:1 ;PROXY a:1", "PROXY a:1"),
        ] {
            assert_eq!(read(answer), routes, "{answer}");
        }
    }

    #[test]
    fn what_is_passed_over_is_told_without_passwords() {
        for answer in [
            "SOCKS4 a:1; PROXY b:2",
            "PROXY u:secret@a:1",
            "u:secret@a:1",
            &"PROXY a:1;".repeat(1_000),
            &(0..20)
                .map(|n| format!("PROXY a:{};", n + 1))
                .collect::<String>(),
        ] {
            let notice = parse(answer).notice.unwrap();
            assert!(!notice.contains("secret"), "{notice}");
        }
        assert_eq!(parse(" ;; PROXY a:1 ;PROXY a:1;").notice, None);
    }

    #[test]
    fn what_names_no_route_is_direct() {
        for answer in [
            "",
            "null",
            "PROXY",
            "PROXY a b",
            "PROXY a:99999",
            "PROXY :80",
            "PROXY u:p@a:1",
            "PROXY \u{7}:1",
            "DIRECT a:1",
            &"PROXY a:1;".repeat(1_000),
        ] {
            assert_eq!(read(answer), "DIRECT", "{answer:.20}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_routes_that_are_read_as_they_are_shown(
            answer in "((PROXY|HTTPS|SOCKS5?|DIRECT|.{0,5}) ?[a-z0-9.:\\[\\]]{0,12}[; ]?){0,20}"
        ) {
            let routes = parse(&answer).routes;
            prop_assert!((1..=ROUTES_MAX).contains(&routes.len()));
            let again = parse(&read(&answer));
            prop_assert_eq!((again.routes, again.notice), (routes, None));
        }
    }
}
