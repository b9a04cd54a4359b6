//! The keys about the proxy that connections of the node take.

use enishi_proxy::Written;

use super::Config;

impl Config {
    /// Returns what the configuration says of the proxy that connections of the node take.
    pub fn upstream(&self) -> Written {
        Written {
            proxy: self.proxy.clone(),
            pac: self.proxy_pac.as_ref().map(ToString::to_string),
            no_proxy: self.no_proxy.clone(),
            ..Written::default()
        }
    }

    /// Tells what is wrong with the keys, and what to do about it; repeats no password.
    pub(super) fn check_proxy(&self) -> Result<(), String> {
        let settings = self.upstream().settings();
        settings.map_err(|error| error.to_string())?;
        if self
            .proxy_ca
            .as_ref()
            .is_some_and(|file| !file.is_absolute())
        {
            return Err(
                "`proxy_ca` is a file with certificates, by a path that begins with /".to_owned(),
            );
        }
        match (&self.company_settings, &self.company_key) {
            (Some(_), None) => Err(
                "`company_settings` needs `company_key`, the key that `enishi proxy sign` shows: \
                 what is not signed is not taken"
                    .to_owned(),
            ),
            (None, Some(_)) => Err(
                "`company_key` needs `company_settings`, the place of the file: http://host/file \
                 or a path"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text)
    }

    #[test]
    fn the_proxy_of_the_node_is_one_of_three() {
        assert_eq!(parse("").unwrap().upstream(), Written::default());
        let config =
            parse("proxy = \"http://alice:secret@proxy:3128\"\nno_proxy = [\"10.0.0.0/8\"]");
        let config = config.unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        assert!(config.upstream().settings().unwrap().is_some());
        assert!(parse("proxy = \"none\"").is_ok());
        assert!(parse("proxy_pac = \"http://wpad.example.com/proxy.pac\"").is_ok());
    }

    #[test]
    fn mistakes_are_told_with_the_key_and_without_the_password() {
        let key = enishi_overlay::Keypair::from_seed(&[1; 32]).id();
        for (text, key) in [
            ("proxy = \"http://u:secret@host\"", "`proxy`"),
            ("proxy = \"ftp://u:secret@host:1\"", "`proxy`"),
            ("proxy = \"http://u:secret@host:1", "proxy = …"),
            ("prxy = \"http://u:secret@host:1\"", "`prxy`"),
            ("no_proxy = [\"a b\"]", "`no_proxy`"),
            ("proxy_pac = \"ftp://host/p.pac\"", "proxy_pac"),
            ("proxy_ca = \"ca.pem\"", "`proxy_ca`"),
            ("proxy = \"http://h:1\"\nproxy_pac = \"/p\"", "`proxy_pac`"),
            ("company_settings = \"/etc/company\"", "`company_key`"),
            (&format!("company_key = \"{key}\""), "`company_settings`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(key) && !error.contains("secret"), "{error}");
        }
    }
}
