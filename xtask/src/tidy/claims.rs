//! `docs/security.md` names a test in each part that says who can do what, and the tests that it
//! names exist.

use std::collections::BTreeSet;

use super::Finding;
use super::source::Source;

/// The page with the claims.
pub(super) const PAGE: &str = "docs/security.md";

/// Checks the page against the names of all tests.
pub(super) fn check(page: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let named = named(page);
    let unknown = named.iter().filter(|(_, name)| !tests.contains(*name));
    let unknown = unknown.map(|(line, name)| (*line, format!("there is no test `{name}`")));
    let parts = parts(page).into_iter();
    let bare = parts.filter(|(from, to)| !named.iter().any(|(at, _)| (from..to).contains(&at)));
    let bare = bare.map(|(line, _)| (line, "names no test for what it claims".to_owned()));
    let findings = unknown.chain(bare);
    findings
        .map(|(line, message)| Finding::new(PAGE, line, message))
        .collect()
}

/// Returns the names of a file's tests.
pub(super) fn tests(source: &Source) -> impl Iterator<Item = String> {
    let mut is_test = false;
    source.code.iter().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
            return None;
        }
        let (_, rest) = line.split_once("fn ").filter(|_| is_test)?;
        is_test = false;
        rest.split(['(', '<']).next().map(str::to_owned)
    })
}

/// Returns the tests that are named in `*Test: …*` and `*Tests: …*`, with their lines. Files,
/// with a slash, and fuzz targets, of one word, stand there too.
fn named(page: &str) -> Vec<(usize, &str)> {
    let in_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_name = |word: &str| word.contains('_') && word.chars().all(in_name);
    let mut named = Vec::new();
    let (mut line, mut of_tests) = (1, false);
    for (at, piece) in page.split('`').enumerate() {
        if at % 2 == 1 {
            named.extend((of_tests && is_name(piece)).then_some((line, piece)));
        } else if piece.contains("*Test:") || piece.contains("*Tests:") {
            of_tests = true;
        } else if piece.contains('*') {
            of_tests = false;
        }
        line += piece.matches('\n').count();
    }
    named
}

/// Returns the first line of each part under a heading of the third order, and the line after it.
fn parts(page: &str) -> Vec<(usize, usize)> {
    let is_heading = |line: &str| line.starts_with("## ") || line.starts_with("### ");
    let lines = page.lines().zip(1..);
    let mut headings: Vec<(&str, usize)> = lines.filter(|(line, _)| is_heading(line)).collect();
    headings.push(("", usize::MAX));
    let pairs = headings.windows(2);
    pairs
        .filter(|pair| pair[0].0.starts_with("### "))
        .map(|pair| (pair[0].1, pair[1].1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
Off are `plain_words` and *words*.
*Tests:
`one_is_there` in `crates/a_b/c.rs`, `another_is_not`; fuzz target `socks`.* And `no_test`.
### Somebody
Can nothing. *Test: `one_is_there`.*
### Somebody else
Can `do_something`.
## More";

    #[test]
    fn a_test_that_is_named_and_not_there_and_a_part_without_one_are_found() {
        let tests = BTreeSet::from(["one_is_there".to_owned()]);
        let findings = check(PAGE, &tests);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [3, 6]);
        assert!(findings[0].message.contains("`another_is_not`"));
    }

    #[test]
    fn tests_are_told_from_their_helpers() {
        let text = "\
fn no_test() {}
#[test]
#[ignore = \"long\"]
fn one() { fn helper() {} }
#[tokio::test(flavor = \"current_thread\")]
async fn two<T>() {}
// #[test]
fn three() {}
#[cfg(test)]
mod tests {
    fn four() {}
}";
        let source = Source::new("crates/a/src/a.rs".to_owned(), text);
        assert_eq!(super::tests(&source).collect::<Vec<_>>(), ["one", "two"]);
    }
}
