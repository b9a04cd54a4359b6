//! A forward proxy with the faults that proxies of companies have, each alone or all together.
//!
//! [`Faulty`] decides what happens to one request and its reply, without sockets;
//! [`FaultyProxy`] is a proxy that does so, with a thread for each connection.

mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};

pub use proxy::FaultyProxy;

/// User and password that the proxy takes.
pub const USER: &str = "aki";
/// The password of [`USER`].
pub const PASSWORD: &str = "open \"sesame\"";

/// The longest body of a request that [`Fault::SmallRequests`] lets pass, in octets.
pub const REQUEST_BYTES_MAX: usize = 4_096;

/// The longest body of a reply that [`Fault::SmallReplies`] leaves whole, in octets.
pub const REPLY_BYTES_MAX: usize = 8_192;

/// The longest body of a reply that [`Fault::LongReplies`] leaves whole, in octets.
pub const LONG_REPLY_BYTES_MAX: usize = 2 << 20;

/// The longest body of a request that is taken where it is held until it has come whole, in octets.
pub const HELD_BYTES_MAX: usize = 8 << 20;

/// The longest path that [`Fault::ShortPaths`] takes, in characters.
pub const PATH_CHARACTERS_MAX: usize = 2_083;

/// From this length on [`Fault::Leak`] wants a reply, in octets.
pub const LEAK_BYTES: usize = 16 * 1024;

/// The part of a long request that its reply must have.
const LEAK_PART: usize = 8;

const REALM: &str = "lab";

/// How often a nonce may be used before it is stale.
const NONCE_USES_MAX: u32 = 20;

/// What is wrong with a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// CONNECT is refused.
    NoConnect,
    /// POST is forbidden.
    PostForbidden,
    /// A POST is answered as one before was, to the same address.
    PostCached,
    /// CR LF becomes LF in what is posted.
    LineEnds,
    /// What is posted loses the eighth bit.
    SevenBits,
    /// What is posted ends at the first zero.
    CutAtZero,
    /// Octets are appended to what is posted.
    Appended,
    /// Long requests are refused: 413.
    SmallRequests,
    /// Long replies are cut.
    SmallReplies,
    /// Long addresses are refused: 414.
    ShortPaths,
    /// Connections end when no browser asks.
    UnknownAgent,
    /// Connections end when something is posted that no browser posts.
    UnknownType,
    /// Cookies are taken out.
    NoCookies,
    /// Requests without `Host` are refused.
    HostRequired,
    /// HTTP/1.0 is refused.
    OnlyHttp11,
    /// User and password, by Basic.
    Basic,
    /// User and password, by Digest.
    Digest,
    /// Connections end after one reply, which does not say so.
    OneReply,
    /// After a long request with a short reply everything is forbidden for a while.
    Leak,
    /// Requests are passed on when they have come whole.
    HeldRequests,
    /// Replies are passed on when they have come whole.
    HeldReplies,
    /// Very long replies are cut.
    LongReplies,
}

impl Fault {
    /// All that there are.
    pub const ALL: [Self; 22] = [
        Self::NoConnect,
        Self::PostForbidden,
        Self::PostCached,
        Self::LineEnds,
        Self::SevenBits,
        Self::CutAtZero,
        Self::Appended,
        Self::SmallRequests,
        Self::SmallReplies,
        Self::ShortPaths,
        Self::UnknownAgent,
        Self::UnknownType,
        Self::NoCookies,
        Self::HostRequired,
        Self::OnlyHttp11,
        Self::Basic,
        Self::Digest,
        Self::OneReply,
        Self::Leak,
        Self::HeldRequests,
        Self::HeldReplies,
        Self::LongReplies,
    ];
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The address, as a proxy gets it.
    pub target: String,
    /// `HTTP/1.1`, as a rule.
    pub version: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on like this.
    Pass(Request),
    /// The proxy answers.
    Answer(Response),
    /// The connection ends.
    Drop,
}

/// The faults of a proxy, and what it remembers.
#[derive(Debug)]
pub struct Faulty {
    faults: BTreeSet<Fault>,
    block: Duration,
    blocked_until: Duration,
    cache: BTreeMap<String, Response>,
    nonces: BTreeMap<String, u32>,
}

impl Faulty {
    /// Makes a proxy with these faults, which forbids everything for `block` after a leak.
    pub fn new(faults: impl IntoIterator<Item = Fault>, block: Duration) -> Self {
        Self {
            faults: faults.into_iter().collect(),
            block,
            blocked_until: Duration::ZERO,
            cache: BTreeMap::new(),
            nonces: BTreeMap::new(),
        }
    }

    /// Whether a connection has one reply.
    pub fn ends_connections(&self) -> bool {
        self.faults.contains(&Fault::OneReply)
    }

