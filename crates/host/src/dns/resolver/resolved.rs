//! systemd-resolved, told by its own program `resolvectl`: which server to ask for which
//! domains behind which device. It forgets a device that goes away, so nothing has to be
//! put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::Link;

/// Its program.
const PROGRAM: &str = "resolvectl";

/// How long one call may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// The addresses at which it answers programs that read `/etc/resolv.conf`
/// (systemd-resolved.service(8)).
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// Which service answers `getaddrinfo` (nsswitch.conf(5)); `resolve` is systemd-resolved.
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// What was told, so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    told: BTreeMap<String, Vec<Vec<String>>>,
}

/// Tells whether programs of this host ask systemd-resolved.
pub(super) fn is_in_use(resolv_conf: &Path) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    names_stub(&read(resolv_conf)) || names_service(&read(Path::new(NSSWITCH)))
}

impl Resolved {
    /// Tells it what has changed of the devices.
    pub(super) async fn set_up(&mut self, links: &[Link<'_>]) -> Result<(), String> {
        self.told
            .retain(|device, _| links.iter().any(|link| link.place.device == *device));
        for link in links {
            let device = &link.place.device;
            let calls = calls(link);
            if self.told.get(device) == Some(&calls) {
                continue;
            }
            for call in &calls {
                tell(call).await?;
            }
            self.told.insert(device.clone(), calls);
        }
        Ok(())
    }
}

/// What to call it with. Nobody signs the domain of channels, and nobody but their devices
/// is to be asked for it.
fn calls(link: &Link<'_>) -> Vec<Vec<String>> {
    let servers = link.servers.iter().map(ToString::to_string).collect();
    let domains = link
        .domains
        .iter()
        .map(|domain| format!("~{domain}"))
        .collect();
    let no = || vec!["no".to_owned()];
    let settings: [(&str, Vec<String>); 5] = [
        ("dns", servers),
        ("domain", domains),
        ("default-route", no()),
        ("dnssec", no()),
        ("dnsovertls", no()),
    ];
    let call = |(setting, mut values): (&str, Vec<String>)| {
        let mut call = vec![setting.to_owned(), link.place.device.clone()];
        call.append(&mut values);
        call
    };
    settings.into_iter().map(call).collect()
}

async fn tell(words: &[String]) -> Result<(), String> {
    let mut command = Command::new(PROGRAM);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let called = timeout(CALL_TIME_MAX, command.output()).await;
    let said = match called {
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    Err(format!(
        "systemd-resolved was not told of the names: `{PROGRAM} {}`: {said}",
        words.join(" ")
    ))
}

fn names_stub(resolv_conf: &str) -> bool {
    let mut lines = resolv_conf.lines().map(str::split_ascii_whitespace);
    lines.any(|mut words| {
        words.next() == Some("nameserver") && words.next().is_some_and(|word| STUBS.contains(&word))
    })
}

fn names_service(nsswitch: &str) -> bool {
    let hosts = nsswitch
        .lines()
        .find_map(|line| line.trim().strip_prefix("hosts:"));
    hosts.is_some_and(|services| {
        services
            .split_ascii_whitespace()
            .any(|word| word == "resolve")
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::Place;
    use super::*;

    #[test]
    fn it_is_recognised_by_its_address_and_by_its_name() {
        assert!(names_stub("# x\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!names_stub(
            "# nameserver 127.0.0.53\nnameserver 192.0.2.1\n"
        ));
        assert!(names_service(
            "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"
        ));
        assert!(!names_service("#hosts: resolve\nhosts: files dns\n"));
    }

    #[test]
    fn a_device_gets_its_server_and_its_domains_alone() {
        let place = Place {
            channel: 1,
            device: "enishi0".to_owned(),
            addresses: [[10, 77, 0, 1].into(), "fd00::1".parse().unwrap()],
        };
        let link = Link {
            place: &place,
            servers: place.addresses.to_vec(),
            domains: vec!["office.enishi".to_owned(), "77.10.in-addr.arpa".to_owned()],
        };
        let calls: Vec<String> = calls(&link).iter().map(|call| call.join(" ")).collect();
        assert_eq!(
            calls,
            [
                "dns enishi0 10.77.0.1 fd00::1",
                "domain enishi0 ~office.enishi ~77.10.in-addr.arpa",
                "default-route enishi0 no",
                "dnssec enishi0 no",
                "dnsovertls enishi0 no",
            ]
        );
    }
}
