//! The dress of a frame: how it becomes an HTTP request or reply, and how it is taken out again.
//!
//! | dress | request |
//! |---|---|
//! | raw | `POST /UNIQUE`, `application/octet-stream`: the frame |
//! | upload | `POST /UNIQUE`, `multipart/form-data`: the frame, as a browser uploads a file |
//! | form | `POST /UNIQUE`, `application/x-www-form-urlencoded`: `e=` and the frame in base64url |
//! | path | `GET /UNIQUE/FRAME.html`: the frame in base64url, for those who forbid POST |
//!
//! `UNIQUE` is drawn anew for each request, also when a frame is sent again: no cache has an answer.
//! Replies are raw, or raw under the name of a picture, or text: `e=` and base64url. Base64 needs no
//! padding and ends at `.`, so what is appended is left alone. Whoever takes a frame out sees by its
//! first octets how it is dressed, whatever the content type says: proxies change those too.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::FRAME_BYTES_MAX;
use crate::frame::{self, Damage};

/// The body of the longest request or reply, in octets: a frame in base64 and what is around it.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX / 3 * 4 + 1024;

/// The longest frame in a path, in octets: addresses over 8,192 characters are refused by many.
pub const PATH_FRAME_BYTES_MAX: usize = 6_000;

const BOUNDARY: &str = "------------------------d1f0a7c3e95b4826";
const UPLOAD_TYPE: &str = "multipart/form-data; boundary=------------------------d1f0a7c3e95b4826";
const FIELD: &[u8] = b"e=";
const UNIQUE_CHARACTERS: usize = 11;

/// The dress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Octets in the body.
    Raw,
    /// Octets in the body, as a file that is uploaded.
    Upload,
    /// Base64 in a field of a form.
    Form,
    /// Base64 in the path of a GET.
    Path,
}

impl Coding {
    /// Returns whether the request is a POST; otherwise it is a GET.
    #[must_use]
    pub fn is_post(self) -> bool {
        !matches!(self, Self::Path)
    }

    /// Returns the content type of the body.
    #[must_use]
    pub fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Raw => Some("application/octet-stream"),
            Self::Upload => Some(UPLOAD_TYPE),
            Self::Form => Some("application/x-www-form-urlencoded"),
            Self::Path => None,
        }
    }

    /// Returns the longest frame that can be dressed so, in octets.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Raw | Self::Upload | Self::Form => FRAME_BYTES_MAX,
            Self::Path => PATH_FRAME_BYTES_MAX,
        }
    }

    /// Returns the dress to try where this one arrives damaged.
    #[must_use]
    pub fn safer(self) -> Option<Self> {
        match self {
            Self::Raw | Self::Upload => Some(Self::Form),
            Self::Form => Some(Self::Path),
            Self::Path => None,
        }
    }
}

/// The dress of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyCoding {
    /// Octets.
    Raw,
    /// Octets under the name of a picture.
    Image,
    /// Base64 under the name of a page.
    Text,
}

impl ReplyCoding {
    /// Returns the content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Raw => "application/octet-stream",
            Self::Image => "image/png",
            Self::Text => "text/html",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Image => 1,
            Self::Text => 2,
        }
    }

    pub(crate) fn of(code: u8) -> Option<Self> {
        [Self::Raw, Self::Image, Self::Text]
            .get(usize::from(code))
            .copied()
    }
}

/// What a client says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// What it is.
    Own,
    /// A browser, for proxies that let nothing else pass.
    Browser,
}

impl Agent {
    /// Returns the value of the header `User-Agent`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Own => concat!("enishi/", env!("CARGO_PKG_VERSION")),
            Self::Browser => {
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
            }
        }
    }
}

/// How requests and replies pass a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The dress of what carries packets upward.
    pub coding: Coding,
    /// The dress of polls.
    pub polls: Coding,
    /// The dress of replies.
    pub reply: ReplyCoding,
    /// Who asks.
    pub agent: Agent,
    /// The longest frame that passed upward, in octets.
    pub ask_bytes: usize,
    /// The longest frame that passed downward, in octets.
    pub reply_bytes: usize,
    /// Whether long requests need replies that are not short.
    pub pad: bool,
    /// How long a reply may be that is written as packets come, in octets; 0 where such replies do not pass.
    #[serde(default)]
    pub stream_bytes: usize,
    /// The same for requests.
    #[serde(default)]
    pub pour_bytes: usize,
}

/// A request, without what only the connection knows: host, proxy and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Method, content type and encoding.
    pub coding: Coding,
    /// Who asks.
    pub agent: Agent,
    /// The path, from the first slash.
    pub path: String,
    /// The body; empty in a GET.
    pub body: Bytes,
    /// The length of the whole body when more is still to come, in octets.
    pub length: Option<usize>,
    /// Whether the reply is a stream of frames.
    pub streamed: bool,
}

impl Ask {
    /// Dresses a frame; `unique` is in no other request.
    #[must_use]
    pub fn new(frame: &Bytes, coding: Coding, agent: Agent, unique: u64) -> Self {
        let mut path = format!("/{}", BASE64URL_NOPAD.encode(&unique.to_be_bytes()));
        let body = match coding {
            Coding::Raw => frame.clone(),
            Coding::Upload => upload(frame),
            Coding::Form => field(frame),
            Coding::Path => {
                path.push('/');
                path.push_str(&BASE64URL_NOPAD.encode(frame));
                path.push_str(".html");
                Bytes::new()
            }
        };
        Self {
            coding,
            agent,
            path,
            body,
            length: None,
            streamed: false,
        }
    }

