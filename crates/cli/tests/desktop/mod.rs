//! A person with a desktop, who has commands run.

#![allow(dead_code, reason = "every file of tests needs a part of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enishi_lab::{Output, command, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_enishi");

/// A person with a home and programs of its own.
pub(crate) struct Person {
    pub(crate) home: PathBuf,
}

impl Person {
    pub(crate) fn new(dir: &Path) -> Self {
        let home = dir.join("home");
        fs::create_dir_all(home.join(".config")).unwrap();
        Self { home }
    }

    /// Has a `gsettings` list these lines.
    pub(crate) fn has_gnome(&self, lines: &str) {
        let program = self.home.join("gsettings");
        let script = format!(
            "#!/bin/sh\ntest \"$*\" = 'list-recursively org.gnome.system.proxy' || exit 1\n\
             cat <<'END'\n{lines}END\n"
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a command for the daemon that has its data there.
    pub(crate) fn run(&self, data: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut enishi = command(PROGRAM);
        let path = format!("{}:/usr/bin:/bin", self.home.display());
        enishi.env_clear().env("PATH", path).env("HOME", &self.home);
        enishi.envs(variables.iter().copied());
        enishi.arg("--data").arg(data).args(words);
        run(enishi, Duration::from_secs(60)).unwrap()
    }
}
