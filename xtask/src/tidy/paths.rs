//! Nothing that is committed names a place on somebody's machine.

use super::Finding;

/// Beginnings of paths that exist on one machine only. Written in two halves so
/// that this file does not offend.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "wt"),
];

/// Finds the lines of a text that name such a path.
pub(super) fn machine_paths(place: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let found = MACHINE_PATHS.iter().find(|path| starts_in(line, path));
        findings.extend(found.map(|path| {
            let message = format!("`{path}` exists on one machine only");
            Finding::new(place, at + 1, message)
        }));
    }
    findings
}

/// Tells whether a path that begins with `path` stands in `line`; `a/work/b` is not
/// one, it goes on from the left.
fn starts_in(line: &str, path: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "._-}~*".contains(c);
    line.match_indices(path)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_on_a_machine_is_found() {
        let text = format!("see\n`{}shared/x.md`\n", MACHINE_PATHS[0]);
        let findings = machine_paths("README.md", &text);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
        let text = format!("a=\"{}x\" b={}", MACHINE_PATHS[1], MACHINE_PATHS[2]);
        assert_eq!(machine_paths("a", &text).len(), 1);
    }

    #[test]
    fn relative_paths_and_words_are_fine() {
        let text = "crates/work/src and /works and sites/root/x and /tmp/other";
        assert!(machine_paths("a", text).is_empty());
    }
}
