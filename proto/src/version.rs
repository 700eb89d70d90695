//! Protocol versions.

/// The oldest protocol version that this build speaks.
pub const PROTOCOL_MIN: u16 = 1;

/// The newest protocol version that this build speaks. 1: the first.
pub const PROTOCOL_MAX: u16 = 1;

/// The version two ends speak: the highest that both know; none where the ranges do not meet.
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
