//! A Rust file as the rules see it: its code without comments and texts, and which
//! lines are tests.

/// A Rust file.
pub(super) struct Source {
    /// The file, relative to the workspace.
    pub(super) path: String,
    /// The lines as they stand.
    pub(super) lines: Vec<String>,
    /// The same lines, with comments and the insides of literals blanked.
    pub(super) code: Vec<String>,
    /// Which lines belong to tests.
    in_tests: Vec<bool>,
}

impl Source {
    /// Reads the text of the file at `path`.
    pub(super) fn new(path: String, text: &str) -> Self {
        let code: Vec<String> = mask(text).lines().map(str::to_owned).collect();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let all = path.contains("/tests/") || path.ends_with("/tests.rs");
        let in_tests = if all {
            vec![true; code.len()]
        } else {
            test_lines(&code)
        };
        Self {
            path,
            lines,
            code,
            in_tests,
        }
    }

    /// Returns the name of the directory under `crates/`, if the file is in one.
    pub(super) fn krate(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Returns the lines of code outside tests, numbered from 1.
    pub(super) fn code_outside_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.in_tests).enumerate();
        lines
            .filter(|(_, (_, in_tests))| !**in_tests)
            .map(|(at, (code, _))| (at + 1, code.as_str()))
    }
}

/// Tells whether `word` stands in `code` with no letter, digit or underscore
/// directly before or after it.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let starts = !word.starts_with(in_word) || !before.is_some_and(in_word);
        let ends = !word.ends_with(in_word) || !after.is_some_and(in_word);
        starts && ends
    })
}

/// Marks the lines of every module under `#[cfg(test)]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut marks = vec![false; code.len()];
    let mut at = 0;
    while at < code.len() {
        let start = at;
        at += 1;
        if code[start].trim() != "#[cfg(test)]" {
            continue;
        }
        let mut depth = 0_i32;
        for (line, text) in code.iter().enumerate().skip(start) {
            marks[line] = true;
            at = line + 1;
            depth += balance(text);
            // The item ends with its closing brace, or is `mod tests;`.
            let closed = depth == 0 && line > start;
            if closed && (text.contains('}') || text.trim_end().ends_with(';')) {
                break;
            }
        }
    }
    marks
}

fn balance(code: &str) -> i32 {
    code.chars()
        .map(|c| match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        })
        .sum()
}

/// Blanks comments and the insides of texts and characters; keeps every line.
fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let length = blank_length(&chars, at);
        if length == 0 {
            masked.push(chars[at]);
            at += 1;
            continue;
        }
        let end = (at + length).min(chars.len());
        let blanks = chars[at..end].iter();
        masked.extend(blanks.map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    masked
}

/// Returns how many characters from `at` are a comment or a literal; 0 for code.
fn blank_length(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => rest.iter().take_while(|c| **c != '\n').count(),
        ['/', '*', ..] => block_comment(rest),
        ['r', '"' | '#', ..] if !in_word => raw_text(rest, 1),
        ['b' | 'c', 'r', '"' | '#', ..] if !in_word => raw_text(rest, 2),
        ['"', ..] => quoted(rest, '"'),
        // A lifetime has no closing quote two or, with an escape, more places on.
        ['\'', '\\', ..] => quoted(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// `r"…"` or `r##"…"##`; 0 when it is a raw identifier such as `r#type`.
fn raw_text(rest: &[char], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let start = prefix + hashes;
    if rest.get(start) != Some(&'"') {
        return 0;
    }
    let mut at = start + 1;
    while at < rest.len() {
        let closing = rest[at + 1..].iter().take(hashes);
        if rest[at] == '"' && closing.filter(|c| **c == '#').count() == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blanked_and_lines_kept() {
        let text =
            "let a = \"un\\\"safe\"; // unsafe\n/* unsafe /* in */ unsafe\n*/ let b = 'x';\n";
        let masked = mask(text);
        assert!(!masked.contains("unsafe"));
        assert_eq!(masked.lines().count(), text.lines().count());
        assert!(masked.contains("let a =") && masked.contains("let b ="));
    }

    #[test]
    fn raw_texts_lifetimes_and_raw_identifiers_are_told_apart() {
        let masked = mask("fn f<'a>(r#type: &'a str) { br#\"un\"safe\"#; '\\''; dyn_ }");
        assert_eq!(
            masked.split_whitespace().collect::<Vec<_>>().join(" "),
            "fn f<'a>(r#type: &'a str) { ; ; dyn_ }"
        );
    }

    #[test]
    fn test_modules_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("crates/overlay/src/a.rs".into(), text);
        let numbers: Vec<usize> = source.code_outside_tests().map(|(line, _)| line).collect();
        assert_eq!(numbers, [1, 6]);
        assert_eq!(source.krate(), Some("overlay"));
    }

    #[test]
    fn words_end_at_their_borders() {
        assert!(has_word("Box<dyn Any>", "dyn") && !has_word("dynamic", "dyn"));
        assert!(has_word("x = fs::read()", "fs::") && !has_word("vfs::read", "fs::"));
    }
}
