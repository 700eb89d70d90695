//! Parses arguments of the command line into the protocol's values: durations, times, names, texts.
//!
//! Does not know whether a name exists: the broker does.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_proto::ids::Timestamp;
use peer_proto::limits::TEXT_BYTES_MAX;
use peer_proto::refusal::ErrorCode;
use peer_proto::text::single_line;

use crate::error::Failure;
use crate::operator::person;
use crate::output::now;

/// A duration, such as `90s` or `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; use a span such as 90s, 5m or 2h"))
}

/// A duration in the protocol's unit; the largest value if it is too long.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A time, or the time of an age such as `2h` ago.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Timestamp(now().0.saturating_sub(millis(ago))));
    }
    let at = humantime::parse_rfc3339_weak(text)
        .or_else(|_| humantime::parse_rfc3339_weak(&format!("{text}T00:00:00")))
        .map_err(|_| "use a day or time (UTC) such as 2026-11-20 or 2026-11-20T08:00:00Z, or an age such as 2h".to_owned())?;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp(millis(since)))
}

/// The name by which the broker knows a peer, also for the person.
pub(crate) fn peer(given: String) -> String {
    person(&given).map_or(given, str::to_owned)
}

/// The name of a channel or group; without a sign it means a channel.
pub(crate) fn channel(name: String) -> String {
    if name.starts_with(['#', '@']) { name } else { format!("#{name}") }
}

/// The names in "a,b". An empty name is refused, because the message would reach fewer recipients
/// than meant.
pub(crate) fn recipients(to: &str) -> Result<Vec<String>, Failure> {
    let names: Vec<_> = to.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        let message = format!("the recipients {:?} contain an empty name", single_line(to));
        return Err(Failure::usage(message).hint("give one name, or several separated by commas"));
    }
    Ok(names)
}

/// The text from the arguments, a file or standard input, unchanged.
pub(crate) fn text(words: &[String], file: Option<PathBuf>) -> Result<String, Failure> {
    let bytes = match file {
        Some(path) => {
            let attempt = "reading the text from";
            let opened = std::fs::File::open(&path)
                .map_err(|source| Failure::file(attempt, path.clone(), source))?;
            bounded(opened).map_err(|source| Failure::file(attempt, path, source))?
        }
        None if words.len() == 1 && words[0] == "-" => bounded(std::io::stdin().lock())
            .map_err(|source| Failure::system("reading the text from standard input", source))?,
        None => words.join(" ").into_bytes(),
    };
    if bytes.len() > TEXT_BYTES_MAX {
        let message =
            format!("the text has more than {TEXT_BYTES_MAX} bytes, the maximum of one message");
        return Err(Failure::refused(ErrorCode::TextTooLarge, message)
            .hint("send it in parts, or send the path of a file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::usage(format!("the text is not UTF-8 from byte {place} on"))
            .hint("convert it to UTF-8, for example with iconv")
    })
}

/// Reads at most one byte more than a text may have, which is enough to refuse it.
fn bounded(source: impl Read) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = Vec::new();
    source.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An idempotency key that no other act of this user has: from the process id and the time in
/// nanoseconds.
pub(crate) fn fresh_key() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    format!("peerctl-{}-{nanos}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_span_ago() {
        assert_eq!(moment("2026-11-18T11:06:40.123Z"), Ok(Timestamp(1_795_000_000_123)));
        assert_eq!(moment("2026-11-18"), moment("2026-11-18T00:00:00Z"));
        assert!(now().ms_since(moment("2h").unwrap()) >= 7_200_000);
        assert!(moment("yesterday").is_err());
    }
}