    /// Whether requests are passed on when they have come whole: who alters them has to see the whole too.
    pub fn holds_requests(&self) -> bool {
        let holding = [
            Fault::HeldRequests,
            Fault::PostCached,
            Fault::LineEnds,
            Fault::SevenBits,
            Fault::CutAtZero,
            Fault::Appended,
            Fault::Leak,
        ];
        holding.iter().any(|fault| self.faults.contains(fault))
    }

    /// Whether replies are passed on when they have come whole.
    pub fn holds_replies(&self) -> bool {
        let holding = [Fault::HeldReplies, Fault::PostCached, Fault::Leak];
        holding.iter().any(|fault| self.faults.contains(fault))
    }

    /// Returns after how many octets replies are cut.
    pub fn reply_bytes_max(&self) -> usize {
        let has = |fault| self.faults.contains(&fault);
        match () {
            () if has(Fault::SmallReplies) => REPLY_BYTES_MAX,
            () if has(Fault::LongReplies) => LONG_REPLY_BYTES_MAX,
            () => usize::MAX,
        }
    }

    /// Decides about a request at the time `now`. Its body may not have come whole.
    pub fn request(&mut self, now: Duration, mut request: Request) -> Verdict {
        let has = |fault| self.faults.contains(&fault);
        let is_post = request.method == "POST";
        let agent = request.header("user-agent").unwrap_or_default();
        let kind = request.header("content-type").unwrap_or_default();
        let known_kind = ["application/x-www-form-urlencoded", "multipart/", "text/"];
        let path = request.target.len();
        if has(Fault::UnknownAgent) && !agent.starts_with("Mozilla/") && !agent.starts_with("curl/")
        {
            return Verdict::Drop;
        }
        if has(Fault::UnknownType)
            && is_post
            && !known_kind.iter().any(|known| kind.starts_with(known))
        {
            return Verdict::Drop;
        }
        let status = match () {
            () if has(Fault::OnlyHttp11) && request.version != "HTTP/1.1" => 505,
            () if has(Fault::HostRequired) && request.header("host").is_none_or(str::is_empty) => {
                400
            }
            () if now < self.blocked_until => 403,
            () if has(Fault::NoConnect) && request.method == "CONNECT" => 405,
            () if has(Fault::PostForbidden) && is_post => 403,
            () if has(Fault::SmallRequests) && request.length() > REQUEST_BYTES_MAX => 413,
            () if self.holds_requests() && request.length() > HELD_BYTES_MAX => 413,
            () if has(Fault::ShortPaths) && path > PATH_CHARACTERS_MAX => 414,
            () => 200,
        };
        if status != 200 {
            return Verdict::Answer(Response::of(status));
        }
        if let Some(challenge) = self.unknown(&request) {
            return Verdict::Answer(challenge);
        }
        if is_post && let Some(kept) = self.cache.get(&request.target) {
            return Verdict::Answer(kept.clone());
        }
        if is_post {
            self.alter(&mut request.body);
        }
        if self.faults.contains(&Fault::NoCookies) {
            request
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("cookie"));
        }
        Verdict::Pass(request)
    }

    /// Decides about the reply to a request as it came.
    pub fn reply(&mut self, now: Duration, request: &Request, mut response: Response) -> Response {
        let has = |fault| self.faults.contains(&fault);
        let (sent, got) = (request.body.len(), response.body.len());
        if has(Fault::Leak) && sent >= LEAK_BYTES && got < sent / LEAK_PART {
            self.blocked_until = now + self.block;
            return Response::of(403);
        }
        response.body.truncate(self.reply_bytes_max());
        if has(Fault::NoCookies) {
            response
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case("set-cookie"));
        }
        if has(Fault::PostCached) && request.method == "POST" {
            self.cache.insert(request.target.clone(), response.clone());
        }
        response
    }

    fn alter(&self, body: &mut Vec<u8>) {
        let has = |fault| self.faults.contains(&fault);
        if has(Fault::CutAtZero) {
            let end = body.iter().position(|octet| *octet == 0);
            body.truncate(end.unwrap_or(body.len()));
        }
        if has(Fault::LineEnds) {
            let mut after = body
                .iter()
                .copied()
                .skip(1)
                .chain([0])
                .collect::<Vec<u8>>()
                .into_iter();
            body.retain(|octet| !(after.next() == Some(b'\n') && *octet == b'\r'));
        }
        if has(Fault::SevenBits) {
            body.iter_mut().for_each(|octet| *octet &= 0x7f);
        }
        if has(Fault::Appended) {
            body.extend(b"\r\n<!-- scanned -->");
        }
    }

    /// Returns the challenge for a request that does not tell who asks.
    fn unknown(&mut self, request: &Request) -> Option<Response> {
        let basic = self.faults.contains(&Fault::Basic);
        let digest = self.faults.contains(&Fault::Digest);
        let told = request.header("proxy-authorization").unwrap_or_default();
        let expected = format!(
            "Basic {}",
            BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes())
        );
        let mut stale = "";
        if !basic && !digest || basic && told == expected {
            return None;
        }
        if digest && let Some(told) = told.strip_prefix("Digest ") {
            match self.digest(&request.method, told) {
                Some(true) => return None,
                Some(false) => stale = ", stale=true",
                None => {}
            }
        }
        let mut response = Response::of(407);
        let mut ask = |value: String| response.headers.push(("Proxy-Authenticate".into(), value));
        if basic {
            ask(format!("Basic realm=\"{REALM}\""));
        }
        if digest {
            let nonce = HEXLOWER.encode(&Md5::digest(format!("nonce {}", self.nonces.len())));
            self.nonces.insert(nonce.clone(), 0);
            ask(format!(
                "Digest realm=\"{REALM}\", nonce=\"{nonce}\", qop=\"auth\", algorithm=MD5{stale}"
            ));
        }
        Some(response)
    }

    /// RFC 7616: `None` when it is wrong, `Some(false)` when the nonce is used up.
    fn digest(&mut self, method: &str, told: &str) -> Option<bool> {
        let told = told.replace("\\\"", "\u{1}");
        let value = |name: &str| {
            let parameters = told.split(", ").filter_map(|item| item.split_once('='));
            let mut found = parameters.filter(|(other, _)| *other == name);
            found
                .next()
                .map(|(_, value)| value.trim_matches('"').replace('\u{1}', "\""))
        };
        let hash = |text: String| HEXLOWER.encode(&Md5::digest(text));
        let (nonce, count) = (value("nonce")?, value("nc")?);
        let secret = hash(format!(
            "{}:{REALM}:{PASSWORD}",
            value("username").filter(|user| user == USER)?
        ));
        let asked = hash(format!("{method}:{}", value("uri")?));
        let expected = hash(format!(
            "{secret}:{nonce}:{count}:{}:auth:{asked}",
            value("cnonce")?
        ));
        let uses = self.nonces.get_mut(&nonce)?;
        let count = u32::from_str_radix(&count, 16).ok()?;
        let well = expected == value("response")? && count > *uses;
        *uses = count.max(*uses);
        well.then_some(*uses <= NONCE_USES_MAX)
    }
}

