//! The line of a process in `/proc/PID/stat`, as Linux writes it.
//!
//! Parses the line, for each program that has read one. Knows the order of the fields. Reads no
//! file itself. Invariant: a process can choose its name freely, and no name moves the other
//! fields.

/// The fields of the line that peerd uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    state: u8,
    /// The process that started it, or the one that took it over; 0 if there is none.
    pub parent: u32,
    group: i32,
    /// The device of its controlling terminal.
    pub terminal: Option<u32>,
    foreground: i32,
    /// When it began, in ticks since the system started.
    pub started: u64,
}

impl Stat {
    /// Parses a line; `None` if it is malformed or truncated.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        // The second field is the name in parentheses. The name may itself have spaces and
        // parentheses, or no text.
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&line[name_end + 1..]).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let (parent, group, _session) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?);
        let (terminal, foreground) =
            (fields.next()?.parse::<i32>().ok()?, fields.next()?.parse().ok()?);
        let terminal = Some(terminal.cast_unsigned()).filter(|terminal| *terminal != 0);
        // The foreground is the eighth field of the line, and the start the twenty-second.
        let started = fields.nth(13)?.parse().ok()?;
        Some(Self { state, parent, group, terminal, foreground, started })
    }

    /// Whether the process has ended and only its exit status is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether a signal stopped it, such as `kill -STOP` or Ctrl-Z.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.state == b'T'
    }

    /// Whether its group is in the foreground of its terminal. A process without a terminal is not.
    #[must_use]
    pub fn is_in_foreground(&self) -> bool {
        self.terminal.is_some() && self.group == self.foreground
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of a process with this name and state, in group 13 of terminal `pts/2`.
    fn line(name: &[u8], state: &str, foreground: i32) -> Vec<u8> {
        let rest = format!(
            ") {state} 7 13 12 34818 {foreground} 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9876 11 12\n"
        );
        [b"42 (", name, rest.as_bytes()].concat()
    }

    #[test]
    fn no_name_moves_the_fields() {
        let expected = Stat {
            state: b'S',
            parent: 7,
            group: 13,
            terminal: Some(34_818),
            foreground: 12,
            started: 9_876,
        };
        let names: [&[u8]; 6] = [b"sh", b"", b"two words", b"a) Z 9 (b) R", b")) ((", b"cut \xc3"];
        for name in names {
            assert_eq!(
                Stat::parse(&line(name, "S", 12)),
                Some(expected),
                "{}",
                name.escape_ascii()
            );
        }
    }

    #[test]
    fn states_and_the_foreground_are_told_apart() {
        let told = |state| {
            Stat::parse(&line(b"sh", state, 12)).map(|stat| (stat.is_over(), stat.is_suspended()))
        };
        assert_eq!(["S", "R", "t"].map(told), [Some((false, false)); 3]);
        assert_eq!(["Z", "X", "x"].map(told), [Some((true, false)); 3]);
        assert_eq!(told("T"), Some((false, true)));
        let is_in_foreground =
            |group| Stat::parse(&line(b"sh", "S", group)).map(|stat| stat.is_in_foreground());
        assert_eq!((is_in_foreground(13), is_in_foreground(12)), (Some(true), Some(false)));
    }

    #[test]
    fn a_daemon_has_no_terminal_and_no_foreground() {
        let daemon =
            Stat::parse(b"12 (daemon) S 1 12 12 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9876 11")
                .unwrap();
        assert_eq!((daemon.terminal, daemon.is_in_foreground()), (None, false));
    }

    #[test]
    fn a_line_that_is_cut_is_none() {
        let whole = line(b"a) b", "S", 12);
        let start = whole.windows(4).position(|window| window == b"9876").unwrap();
        for end in 0..start {
            assert_eq!(Stat::parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(Stat::parse(b"nonsense"), None);
    }
}
