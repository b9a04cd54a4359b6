//! Which crate may depend on which, and that the map names them all.
//!
//! `overlay ← services ← sim`; `services, api, bridge, dataplane, dns, proxy, stun ← host ← cli`.

use serde_json::Value;

use super::Finding;
use super::purity::PURE;

/// A crate of the workspace and the crates of the workspace on which it may depend.
/// Tests may use `lab` besides.
const LAYERS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("bridge", &[]),
    ("dataplane", &[]),
    ("dns", &["overlay"]),
    ("stun", &["overlay"]),
    ("lab", &[]),
    ("overlay", &[]),
    ("proxy", &["overlay"]),
    ("services", &["overlay"]),
    ("sim", &["overlay", "services"]),
    (
        "host",
        &[
            "api",
            "bridge",
            "dataplane",
            "dns",
            "overlay",
            "proxy",
            "services",
            "stun",
        ],
    ),
    ("cli", &["api", "host", "lab", "overlay", "proxy", "sim"]),
    ("xtask", &["lab"]),
];

/// Libraries that reach for the outside world; a pure crate has no use for them.
const IMPURE_LIBRARIES: &[&str] = &[
    "getrandom",
    "iroh",
    "libc",
    "mio",
    "nix",
    "rand",
    "rustix",
    "socket2",
    "tokio",
];

/// Checks the edges between the crates.
pub(super) fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages(metadata) {
        let name = short(package["name"].as_str().unwrap_or_default());
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            let message = "a crate without a place in the layers of tidy/layers.rs";
            findings.push(Finding::new(name, 0, message));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let full = dependency["name"].as_str().unwrap_or_default();
            let on = short(full);
            let development = dependency["kind"] == "dev";
            if dependency["path"].is_string() {
                let may = allowed.contains(&on) || (development && on == "lab");
                if !may {
                    let message = format!("may not depend on {on}: the layers forbid it");
                    findings.push(Finding::new(name, 0, message));
                }
            } else if PURE.contains(&name) && !development && IMPURE_LIBRARIES.contains(&full) {
                let message = format!("a pure crate may not depend on {full}");
                findings.push(Finding::new(name, 0, message));
            }
        }
    }
    findings
}

/// Finds the crates that `map`, the text of ARCHITECTURE.md, does not name.
pub(super) fn unmapped(metadata: &Value, map: &str) -> Vec<Finding> {
    let names = packages(metadata).filter_map(|package| package["name"].as_str());
    names
        .map(|name| match short(name) {
            "xtask" => "xtask".to_owned(),
            name => format!("crates/{name}"),
        })
        .filter(|directory| !map.contains(directory.as_str()))
        .map(|directory| Finding::new("ARCHITECTURE.md", 0, format!("does not name {directory}")))
        .collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn short(package: &str) -> &str {
    package.strip_prefix("enishi-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(name: &str, dependency: &Value) -> usize {
        let package = json!({ "name": name, "dependencies": [dependency] });
        check(&json!({ "packages": [package] })).len()
    }

    fn on(name: &str, kind: Option<&str>) -> Value {
        json!({ "name": name, "path": "somewhere", "kind": kind })
    }

    #[test]
    fn edges_point_downward() {
        assert_eq!(messages("enishi-services", &on("enishi-overlay", None)), 0);
        assert_eq!(messages("enishi-overlay", &on("enishi-services", None)), 1);
        assert_eq!(messages("enishi-host", &on("enishi-sim", None)), 1);
        assert_eq!(messages("enishi-lab", &on("enishi-api", None)), 1);
        assert_eq!(messages("enishi-host", &on("enishi-bridge", None)), 0);
        assert_eq!(messages("enishi-bridge", &on("enishi-overlay", None)), 1);
        assert_eq!(messages("enishi-cli", &on("enishi-sim", None)), 0);
    }

    #[test]
    fn tests_may_use_the_lab_alone() {
        assert_eq!(messages("enishi-dataplane", &on("enishi-lab", None)), 1);
        assert_eq!(
            messages("enishi-dataplane", &on("enishi-lab", Some("dev"))),
            0
        );
        assert_eq!(
            messages("enishi-overlay", &on("enishi-sim", Some("dev"))),
            1
        );
    }

    #[test]
    fn pure_crates_have_pure_dependencies() {
        let tokio = json!({ "name": "tokio", "path": null, "kind": null });
        assert_eq!(messages("enishi-overlay", &tokio), 1);
        assert_eq!(messages("enishi-host", &tokio), 0);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(
            check(&json!({ "packages": [{ "name": "enishi-new" }] })).len(),
            1
        );
    }

    #[test]
    fn the_map_names_every_crate() {
        let metadata = json!({ "packages": [{ "name": "enishi-sim" }, { "name": "xtask" }] });
        assert_eq!(unmapped(&metadata, "crates/sim and xtask").len(), 0);
        assert_eq!(unmapped(&metadata, "sim").len(), 2);
    }
}
