//! What a proxy asks for before it lets somebody through: Basic (RFC 7617) and Digest (RFC 7616).
//!
//! A proxy answers 407 and names the schemes that it takes in `Proxy-Authenticate`. The strongest that
//! is spoken here is taken: Digest with SHA-256, then with MD5, then Basic, which sends the password
//! readably. Digest answers a number that the proxy draws (`nonce`) with a hash of it, the
//! password and the request, and counts its uses; a proxy says `stale` when it wants to draw
//! another. Each connection has a nonce of its own, so that the counts come in order.
//!
//! User and password are zeroed when dropped, and `Debug` hides them.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::probe::ProxyAuth;

/// The longest `Proxy-Authenticate` that is read, in octets.
const CHALLENGE_BYTES_MAX: usize = 4_096;

/// A user and a password for a proxy.
#[derive(Clone)]
pub struct Credentials {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl Credentials {
    /// Takes a user and a password.
    #[must_use]
    pub fn new(user: String, password: String) -> Self {
        Self {
            user: Zeroizing::new(user),
            password: Zeroizing::new(password),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// What is said to the proxy on one connection.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Option<Arc<Credentials>>,
    state: State,
    worked: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked for.
    Silent,
    Basic,
    Digest {
        challenge: Challenge,
        count: u32,
    },
    Failed(ProxyAuth),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    session: bool,
    qop: bool,
    user_hash: bool,
    stale: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    #[default]
    Md5,
    Sha256,
}

impl Authenticator {
    /// Begins a connection on which nothing was asked for yet.
    #[must_use]
    pub fn new(credentials: Option<Arc<Credentials>>) -> Self {
        Self {
            credentials,
            state: State::Silent,
            worked: false,
        }
    }

    /// Returns the value of `Proxy-Authorization` for a request, if one was asked for. `nonce` is
    /// random.
    pub fn header(
        &mut self,
        method: &str,
        uri: &str,
        nonce: [u8; 12],
    ) -> Option<Zeroizing<String>> {
        let credentials = self.credentials.as_ref()?;
        match &mut self.state {
            State::Silent | State::Failed(_) => None,
            State::Basic => {
                let pair = format!("{}:{}", *credentials.user, *credentials.password);
                let pair = Zeroizing::new(pair);
                Some(Zeroizing::new(format!(
                    "Basic {}",
                    BASE64.encode(pair.as_bytes())
                )))
            }
            State::Digest { challenge, count } => {
                *count += 1;
                let nonce = HEXLOWER.encode(&nonce);
                Some(challenge.answer(credentials, (method, uri), *count, &nonce))
            }
        }
    }

    /// The proxy answered something other than 407.
    pub fn passed(&mut self) {
        self.worked = true;
    }

    /// The proxy answered 407 with these challenges. Returns whether to ask once more.
    pub fn challenged<'a>(&mut self, values: impl Iterator<Item = &'a str>) -> bool {
        let schemes: Vec<Scheme> = values.flat_map(schemes).collect();
        let best = schemes.into_iter().max_by_key(Scheme::rank);
        let tried = !matches!(self.state, State::Silent) && !std::mem::take(&mut self.worked);
        self.state = match best {
            None | Some(Scheme::Other) => State::Failed(ProxyAuth::Unsupported),
            Some(_) if self.credentials.is_none() => State::Failed(ProxyAuth::Missing),
            Some(Scheme::Basic) if tried => State::Failed(ProxyAuth::Refused),
            Some(Scheme::Basic) => State::Basic,
            Some(Scheme::Digest(challenge)) if tried && !challenge.stale => {
                State::Failed(ProxyAuth::Refused)
            }
            Some(Scheme::Digest(challenge)) => State::Digest {
                challenge,
                count: 0,
            },
        };
        !matches!(self.state, State::Failed(_))
    }

    /// Takes out what is to be said on another connection, after this one has ended.
    #[must_use]
    pub fn hand_on(&mut self) -> Self {
        let state = std::mem::replace(&mut self.state, State::Silent);
        Self {
            credentials: self.credentials.clone(),
            state,
            worked: self.worked,
        }
    }

    /// Returns what the proxy was found to want.
    #[must_use]
    pub fn seen(&self) -> ProxyAuth {
        match self.state {
            State::Silent => ProxyAuth::None,
            State::Basic => ProxyAuth::Basic,
            State::Digest { .. } => ProxyAuth::Digest,
            State::Failed(auth) => auth,
        }
    }
}

impl Challenge {
    /// RFC 7616, section 3.4.
    fn answer(
        &self,
        credentials: &Credentials,
        (method, uri): (&str, &str),
        count: u32,
        nonce: &str,
    ) -> Zeroizing<String> {
        let Credentials { user, password } = credentials;
        let hash = |parts: &[&str]| self.algorithm.hash(&parts.join(":"));
        let secret = Zeroizing::new(format!("{}:{}:{}", **user, self.realm, **password));
        let mut secret = Zeroizing::new(self.algorithm.hash(&secret));
        if self.session {
            let joined = Zeroizing::new([secret.as_str(), &self.nonce, nonce].join(":"));
            secret = Zeroizing::new(self.algorithm.hash(&joined));
        }
        let request = hash(&[method, uri]);
        let counted = format!("{count:08x}");
        let response = Zeroizing::new(if self.qop {
            [
                &secret,
                self.nonce.as_str(),
                &counted,
                nonce,
                "auth",
                &request,
            ]
            .join(":")
        } else {
            [&secret, self.nonce.as_str(), &request].join(":")
        });
        let response = self.algorithm.hash(&response);
        let user = match self.user_hash {
            true => hash(&[user.as_str(), &self.realm]),
            false => quote(user),
        };
        let (realm, from_proxy) = (quote(&self.realm), quote(&self.nonce));
        let algorithm = self.algorithm.name();
        let session = if self.session { "-sess" } else { "" };
        let mut header = Zeroizing::new(format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{from_proxy}\", uri=\"{uri}\", \
             algorithm={algorithm}{session}, response=\"{response}\""
        ));
        if self.qop {
            header.push_str(&format!(", qop=auth, nc={counted}, cnonce=\"{nonce}\""));
        }
        if self.user_hash {
            header.push_str(", userhash=true");
        }
        if let Some(opaque) = &self.opaque {
            header.push_str(&format!(", opaque=\"{}\"", quote(opaque)));
        }
        header
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => HEXLOWER.encode(&Md5::digest(text)),
            Self::Sha256 => HEXLOWER.encode(&Sha256::digest(text)),
        }
    }
}

