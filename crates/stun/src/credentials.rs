//! A name and a password: the long-term credentials of RFC 8489, section 9.2.

use std::fmt;

use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials};
use thiserror::Error;
use zeroize::Zeroizing;

/// The longest name and the longest password, in octets. A USERNAME has less than 509 octets (RFC
/// 8489, section 14.3); nobody needs more.
pub const CREDENTIAL_BYTES_MAX: usize = 508;

/// A name with its password. The password is not printed, and zeroed when dropped.
///
/// The protocol crates make copies of it, which they do not zero. A [`crate::Server`] gives them
/// the passwords of users with an allocation only.
#[derive(Clone)]
pub struct Credentials {
    name: String,
    password: Zeroizing<String>,
}

/// Why credentials cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CredentialError {
    /// The name is empty, the password is, or one is too long.
    #[error("a name and a password of 1 to {CREDENTIAL_BYTES_MAX} octets are needed")]
    Length,
    /// A control character, which RFC 8265 forbids.
    #[error("control characters are not allowed in a name or password")]
    Control,
}

impl Credentials {
    /// Takes a name and a password as they are. Who wants them compared regardless of their
    /// form prepares them before (RFC 8265); plain ASCII needs no preparation.
    ///
    /// # Errors
    /// When one is empty, too long, or has control characters.
    pub fn new(name: &str, password: &str) -> Result<Self, CredentialError> {
        for text in [name, password] {
            if text.is_empty() || text.len() > CREDENTIAL_BYTES_MAX {
                return Err(CredentialError::Length);
            }
            if text.chars().any(char::is_control) {
                return Err(CredentialError::Control);
            }
        }
        Ok(Self {
            name: name.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Derives the key by which messages of a realm are signed (RFC 8489, section 9.2.2).
    pub(crate) fn key(&self, realm: &str, algorithm: IntegrityAlgorithm) -> IntegrityKey {
        let name = self.name.clone();
        let password = self.password.as_str().to_owned();
        LongTermKeyCredentials::new(name, password, realm.to_owned()).make_key(algorithm)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_name_nor_password_is_printed() {
        let credentials = Credentials::new("aki", "a long password").unwrap();
        assert_eq!(format!("{credentials:?}"), "Credentials");
    }

    #[test]
    fn what_no_message_can_carry_is_refused() {
        let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
        for (name, password) in [("", "p"), ("u", ""), (long.as_str(), "p")] {
            let refused = Credentials::new(name, password).unwrap_err();
            assert_eq!(refused, CredentialError::Length);
        }
        let refused = Credentials::new("u\n", "p").unwrap_err();
        assert_eq!(refused, CredentialError::Control);
    }
}
