//! What is wrong with a configuration file, in words for those who write one.
//!
//! The parser tells which type of the program it expected, and in which one a value came. Both
//! are put in words of the file; what is not known here is told as the parser tells it.

/// What the parser expects, and what that is in the file.
const EXPECTED: [(&str, &str); 6] = [
    ("a boolean", "`true` or `false`"),
    ("a string", "text in quotes"),
    ("a sequence", "a list in brackets, as [\"…\", \"…\"]"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    (
        "socket address",
        "an address with a port, as \"0.0.0.0:4242\" or \"[::]:4242\"",
    ),
];
/// How the parser calls what stands in the file, and what it is.
const FOUND: [(&str, &str); 5] = [
    ("boolean ", ""),
    ("integer ", "the number "),
    ("floating point ", "the number "),
    ("string ", "the text "),
    ("sequence", "a list"),
];

/// Says where and what is wrong. Who names a user may name a password, in that line or in the ones after
/// it, and so is not repeated.
pub(super) fn error(text: &str, error: &toml::de::Error) -> String {
    let what = message(error.message());
    let span = error.span().map(|span| span.start);
    let before = span.map(|start| text.get(..start).unwrap_or(text));
    let number = before.map(|before| before.matches('\n').count());
    let line = number.and_then(|number| text.lines().nth(number));
    let line = line.unwrap_or_default().trim();
    let names_a_user = line.contains('@') || what.contains('@');
    let (line, what) = match names_a_user {
        true => (key_of(line), without_what_was_found(&what)),
        false => (line.to_owned(), what),
    };
    match (number, line.is_empty()) {
        (None, _) => what,
        (Some(number), true) => format!("line {}: {what}", number + 1),
        (Some(number), false) => format!("line {}, `{line}`: {what}", number + 1),
    }
}

/// Returns the key of a line with its value left out; empty if it has none.
fn key_of(line: &str) -> String {
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match line.split_once('=') {
        Some((key, _)) if key.trim().chars().all(is_of_key) => format!("{key}= …"),
        _ => String::new(),
    }
}

/// Leaves out what was found in a place, which is told last, or in the middle.
fn without_what_was_found(what: &str) -> String {
    let what = what.split_once(", not ").map_or(what, |(what, _)| what);
    match what.contains('@') {
        true => "the value does not fit".to_owned(),
        false => what.to_owned(),
    }
}

fn message(message: &str) -> String {
    for (head, plain) in [
        ("unknown field ", "there is no key "),
        ("unknown variant ", "there is no value "),
    ] {
        let rest = message.strip_prefix(head);
        if let Some((name, known)) = rest.and_then(|rest| rest.split_once(", expected one of ")) {
            return format!("{plain}{name}; there are {known}");
        }
    }
    if message == "invalid socket address syntax" {
        return format!("this should be {}", EXPECTED[5].1);
    }
    let invalid = ["invalid type: ", "invalid value: "];
    let rest = invalid.iter().find_map(|head| message.strip_prefix(head));
    let Some((found, expected)) = rest.and_then(|rest| rest.split_once(", expected ")) else {
        return message.to_owned();
    };
    let known = EXPECTED.iter().find(|(name, _)| *name == expected);
    let expected = known.map_or(expected, |(_, plain)| plain);
    let known = FOUND.iter().find_map(|(name, plain)| {
        let rest = found.strip_prefix(name)?;
        Some(format!("{plain}{rest}"))
    });
    let found = known.unwrap_or_else(|| found.to_owned());
    format!("this should be {expected}, not {found}")
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn passwords_are_left_out() {
        for text in [
            "turn = [\"turn:u:secret@h\"]",
            "bootstrap = [\n  \"u:secret@h:99999\"\n]",
            "listen = [\n  \"u:secret=@h:1\"\n]",
            "turn = \"turn:u:secret, not secret@h\"",
            "proxy = [\"http://u:secret@h:1\"]",
            "policy = \"u:secret@h\"",
            "listen = [\"u:secret@h:1\"]",
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(
                error.starts_with("line ") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn errors_speak_of_the_file_and_not_of_types() {
        for (text, wanted) in [
            (
                "log = \"info\"\ntun = 1",
                "line 2, `tun = 1`: this should be `true` or `false`, not the number `1`",
            ),
            (
                "ticket_valid_days = -1",
                "line 1, `ticket_valid_days = -1`: this should be a whole number from 0 to \
                 4294967295, not the number `-1`",
            ),
            (
                "policy = \"fame\"",
                "line 1, `policy = \"fame\"`: there is no value `fame`; there are `none`, `trust`, \
                 `reputation`",
            ),
            (
                "host_name = true",
                "line 1, `host_name = true`: this should be text in quotes, not `true`",
            ),
            (
                "listen = \"0.0.0.0:1\"",
                "line 1, `listen = \"0.0.0.0:1\"`: this should be a list in brackets, as \
                 [\"…\", \"…\"], not the text \"0.0.0.0:1\"",
            ),
            (
                "listen = [\"nowhere\"]",
                "line 1, `listen = [\"nowhere\"]`: this should be an address with a port, as \
                 \"0.0.0.0:4242\" or \"[::]:4242\"",
            ),
        ] {
            assert_eq!(Config::parse(text).unwrap_err(), wanted);
        }
    }
}