enum Scheme {
    Basic,
    Digest(Challenge),
    Other,
}

impl Scheme {
    fn rank(&self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Basic => 1,
            Self::Digest(challenge) => 2 + u8::from(challenge.algorithm == Algorithm::Sha256),
        }
    }
}

/// Reads the value of a `Proxy-Authenticate`: one scheme with its parameters, or several.
fn schemes(value: &str) -> Vec<Scheme> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    if value.len() > CHALLENGE_BYTES_MAX {
        return Vec::new();
    }
    for item in split(value) {
        let (first, rest) = item.split_once([' ', '\t']).unwrap_or((item, ""));
        let begins = !first.contains('=');
        if begins {
            found.push((first.to_ascii_lowercase(), Vec::new()));
        }
        let parameter = if begins { rest } else { item };
        let Some((_, parameters)) = found.last_mut() else {
            continue;
        };
        if let Some((name, value)) = parameter.split_once('=') {
            parameters.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    found
        .iter()
        .map(|(name, parameters)| scheme(name, parameters))
        .collect()
}

fn scheme(name: &str, parameters: &[(String, String)]) -> Scheme {
    let parameter = |name: &str| {
        parameters
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    };
    let is_true =
        |name: &str| parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match name {
        "basic" => return Scheme::Basic,
        "digest" => {}
        _ => return Scheme::Other,
    }
    let algorithm = parameter("algorithm")
        .unwrap_or_default()
        .to_ascii_uppercase();
    let (base, session) = match algorithm.strip_suffix("-SESS") {
        Some(base) => (base, true),
        None => (algorithm.as_str(), false),
    };
    let algorithm = match base {
        "" | "MD5" => Algorithm::Md5,
        "SHA-256" => Algorithm::Sha256,
        _ => return Scheme::Other,
    };
    let qop = parameter("qop");
    let has_auth = |qop: &String| {
        qop.split(',')
            .any(|one| one.trim().eq_ignore_ascii_case("auth"))
    };
    let (Some(nonce), true) = (parameter("nonce"), qop.as_ref().is_none_or(has_auth)) else {
        return Scheme::Other;
    };
    Scheme::Digest(Challenge {
        realm: parameter("realm").unwrap_or_default(),
        nonce,
        opaque: parameter("opaque"),
        algorithm,
        session,
        qop: qop.is_some(),
        user_hash: is_true("userhash"),
        stale: is_true("stale"),
    })
}

/// Splits at the commas outside of quotes.
fn split(value: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let items = value.split(move |c| {
        let ends = c == ',' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        ends
    });
    items.map(str::trim).filter(|item| !item.is_empty())
}

fn unquote(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(keep).collect()
}

fn quote(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHALLENGES: &str = r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", Basic realm="a \"b\", c""#;

    fn mufasa() -> Credentials {
        Credentials::new("Mufasa".into(), "Circle of Life".into())
    }

    /// RFC 7616, section 3.9.1.
    #[test]
    fn digest_answers_as_the_standard_does() {
        let found = schemes(CHALLENGES);
        let challenges: Vec<&Challenge> = found
            .iter()
            .filter_map(|scheme| match scheme {
                Scheme::Digest(challenge) => Some(challenge),
                Scheme::Basic | Scheme::Other => None,
            })
            .collect();
        assert_eq!((found.len(), challenges.len()), (3, 2));
        let nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let responses = [
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "8ca523f5e9506fed4657c9700eebdbec",
        ];
        for (challenge, response) in challenges.iter().zip(responses) {
            let header = challenge.answer(&mufasa(), ("GET", "/dir/index.html"), 1, nonce);
            assert!(
                header.contains(&format!("response=\"{response}\"")),
                "{}",
                *header
            );
        }
    }

    #[test]
    fn the_strongest_scheme_is_taken_and_wrong_passwords_are_told() {
        let mut one = Authenticator::new(Some(Arc::new(mufasa())));
        assert!(one.header("GET", "/", [0; 12]).is_none());
        assert!(one.challenged([CHALLENGES].into_iter()));
        assert!(one.header("GET", "/", [0; 12]).unwrap().contains("SHA-256"));
        assert!(!one.challenged([CHALLENGES].into_iter()));
        assert_eq!(one.seen(), ProxyAuth::Refused);

        let mut one = Authenticator::new(Some(Arc::new(mufasa())));
        assert!(one.challenged(["NTLM", "Basic realm=x"].into_iter()));
        assert_eq!(
            *one.header("GET", "/", [0; 12]).unwrap(),
            "Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl"
        );
        assert!(!one.challenged(["Basic realm=x"].into_iter()));
        let mut none = Authenticator::new(None);
        assert!(!none.challenged(["Basic realm=x"].into_iter()));
        assert_eq!(none.seen(), ProxyAuth::Missing);
        assert!(!none.challenged(["Negotiate"].into_iter()));
        assert_eq!(none.seen(), ProxyAuth::Unsupported);
    }

    #[test]
    fn a_stale_nonce_is_replaced() {
        let mut one = Authenticator::new(Some(Arc::new(mufasa())));
        assert!(one.challenged([r#"Digest realm="a", nonce="1", qop="auth""#].into_iter()));
        assert!(
            one.header("GET", "/", [0; 12])
                .unwrap()
                .contains("nc=00000001")
        );
        assert!(one.challenged([r#"Digest realm="a", nonce="2", stale=TRUE"#].into_iter()));
        let header = one.header("GET", "/", [0; 12]).unwrap();
        assert!(header.contains("nonce=\"2\"") && !header.contains("nc="));
        one.passed();
        assert!(one.challenged([r#"Digest realm="a", nonce="3""#].into_iter()));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let mut one = Authenticator::new(Some(Arc::new(mufasa())));
        one.challenged(["Basic"].into_iter());
        let printed = format!("{one:?}");
        assert!(
            !printed.contains("Circle") && !printed.contains("Mufasa"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived(value in "[DdBbigestac =\",\\\\a-z\u{e9}]{0,80}") {
            let mut one = Authenticator::new(Some(Arc::new(mufasa())));
            one.challenged([value.as_str()].into_iter());
            one.header("GET", "/", [0; 12]);
        }
    }
}
