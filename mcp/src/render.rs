//! Renders peer text for a model ([`peer_mcp_core::render`]), and times, which need the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use peer_mcp_core::render::*;
use peer_proto::ids::Timestamp;

/// Renders a time by RFC 3339 with milliseconds, in UTC.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    // Beyond the year 9999 the format has no text; no broker of ours sends such a time.
    let millis = at.0.min(253_402_300_799_999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

/// Renders how long ago a time was, in its largest non-zero unit.
pub(crate) fn ago(at: Timestamp) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    let seconds = now.saturating_sub(at.0) / 1_000;
    match seconds {
        0..=1 => "just now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_milliseconds_and_the_last_one_has_a_text_too() {
        assert_eq!(rfc3339(Timestamp(1_795_000_000_123)), "2026-11-18T11:06:40.123Z");
        rfc3339(Timestamp(u64::MAX));
    }
}
