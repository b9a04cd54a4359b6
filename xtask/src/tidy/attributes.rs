//! Whoever switches off a lint or a test says why.

use super::Finding;
use super::source::{Source, has_word};

/// Finds `allow` and `expect` without `reason = "…"` or a comment on the line above,
/// and `ignore` without its text.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, code) in source.code.iter().enumerate() {
        let code = code.trim_start();
        let Some(inner) = code.strip_prefix("#[").or(code.strip_prefix("#![")) else {
            continue;
        };
        let lint = inner.starts_with("allow(") || inner.starts_with("expect(");
        if lint && !has_reason(source, at) {
            let message = "a lint is switched off without a reason (`reason = \"…\"`)";
            findings.push(Finding::new(&source.path, at + 1, message));
        }
        if inner.starts_with("ignore]") {
            let message = "a test is ignored without a reason (`#[ignore = \"…\"]`)";
            findings.push(Finding::new(&source.path, at + 1, message));
        }
    }
    findings
}

fn has_reason(source: &Source, at: usize) -> bool {
    let above = at.checked_sub(1).map(|above| source.lines[above].trim());
    if above.is_some_and(|line| line.starts_with("// ")) {
        return true;
    }
    let attribute = source.code[at..].iter();
    let mut open = true;
    attribute
        .take_while(|code| std::mem::replace(&mut open, !code.trim_end().ends_with(']')))
        .any(|code| has_word(code, "reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source::new("crates/host/src/a.rs".into(), text);
        check(&source).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_bare_allow_or_ignore_is_found() {
        assert_eq!(lines("#[allow(dead_code)]\nfn reason() {}"), [1]);
        assert_eq!(lines("#![allow(missing_docs)]"), [1]);
        assert_eq!(lines("fn a() {\n    #[expect(unused)]\n}"), [2]);
        assert_eq!(lines("#[test]\n#[ignore]\nfn slow() {}"), [2]);
    }

    #[test]
    fn a_reason_is_enough() {
        let text = "\
#[allow(unsafe_code, reason = \"ioctl\")]
#[expect(
    unsafe_code,
    reason = \"ioctl\"
)]
// The kernel hands out descriptors as numbers.
#[allow(unsafe_code)]
#[ignore = \"takes an hour\"]
#[should_panic]
fn a() {}";
        assert!(lines(text).is_empty());
    }
}
