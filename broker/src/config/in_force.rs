//! The settings in force if `config.toml` cannot be read: those of the last start that could read
//! it.
//!
//! A mistake in the file must not stop every peer's mail, and must not open what the person closed.
//! So each start that can read the file saves a copy. A start that cannot uses the copy, and
//! reports it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use peer_proto::settings::{KEYS, Settings};

use super::read;

/// The next step if the file cannot be read.
pub const FAULT_HINT: &str = "fix it, then run `peerctl daemon restart`";

/// The settings that a broker uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The values.
    pub settings: Settings,
    /// The reason why they differ from the file. `None`: they are the file's.
    pub fault: Option<String>,
}

/// Returns the settings that a broker would use if it started now. Changes nothing.
#[must_use]
pub fn in_force(file: &Path, kept: &Path) -> InForce {
    let broken = match super::load(file) {
        Ok(settings) => return InForce { settings, fault: None },
        Err(error) => said(&error),
    };
    let (what, settings) = match kept.symlink_metadata().is_ok().then(|| super::load(kept)) {
        Some(Ok(settings)) => {
            ("the broker uses the settings of the last start that could read it", settings)
        }
        // Only a broker changes the copy. If it cannot be read either, the earlier settings are
        // unknown.
        Some(Err(_)) | None => {
            ("the broker has no earlier version, and uses all defaults", Settings::default())
        }
    };
    InForce { settings, fault: Some(format!("{broken}: {what}")) }
}

/// The same for the broker itself: also saves a copy of a file that it can read.
pub(crate) fn for_start(file: &Path, kept: &Path) -> InForce {
    let in_force = in_force(file, kept);
    if in_force.fault.is_none()
        && let Err(error) = keep(file, kept)
    {
        tracing::warn!(cause = %error, "cannot save a copy of the configuration; after a mistake in it, the broker would use all defaults");
    }
    in_force
}

/// Replaces the copy by the file's content, in one step.
fn keep(file: &Path, kept: &Path) -> io::Result<()> {
    let text = read(file).map_err(io::Error::other)?.unwrap_or_default();
    if read(kept).is_ok_and(|before| before.unwrap_or_default() == text) {
        return Ok(());
    }
    let beside = kept.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&beside, kept)
}

/// The mistake, with the system's reason. The next step is a different one here: [`FAULT_HINT`].
fn said(error: &super::ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(reason) => format!("{error}: {reason}"),
        None => error.to_string(),
    }
}

/// Returns the settings in which the file differs from those in force: the key, the file's value,
/// and the value in force.
#[must_use]
pub fn differing(file: &Settings, in_force: &[(String, String)]) -> Vec<(String, String, String)> {
    let said = of_the_broker(file).into_iter();
    said.filter_map(|(key, value)| {
        let (_, now) = in_force.iter().find(|(of, _)| *of == key)?;
        (*now != value).then(|| (key, value, now.clone()))
    })
    .collect()
}

/// Returns every value that the broker itself uses, as table and key with the value. Each adapter
/// uses the others, as the file was when the adapter started.
pub(crate) fn of_the_broker(settings: &Settings) -> Vec<(String, String)> {
    let keys = KEYS.iter().filter(|key| key.table != "adapter");
    keys.map(|key| (key.path(), key.get(settings).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer_proto::policy::Policy;

    #[test]
    fn a_mistake_changes_nothing_of_what_was_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let (file, kept) = (dir.path().join("config.toml"), dir.path().join("config.kept.toml"));
        let start = |text: &str| {
            fs::write(&file, text).unwrap();
            for_start(&file, &kept)
        };
        let first = start("[limits");
        assert_eq!(first.settings, Settings::default());
        assert!(first.fault.unwrap().contains("uses all defaults"));
        assert!(!kept.exists());

        let good = start("[policy]\ndefault = \"hold\"\n");
        assert_eq!((good.settings.policy.default, good.fault), (Policy::Hold, None));
        for broken in
            ["[policy]\ndefault = \"hodl\"\n", "[limits]\nsender_per_minute = 0\n", "\u{0}"]
        {
            let started = start(broken);
            assert_eq!(started.settings.policy.default, Policy::Hold, "{broken:?}");
            let fault = started.fault.unwrap();
            assert!(
                fault.contains("config.toml, line")
                    && fault.contains("the last start that could read it"),
                "{fault}"
            );
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(
            for_start(&file, &kept).settings,
            Settings::default(),
            "no file is a file that can be read"
        );
        assert_eq!(start("[limits").settings, Settings::default());
    }

    #[test]
    fn what_stands_in_the_way_of_the_copy_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, kept) = (dir.path().join("config.toml"), dir.path().join("config.kept.toml"));
        fs::write(&file, "[limits]\nsender_per_minute = 7\n").unwrap();
        fs::create_dir(&kept).unwrap();
        assert_eq!(for_start(&file, &kept).settings.limits.sender_per_minute, 7);
        fs::write(&file, "[limits").unwrap();
        assert_eq!(for_start(&file, &kept).settings, Settings::default());
        assert!(kept.is_dir());
    }
}
