//! The protocol versions of this build.
//!
//! Does not know what changed between two versions: `docs/protocol.md` does.

/// The oldest protocol version that this build supports.
pub const PROTOCOL_MIN: u16 = 1;

/// The newest protocol version that this build supports. 1: the first.
pub const PROTOCOL_MAX: u16 = 1;

/// The protocol version of two ends: the highest that both support; `None` if there is none.
#[must_use]
pub fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let version = ours.1.min(theirs.1);
    (version >= ours.0 && version >= theirs.0).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_wins() {
        assert_eq!(common_version((1, 1), (1, 3)), Some(1));
        assert_eq!(common_version((1, 3), (2, 2)), Some(2));
        assert_eq!(common_version((2, 3), (1, 1)), None);
        assert_eq!(common_version((1, 1), (2, 3)), None);
    }
}
