//! The output for people and scripts: lines, tables, JSON, times, colours.
//!
//! Knows the terminal and the pipe. Does not know what is printed. The invariants: all standard
//! output goes through [`Output`], so that a closed pipe is noticed in one place. A peer's text
//! goes through [`peer_proto::text`] before a terminal gets it. JSON has it unchanged.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use peer_proto::ids::Timestamp;
use peer_proto::text::{ShownText, single_line};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::error::Failure;
use crate::json::{Error, Failed};

/// The last millisecond that RFC 3339 can write: the end of the year 9999.
const RFC3339_MS_MAX: u64 = 253_402_300_799_999;

/// Most characters of a peer's text in a cell of a table.
const CELL_CHARS_MAX: usize = 60;

/// The targets of a command's data and remarks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Whether data is printed as JSON instead of text.
    pub(crate) json: bool,
    /// Whether text on standard output may have colours.
    colour: bool,
}

/// A colour or weight, by its meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// Headings and names.
    Strong,
    /// Secondary things.
    Faint,
    /// A good state.
    Good,
    /// A state that needs attention.
    Bad,
}

impl Output {
    /// Colours are on at a terminal unless `NO_COLOR` is set, and always if `CLICOLOR_FORCE` is set
    /// to anything but 0.
    pub(crate) fn from_env(json: bool) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let plain_terminal = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = set("NO_COLOR").is_none()
            && (forced || (io::stdout().is_terminal() && !plain_terminal));
        Self { json, colour: colour && !json }
    }

    /// Prints one line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        write_line(text).map_err(Failure::output)
    }

    /// Prints a JSON value over several lines, as the only output of a command.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.line(&serde_json::to_string_pretty(value).map_err(Failure::unwritable)?)
    }

    /// Prints a JSON array of all rows.
    pub(crate) fn json_rows<T: Serialize>(
        &self,
        rows: impl IntoIterator<Item = T>,
    ) -> Result<(), Failure> {
        self.json(&rows.into_iter().collect::<Vec<T>>())
    }

    /// Prints a JSON value in one line, for streams.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.line(&serde_json::to_string(value).map_err(Failure::unwritable)?)
    }

    /// Prints a remark for a person on standard error; it is never data.
    pub(crate) fn remark(&self, text: &str) {
        // A closed standard error cannot be reported.
        let _ = write_whole(&mut io::stderr().lock(), format!("{text}\n").as_bytes());
    }

    /// Prints a failure: as text on standard error, and with `--json` also as one object on
    /// standard output. The object is one line, because it may be the last line of a stream.
    pub(crate) fn failure(&self, failure: &Failure) {
        let Failure { message, hint, data, .. } = failure;
        if self.json {
            let error =
                Error { code: failure.code(), message: message.clone(), hint: hint.clone() };
            let _ = self.json_line(&Failed { error, data: data.as_deref().cloned() });
        }
        let text = if hint.is_empty() { message.clone() } else { format!("{message}; {hint}") };
        self.remark(&format!("peerctl: {}", single_line(&text)));
    }

    /// The text in a tone, if colours are on.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Prints a table with a heading; without rows, a remark instead.
    pub(crate) fn table(
        &self,
        heading: &[&str],
        rows: &[Vec<String>],
        empty: &str,
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            self.remark(empty);
            return Ok(());
        }
        let lines = align(heading, rows);
        for (number, line) in lines.iter().enumerate() {
            self.line(&if number == 0 { self.paint(Tone::Strong, line) } else { line.clone() })?;
        }
        Ok(())
    }

    /// Prints names and aligned values.
    pub(crate) fn facts(&self, facts: &[(&str, String)]) -> Result<(), Failure> {
        let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in facts {
            self.line(&format!(
                "{}  {value}",
                self.paint(Tone::Strong, &format!("{name:<width$}"))
            ))?;
        }
        Ok(())
    }

    /// Prints a peer's text with a mark before each line, so that it cannot pass for other output.
    /// Then reports the characters that were left out.
    pub(crate) fn quoted(&self, text: &str) -> Result<(), Failure> {
        let body = ShownText::new(text);
        for line in body.lines() {
            self.line(&format!("{} {line}", self.paint(Tone::Faint, "|")))?;
        }
        match body.omission() {
            Some(omission) => self.line(&self.paint(Tone::Faint, &format!("({omission})"))),
            None => Ok(()),
        }
    }
}