    /// Takes the frame out of a request for `path`. `None` when it is none of the bridge's
    /// requests. Looks at most at [`BODY_BYTES_MAX`] octets.
    #[must_use]
    pub fn undress(path: &str, body: &Bytes) -> Option<Result<Bytes, Damage>> {
        let path = path.strip_prefix('/')?;
        let (unique, rest) = path.split_once('/').unwrap_or((path, ""));
        let is_unique =
            unique.len() == UNIQUE_CHARACTERS && BASE64URL_NOPAD.decode(unique.as_bytes()).is_ok();
        match rest {
            _ if !is_unique => None,
            "" if body.is_empty() => Some(Err(Damage::Short)),
            "" => Some(undress(body)),
            _ => Some(decode(rest.as_bytes())),
        }
    }
}

/// The body of a reply.
#[must_use]
pub fn dress_reply(frame: &Bytes, coding: ReplyCoding) -> Bytes {
    match coding {
        ReplyCoding::Raw | ReplyCoding::Image => frame.clone(),
        ReplyCoding::Text => field(frame),
    }
}

/// Takes a frame out of a body, however it is dressed.
///
/// # Errors
/// When there is none.
pub fn undress(body: &Bytes) -> Result<Bytes, Damage> {
    if body.first() == Some(&frame::VERSION) {
        return Ok(body.clone());
    }
    if let Some(text) = body.strip_prefix(FIELD) {
        return decode(text);
    }
    if body.starts_with(b"--") {
        let head = &body[..body.len().min(512)];
        let end = head.windows(4).position(|window| window == b"\r\n\r\n");
        return end.map(|end| body.slice(end + 4..)).ok_or(Damage::Short);
    }
    Err(Damage::Foreign)
}

fn upload(frame: &Bytes) -> Bytes {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"e\"; filename=\"e\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [
        head.as_bytes(),
        frame,
        b"\r\n--",
        BOUNDARY.as_bytes(),
        b"--\r\n",
    ]
    .concat()
    .into()
}

fn field(frame: &Bytes) -> Bytes {
    let mut body = String::with_capacity(frame.len() / 3 * 4 + 8);
    body.push_str("e=");
    BASE64URL_NOPAD.encode_append(frame, &mut body);
    body.push('.');
    body.into()
}

/// Decodes base64 up to the mark that ends it.
fn decode(text: &[u8]) -> Result<Bytes, Damage> {
    let end = text
        .iter()
        .position(|octet| *octet == b'.')
        .ok_or(Damage::Short)?;
    let octets = BASE64URL_NOPAD.decode(&text[..end]);
    octets.map(Bytes::from).map_err(|_| Damage::Checksum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, Kind};

    const CODINGS: [Coding; 4] = [Coding::Raw, Coding::Upload, Coding::Form, Coding::Path];

    fn frame() -> Bytes {
        let mut frame = Frame::new(Kind::Up, [9; 16]);
        frame.packets.push((0..=255).collect::<Vec<u8>>().into());
        frame.encode(0)
    }

    #[test]
    fn every_dress_comes_off_with_octets_appended() {
        for coding in CODINGS {
            let mut ask = Ask::new(&frame(), coding, Agent::Own, 5);
            if coding.is_post() {
                ask.body = [&ask.body[..], b"\r\nappended&x=1"].concat().into();
            }
            let octets = Ask::undress(&ask.path, &ask.body).unwrap().unwrap();
            assert_eq!(
                Frame::decode(&octets),
                Frame::decode(&frame()),
                "{coding:?}"
            );
        }
        for reply in [ReplyCoding::Raw, ReplyCoding::Image, ReplyCoding::Text] {
            let body = dress_reply(&frame(), reply);
            assert_eq!(undress(&body).unwrap(), frame());
            assert_eq!(ReplyCoding::of(reply.code()), Some(reply));
        }
    }

    #[test]
    fn forms_and_paths_have_only_plain_characters() {
        let ask = Ask::new(&frame(), Coding::Form, Agent::Own, 5);
        assert!(ask.body.iter().all(u8::is_ascii_graphic));
        let ask = Ask::new(&frame(), Coding::Path, Agent::Own, 5);
        assert!(ask.path.bytes().all(|octet| octet.is_ascii_graphic()) && ask.body.is_empty());
    }

    #[test]
    fn the_requests_of_others_are_told_from_damaged_ones() {
        for path in ["/", "/index.html", "*", "/favicon.ico/x", "/AAAAAAAAAA"] {
            assert!(Ask::undress(path, &Bytes::new()).is_none(), "{path}");
        }
        let unique = "/AAAAAAAAAAA";
        assert_eq!(
            Ask::undress(unique, &Bytes::from_static(b"?")),
            Some(Err(Damage::Foreign))
        );
        assert_eq!(
            Ask::undress("/AAAAAAAAAAA/RQ", &Bytes::new()),
            Some(Err(Damage::Short))
        );
    }
}
