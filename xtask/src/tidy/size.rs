//! A file about one thing is not long.

use super::Finding;
use super::source::Source;

/// No file has more lines than this, tests included.
const LINES_MAX: usize = 800;

/// From here on something may want out: lines of code outside tests.
const CODE_LINES_WARN: usize = 400;

/// Fails for a file that is too long.
pub(super) fn too_long(source: &Source) -> Option<Finding> {
    let lines = source.lines.len();
    let message = format!("{lines} lines; at {LINES_MAX} something wants out");
    (lines > LINES_MAX).then(|| Finding::new(&source.path, 0, message))
}

/// Warns of a file that is getting long.
pub(super) fn getting_long(source: &Source) -> Option<Finding> {
    let code = source.code_outside_tests();
    let lines = code.filter(|(_, code)| !code.trim().is_empty()).count();
    let message =
        format!("{lines} lines of code outside tests; {CODE_LINES_WARN} are easy to read");
    (lines > CODE_LINES_WARN).then(|| Finding::new(&source.path, 0, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(lines: &str, count: usize) -> Source {
        Source::new("crates/host/src/a.rs".into(), &lines.repeat(count))
    }

    #[test]
    fn a_file_over_the_limit_fails() {
        assert!(too_long(&source("// a\n", LINES_MAX)).is_none());
        assert!(too_long(&source("// a\n", LINES_MAX + 1)).is_some());
    }

    #[test]
    fn much_code_is_warned_of_and_comments_are_not_code() {
        assert!(getting_long(&source("// a\n", CODE_LINES_WARN + 1)).is_none());
        assert!(getting_long(&source("a();\n", CODE_LINES_WARN)).is_none());
        assert!(getting_long(&source("a();\n", CODE_LINES_WARN + 1)).is_some());
    }
}
