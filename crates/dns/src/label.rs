//! DNS labels for hosts. A host calls itself whatever its owner likes; a label has letters,
//! digits and `-` (RFC 1123, section 2.1), and other scripts in the form of IDNA (RFC 5891),
//! which programs that people type names into translate in the same way.

use std::collections::{BTreeMap, BTreeSet};

use enishi_overlay::NodeId;

/// The longest label that is made of a host's name, in octets: a label has up to 63
/// (RFC 1035, section 2.3.4), and a number has to find room.
pub const LABEL_BYTES_MAX: usize = 58;

/// The label of a host whose name has nothing to make one of.
const NAMELESS: &str = "host";

/// Makes a label of the name that a host gives itself: of its first part if it has dots,
/// without apostrophes, with `-` for whatever has no place in a label, at most
/// [`LABEL_BYTES_MAX`] octets, in lower case.
pub fn label(host: &str) -> String {
    let first = host.split('.').find(|part| !part.trim().is_empty());
    let plain = tidy(first.unwrap_or_default().chars());
    let label = to_ascii(&plain).unwrap_or_else(|| tidy(plain.chars().filter(char::is_ascii)));
    // A host that calls itself by the id of a node would pass for that node.
    match label.is_empty() || label.parse::<NodeId>().is_ok() {
        true => NAMELESS.to_owned(),
        false => label,
    }
}

/// Makes labels distinct: of those that are equal the first stays, the others get the
/// numbers from 2, `aki-2`, unless another is called so of itself.
pub fn distinct(labels: &[String]) -> Vec<String> {
    let natural: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let mut names = Vec::with_capacity(labels.len());
    for label in labels {
        let number = numbers.entry(label).or_default();
        let name = loop {
            *number += 1;
            let name = match *number {
                1 => break label.clone(),
                number => format!("{label}-{number}"),
            };
            if !natural.contains(name.as_str()) {
                break name;
            }
        };
        names.push(name);
    }
    names
}

/// Replaces what has no place in a label, and what comes at its ends or twice.
fn tidy(letters: impl Iterator<Item = char>) -> String {
    let mut tidy = String::new();
    for letter in letters.filter(|letter| !matches!(letter, '\'' | '\u{2019}')) {
        // Letters of other scripts, and marks upon them, are judged by IDNA.
        let fits = match letter.is_ascii() {
            true => letter.is_ascii_alphanumeric(),
            false => !letter.is_whitespace() && !matches!(letter, '。' | '．' | '｡'),
        };
        match fits {
            true => tidy.extend(letter.to_lowercase()),
            false if tidy.is_empty() || tidy.ends_with('-') => {}
            false => tidy.push('-'),
        }
    }
    tidy.truncate(tidy.trim_end_matches('-').len());
    if tidy.is_ascii() {
        tidy.truncate(LABEL_BYTES_MAX);
        tidy.truncate(tidy.trim_end_matches('-').len());
    }
    tidy
}

/// Translates to ASCII, cut to what has room; none when the text is none for a label.
fn to_ascii(text: &str) -> Option<String> {
    let mut ends = text
        .char_indices()
        .map(|(at, letter)| at + letter.len_utf8());
    let mut ascii = idna::domain_to_ascii(text).ok()?;
    while ascii.len() > LABEL_BYTES_MAX {
        let end = ends.next_back()?;
        let shorter = text[..end].trim_end_matches('-');
        ascii = idna::domain_to_ascii(shorter).ok()?;
    }
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    ascii.bytes().all(fits).then_some(ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_a_host_is_called_becomes_a_label() {
        for (host, expected) in [
            ("aki", "aki"),
            ("AKI", "aki"),
            ("aki.example.org", "aki"),
            ("Aki's Laptop", "akis-laptop"),
            ("build_server #2", "build-server-2"),
            ("--x--", "x"),
            ("Mühle", "xn--mhle-0ra"),
            ("東京", "xn--1lqs71d"),
            ("東京。二", "xn----0v6awdt66i"),
            ("", "host"),
            ("...", "host"),
            ("xn--mhle-0ra", "xn-mhle-0ra"),
            ("☎\u{200b}\u{202e}", "host"),
        ] {
            assert_eq!(label(host), expected, "{host}");
        }
        // The same letter, composed and not.
        assert_eq!(label("Mu\u{308}hle"), label("Mühle"));
        let id = NodeId::from_bytes([7; 32]).to_string();
        assert_eq!(label(&id.to_uppercase()), "host");
    }

    #[test]
    fn equal_labels_get_numbers_and_nobody_loses_a_name_to_a_number() {
        let labels = ["a", "b", "a", "a-2", "a", "a-2"].map(str::to_owned);
        assert_eq!(distinct(&labels), ["a", "b", "a-3", "a-2", "a-4", "a-2-2"]);
    }

    proptest! {
        #[test]
        fn labels_are_short_and_of_the_right_letters(host in "\\PC{0,80}") {
            let label = label(&host);
            prop_assert!((1..=LABEL_BYTES_MAX).contains(&label.len()), "{}", label);
            let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
            prop_assert!(label.bytes().all(fits), "{}", label);
            prop_assert!(!label.starts_with('-') && !label.ends_with('-'), "{}", label);
        }

        #[test]
        fn distinct_labels_are(labels in prop::collection::vec("a(-[23]){0,2}", 0..20)) {
            let names: BTreeSet<String> = distinct(&labels).into_iter().collect();
            prop_assert_eq!(names.len(), labels.len());
        }
    }
}
