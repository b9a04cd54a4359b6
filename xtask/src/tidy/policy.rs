//! What we take from others: its licence, its source, and only one version of what
//! is heavy. `deny.toml` holds the lists; cargo-deny, where it is installed, reads
//! the same ones.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Finding;

/// The only place that crates come from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The lists of `deny.toml`.
pub(super) struct Rules {
    licences: Vec<String>,
    single: Vec<String>,
}

impl Rules {
    /// Reads the entries of `allow = [` and those with `deny-multiple-versions`, one
    /// to a line as `deny.toml` has them.
    pub(super) fn read(text: &str) -> Self {
        let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let licences = text
            .lines()
            .skip_while(|line| !line.starts_with("allow = ["))
            .skip(1)
            .take_while(|line| !line.starts_with(']'));
        let single = text
            .lines()
            .filter(|line| line.contains("deny-multiple-versions = true"));
        Self {
            licences: licences.filter_map(quoted).collect(),
            single: single.filter_map(quoted).collect(),
        }
    }
}

/// Checks every crate of the tree.
pub(super) fn check(metadata: &Value, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        versions.entry(name).or_default().push(version);
        // Our own crates have no source.
        if package["source"]
            .as_str()
            .is_some_and(|source| source != CRATES_IO)
        {
            findings.push(Finding::new(name, 0, "does not come from crates.io"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !allowed(licence, &rules.licences) {
            let message = format!("its licence `{licence}` is not in the list of deny.toml");
            findings.push(Finding::new(name, 0, message));
        }
    }
    for (name, versions) in versions {
        if versions.len() > 1 && rules.single.iter().any(|single| single == name) {
            let message = format!("is built in several versions: {}", versions.join(", "));
            findings.push(Finding::new(name, 0, message));
        }
    }
    findings
}

/// Tells whether a licence expression (SPDX, or the older `A/B`) can be met with the
/// licences in the list.
fn allowed(expression: &str, list: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace(" WITH ", "_WITH_");
    let mut words = spaced.split_whitespace().peekable();
    either(&mut words, list) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, list: &[String]) -> bool {
    let mut well = both(words, list);
    while words.next_if_eq(&"OR").is_some() {
        well |= both(words, list);
    }
    well
}

fn both(words: &mut Words<'_>, list: &[String]) -> bool {
    let mut well = single(words, list);
    while words.next_if_eq(&"AND").is_some() {
        well &= single(words, list);
    }
    well
}

fn single(words: &mut Words<'_>, list: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let well = either(words, list);
            words.next_if_eq(&")").is_some() && well
        }
        Some(word) => list.contains(&word.replace("_WITH_", " WITH ")),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DENY: &str = "\
[licenses]
allow = [
    \"Apache-2.0 WITH LLVM-exception\",
    \"MIT\", # the most common
]
[bans]
deny = [
    { crate = \"tokio\", deny-multiple-versions = true },
    { crate = \"openssl\" },
]
";

    fn findings(packages: &Value) -> usize {
        let metadata = json!({ "packages": packages });
        check(&metadata, &Rules::read(DENY)).len()
    }

    #[test]
    fn licence_expressions_are_weighed() {
        let list = Rules::read(DENY).licences;
        for well in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-3.0 OR (MIT AND Apache-2.0 WITH LLVM-exception)",
        ] {
            assert!(allowed(well, &list), "{well}");
        }
        for ill in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "Apache-2.0"] {
            assert!(!allowed(ill, &list), "{ill}");
        }
    }

    #[test]
    fn crates_from_elsewhere_are_found() {
        let git = json!({ "name": "a", "license": "MIT", "source": "git+https://example.org" });
        assert_eq!(findings(&json!([git])), 1);
        let ours = json!({ "name": "a", "license": "MIT", "source": null });
        let theirs = json!({ "name": "b", "license": "MIT", "source": CRATES_IO });
        assert_eq!(findings(&json!([ours, theirs])), 0);
    }

    #[test]
    fn heavy_crates_are_built_once() {
        let version = |name: &str, version: &str| json!({ "name": name, "license": "MIT", "version": version, "source": CRATES_IO });
        let syn = [version("syn", "2.0.0"), version("syn", "3.0.0")];
        assert_eq!(findings(&json!(syn)), 0);
        let tokio = [version("tokio", "1.0.0"), version("tokio", "2.0.0")];
        assert_eq!(findings(&json!(tokio)), 1);
    }
}