/// Writes one whole line to standard output; see [`write_whole`].
pub(crate) fn write_line(text: &str) -> io::Result<()> {
    write_whole(&mut io::stdout().lock(), format!("{text}\n").as_bytes())
}

/// Writes all bytes and flushes. A pipe may be non-blocking, because another process made it so.
/// Then this waits until the pipe has room, as at a blocking pipe.
pub(crate) fn write_whole(output: &mut (impl Write + AsFd), mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let written = if bytes.is_empty() {
            output.flush().map(|()| None)
        } else {
            output.write(bytes).map(Some)
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(count)) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ =
                    poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the file is ready as wanted, has ended, or has failed. `false`: `end` came before.
pub(crate) fn is_ready(file: BorrowedFd<'_>, wanted: PollFlags, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file, wanted)], timeout) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) => {}
            // The state is unknown: the read or write itself reports the error.
            Err(_) => return true,
        }
    }
}

/// Aligns columns two spaces apart, except at the end of a line. Widths are those of a terminal: a
/// Chinese character takes two columns, and a combining character none.
fn align(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        line.trim_end().to_owned()
    };
    let heading = line(heading.to_vec());
    std::iter::once(heading)
        .chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())))
        .collect()
}

/// A peer's text for a table: one line of bounded length.
pub(crate) fn cell(text: &str) -> String {
    beginning(&single_line(text), CELL_CHARS_MAX)
}

/// The text, cut to `chars_max` characters.
pub(crate) fn beginning(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

/// The time in RFC 3339 with milliseconds.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.0.min(RFC3339_MS_MAX));
    humantime::format_rfc3339_millis(at).to_string()
}

/// The time of day in UTC, with milliseconds.
pub(crate) fn clock(at: Timestamp) -> String {
    // In "2026-11-20T21:04:18.123Z", the part between T and Z.
    rfc3339(at).get(11..23).unwrap_or_default().to_owned()
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A duration in the unit that fits best: `400 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{} s", ms / 1_000),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// The time since then, as a duration.
pub(crate) fn age(at: Timestamp) -> String {
    span(now().ms_since(at))
}

/// Bytes in the unit that fits best.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_slow_reader_of_a_non_blocking_pipe_gets_is_whole() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = bytes.clone();
        let writing = std::thread::spawn(move || write_whole(&mut ours, &bytes).unwrap());
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        writing.join().unwrap();
        assert!(read == expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines =
            align(&["A", "B"], &[vec!["long".into(), "x".into()], vec!["é".into(), String::new()]]);
        assert_eq!(lines, ["A     B", "long  x", "é"]);
        let wide = align(
            &["NAME", "B"],
            &[vec!["狐狸猫".into(), "x".into()], vec!["e\u{301}".into(), "y".into()]],
        );
        assert_eq!(wide, ["NAME    B", "狐狸猫  x", "e\u{301}       y"]);
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds_up_to_the_end_of_the_year_9999() {
        assert_eq!(rfc3339(Timestamp(1_795_000_000_123)), "2026-11-18T11:06:40.123Z");
        assert_eq!(clock(Timestamp(1_795_000_000_123)), "11:06:40.123");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_cell_is_one_clean_line_of_bounded_length() {
        assert_eq!(cell("a\n\u{1b}[31mb"), "a [31mb");
        assert_eq!(cell(&"x".repeat(100)).chars().count(), CELL_CHARS_MAX);
    }
}
