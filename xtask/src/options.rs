//! The command line: a few flags do not need a library that takes longer to build
//! than everything else here.

use anyhow::{Context as _, bail};

/// The arguments that were not yet understood.
pub(crate) struct Options(Vec<String>);

impl Options {
    /// Takes the arguments after the program's name.
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self(arguments)
    }

    /// Takes the first word that is no option; call it after the options with values.
    pub(crate) fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|word| !word.starts_with('-'))?;
        Some(self.0.remove(at))
    }

    /// Tells whether the flag `name` was given, and takes it.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| word != name);
        self.0.len() < before
    }

    /// Takes the value of `name VALUE` or `name=VALUE`.
    pub(crate) fn value(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        for at in 0..self.0.len() {
            if self.0[at] == name {
                if at + 1 == self.0.len() {
                    bail!("{name} needs a value");
                }
                self.0.remove(at);
                return Ok(Some(self.0.remove(at)));
            }
            let attached = self.0[at].strip_prefix(name);
            if let Some(value) = attached.and_then(|rest| rest.strip_prefix('=')) {
                let value = value.to_owned();
                self.0.remove(at);
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Takes the positive number of `name N`.
    pub(crate) fn number(&mut self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number > 0);
        number
            .map(Some)
            .with_context(|| format!("{name} needs a positive number, not `{text}`"))
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => bail!("`{word}` means nothing here; see `cargo xtask help`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Options::new(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn takes_words_flags_and_values_in_any_order() {
        let mut given = options("--runs 3 vnet --json --seconds=9");
        assert_eq!(given.number("--runs").unwrap(), Some(3));
        assert_eq!(given.number("--seconds").unwrap(), Some(9));
        assert!(given.flag("--json") && !given.flag("--json"));
        assert_eq!(given.word().as_deref(), Some("vnet"));
        given.finish().unwrap();
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(options("--quik").finish().is_err());
        assert!(options("--runs").number("--runs").is_err());
        assert!(options("--runs 0").number("--runs").is_err());
        assert!(options("--runs few").number("--runs").is_err());
    }
}
