//! What the environment says, by the rules of curl (curl(1), "ENVIRONMENT"; libcurl-env(3)).
//!
//! | variable | is the proxy of |
//! |---|---|
//! | `http_proxy` | `http` and `ws`. In lower case only: a web server makes `HTTP_PROXY` of a header that a client sends, and that anybody may set |
//! | `https_proxy`, `HTTPS_PROXY` | `https` and `wss` |
//! | `all_proxy`, `ALL_PROXY` | all for which there is none of the two |
//! | `no_proxy`, `NO_PROXY` | nothing: what it names goes without |
//!
//! The one in lower case goes before the other. An empty one is as none. A proxy that is written without a
//! scheme is `http`; without a port it is at 1080.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt::Display;

use zeroize::Zeroizing;

use crate::bypass::Bypass;
use crate::route::Route;
use crate::settings::{Choice, Fixed, Settings};

/// Of so many entries of `no_proxy` that are none it is told.
const ENTRIES_TOLD_MAX: usize = 8;

/// What was found in an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// What it says; none when it says nothing of proxies.
    pub settings: Option<Settings>,
    /// Variables that are set and cannot be used, and why; no passwords.
    pub notices: Vec<String>,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    /// Reads variables as `value` tells them.
    pub fn read(value: impl Fn(&str) -> Option<OsString>) -> Self {
        let notices = RefCell::new(Vec::new());
        let notice = |name: &str, what: &dyn Display| {
            notices
                .borrow_mut()
                .push(format!("`{name}` in the environment: {what}"));
        };
        let text = |name: &'static str| match value(name)?.into_string() {
            Ok(value) => Some((name, Zeroizing::new(value))),
            Err(_) => {
                notice(name, &"it is not UTF-8, and passed over");
                None
            }
        };
        let value = |names: &[&'static str]| {
            let mut values = names.iter().filter_map(|name| text(name));
            values.find(|(_, value)| !value.is_empty())
        };
        let proxy = |names: &[&'static str]| {
            let (name, value) = value(names)?;
            let route = Route::parse(&value);
            route.map_err(|error| notice(name, &error)).ok()
        };
        let fixed = Fixed {
            http: proxy(&["http_proxy"]),
            https: proxy(&["https_proxy", "HTTPS_PROXY"]),
            other: proxy(&["all_proxy", "ALL_PROXY"]),
        };
        let bypass = || {
            let (name, value) = value(&["no_proxy", "NO_PROXY"])?;
            let (bypass, passed_over) = Bypass::of_variable(&value);
            for entry in passed_over.iter().take(ENTRIES_TOLD_MAX) {
                notice(name, entry);
            }
            Some(bypass)
        };
        let settings = (fixed != Fixed::default()).then(|| Settings {
            choice: Choice::Fixed(Box::new(fixed)),
            bypass: bypass().unwrap_or_default(),
        });
        let notices = notices.into_inner();
        Self { settings, notices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let variable = variables.iter().find(|(known, _)| *known == name);
            variable.map(|(_, value)| (*value).into())
        })
    }

    fn route(variables: &[(&str, &str)], url: &str) -> String {
        let target = Target::parse(url).unwrap();
        let Some(settings) = read(variables).settings else {
            return "nothing".to_owned();
        };
        if let Some(reason) = settings.bypass.reason(&target) {
            return reason;
        }
        let Choice::Fixed(fixed) = settings.choice else {
            panic!("the environment names proxies");
        };
        fixed.route(&target).to_string()
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        let all = [
            ("http_proxy", "plain:1"),
            ("HTTPS_PROXY", "http://upper:2"),
            ("ALL_PROXY", "socks5://all:3"),
            ("no_proxy", "example.org,.example.net"),
        ];
        assert_eq!(route(&all, "http://x.com"), "PROXY plain:1");
        assert_eq!(route(&all, "https://x.com"), "PROXY upper:2");
        assert_eq!(route(&all, "tcp://x.com:9"), "SOCKS5 all:3");
        assert_eq!(route(&all, "https://a.example.org"), "example.org");
        assert_eq!(route(&all[2..], "http://x.com"), "SOCKS5 all:3");
        assert_eq!(route(&all[..1], "https://x.com"), "DIRECT");
    }

    #[test]
    fn lower_case_goes_first_and_empty_is_none() {
        let both = [("https_proxy", "low:1"), ("HTTPS_PROXY", "up:1")];
        assert_eq!(route(&both, "https://x"), "PROXY low:1");
        let empty = [("https_proxy", ""), ("HTTPS_PROXY", "up:1")];
        assert_eq!(route(&empty, "https://x"), "PROXY up:1");
        assert_eq!(route(&[("https_proxy", "")], "https://x"), "nothing");
        assert_eq!(route(&[("no_proxy", "x")], "https://x"), "nothing");
    }

    #[test]
    fn the_variable_that_a_request_can_set_is_not_read() {
        assert_eq!(route(&[("HTTP_PROXY", "evil:1")], "http://x"), "nothing");
    }

    #[test]
    fn an_unusable_variable_is_told_without_its_password() {
        let found = read(&[("https_proxy", "gopher://u:secret@h:1")]);
        assert!(found.settings.is_none());
        assert!(found.notices[0].contains("https_proxy"));
        assert!(!found.notices[0].contains("secret"));
    }

    #[test]
    fn what_is_passed_over_is_told() {
        use std::os::unix::ffi::OsStringExt;
        let found = Environment::read(|name| match name {
            "https_proxy" => Some(OsString::from_vec(b"http://\xffsecret:1".to_vec())),
            "HTTPS_PROXY" => Some("up:1".into()),
            "no_proxy" => Some("good.com,bad/entry,http://u:secret@p:1".into()),
            _ => None,
        });
        assert!(found.settings.is_some(), "the other spelling counts");
        let [first, second, _] = &found.notices[..] else {
            panic!("{:?}", found.notices);
        };
        assert!(first.contains("https_proxy") && first.contains("UTF-8"));
        assert!(second.contains("no_proxy") && second.contains("bad/entry"));
        assert!(!found.notices.concat().contains("secret"));
        let many = "bad/entry,".repeat(100);
        let many = read(&[("https_proxy", "p:1"), ("no_proxy", &many)]);
        assert_eq!(many.notices.len(), ENTRIES_TOLD_MAX);
    }
}
