//! Wiring clients up: what `setup`, `uninstall` and `doctor` know of each client's files.

pub(crate) mod diff;
pub(crate) mod json;
pub(crate) mod toml;