impl Request {
    /// Returns the first value of a header; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Returns the length of the whole body, in octets.
    pub fn length(&self) -> usize {
        let declared = self.header("content-length");
        let declared = declared.and_then(|length| length.trim().parse().ok());
        declared.unwrap_or(0).max(self.body.len())
    }
}

impl Response {
    /// Makes a page that says no more than the status.
    pub fn of(status: u16) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), "text/html".into())],
            body: format!("<html><h1>{status}</h1></html>").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(body: &[u8]) -> Request {
        Request {
            method: "POST".into(),
            target: "http://a/b".into(),
            version: "HTTP/1.1".into(),
            headers: Vec::new(),
            body: body.to_vec(),
        }
    }

    fn passed(fault: Fault, body: &[u8]) -> Option<Vec<u8>> {
        match Faulty::new([fault], Duration::ZERO).request(Duration::ZERO, post(body)) {
            Verdict::Pass(request) => Some(request.body),
            Verdict::Answer(_) | Verdict::Drop => None,
        }
    }

    #[test]
    fn what_is_posted_is_altered() {
        assert_eq!(
            passed(Fault::NoCookies, b"a\r\n\0\xe5").unwrap(),
            b"a\r\n\0\xe5"
        );
        assert_eq!(
            passed(Fault::LineEnds, b"a\r\nb\rc\r\n").unwrap(),
            b"a\nb\rc\n"
        );
        assert_eq!(passed(Fault::SevenBits, b"\xe5").unwrap(), b"\x65");
        assert_eq!(passed(Fault::CutAtZero, b"a\0b").unwrap(), b"a");
        assert!(passed(Fault::Appended, b"a").unwrap().starts_with(b"a\r\n"));
        for fault in [
            Fault::PostForbidden,
            Fault::UnknownAgent,
            Fault::UnknownType,
            Fault::HostRequired,
            Fault::Basic,
            Fault::Digest,
        ] {
            assert_eq!(passed(fault, b"a"), None, "{fault:?}");
        }
    }

    #[test]
    fn a_leak_is_punished_for_a_while_and_posts_are_cached() {
        let mut faulty = Faulty::new([Fault::Leak, Fault::PostCached], Duration::from_secs(2));
        let long = post(&vec![0; LEAK_BYTES]);
        let reply = faulty.reply(Duration::ZERO, &long, Response::of(200));
        assert_eq!(reply.status, 403);
        let verdict = faulty.request(Duration::from_secs(1), post(b""));
        assert_eq!(verdict, Verdict::Answer(Response::of(403)));
        let verdict = faulty.request(Duration::from_secs(2), post(b""));
        assert_eq!(verdict, Verdict::Pass(post(b"")));
        faulty.reply(Duration::from_secs(2), &post(b""), Response::of(204));
        let verdict = faulty.request(Duration::from_secs(2), post(b"other"));
        assert_eq!(verdict, Verdict::Answer(Response::of(204)));
    }
}
