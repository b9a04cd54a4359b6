//! Patterns with `*` and `?`, as shells have them.

/// Tells whether all of `text` matches `pattern`, in which `*` stands for any number of characters and
/// `?` for one. Letters match as they are written.
///
/// Takes at most the product of both lengths, whatever the pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // The last star, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;
    use std::time::{Duration, Instant};

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, is) in [
            ("", "", true),
            ("*", "", true),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxbxxaxxc", false),
            ("ab", "abc", false),
            ("a.c", "abc", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = "*a".repeat(500);
        let text = "a".repeat(5_000) + "b";
        let begin = Instant::now();
        assert!(!matches(&pattern, &text));
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}
