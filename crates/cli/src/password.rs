//! Secrets from files and standard input, never from the command line, where every
//! user of the machine could read them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use crate::output::Output;
use crate::problem::Problem;
use crate::text::Message;

/// The longest password, in octets.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Reads a password from a file, or from standard input for `-`. One line break at
/// the end is not part of it.
///
/// # Errors
/// [`Problem::Usage`] when the file cannot be read, holds no text, nothing, or too much.
pub(crate) fn read(out: &Output, file: &Path) -> Result<Zeroizing<String>, Problem> {
    let name = file.display().to_string();
    let bytes = if file == Path::new("-") {
        read_bounded(io::stdin().lock())
    } else {
        File::open(file).and_then(read_bounded)
    };
    let bytes = bytes.map_err(|error| {
        Problem::Usage(out.text(&Message::PasswordUnreadable {
            name: &name,
            error: &error,
        }))
    })?;
    parse(&bytes).ok_or_else(|| {
        Problem::Usage(out.text(&Message::PasswordUnfit {
            name: &name,
            max: PASSWORD_BYTES_MAX,
        }))
    })
}

fn read_bounded(reader: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // The whole capacity at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 3));
    reader
        .take(PASSWORD_BYTES_MAX as u64 + 3)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fits = !line.is_empty() && line.len() <= PASSWORD_BYTES_MAX;
    let text = std::str::from_utf8(line).ok().filter(|_| fits)?;
    Some(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_a_password() {
        let read = |text: &[u8]| parse(text).map(|password| password.to_string());
        assert_eq!(read(b"secret").as_deref(), Some("secret"));
        assert_eq!(read(b"secret\n").as_deref(), Some("secret"));
        assert_eq!(read(b"secret\r\n").as_deref(), Some("secret"));
        assert_eq!(read(b"secret\n\n").as_deref(), Some("secret\n"));
        assert_eq!(read(b" \xe7\xb8\x81 ").as_deref(), Some(" 縁 "));
    }

    #[test]
    fn what_cannot_be_a_password_is_refused() {
        assert!(parse(b"").is_none());
        assert!(parse(b"\n").is_none());
        assert!(parse(b"\xff\xfe").is_none());
        assert!(parse(&[b'x'; PASSWORD_BYTES_MAX]).is_some());
        assert!(parse(&[b'x'; PASSWORD_BYTES_MAX + 1]).is_none());
    }
}
