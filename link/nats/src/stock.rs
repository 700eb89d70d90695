//! What a team has on its server: a stream for mail, a consumer for each member, and a directory.
//!
//! Knows their names and settings, and what an admin must allow. Does not know what is in them.
//! Invariant: nothing is built with a wildcard over other members' mail.

use std::fmt::Write as _;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use peer_proto::ids::BrokerId;

/// Most bytes of one message of the stream.
pub(crate) const MESSAGE_BYTES_MAX: i32 = 128 * 1024;

/// Most messages that wait for one member from one other. More are refused, loudly.
const MESSAGES_PER_PAIR: i64 = 1_000;

/// Messages that one member may have under way without an acknowledgement.
const UNACKED_MAX: i64 = 256;

/// After how long a message without an acknowledgement comes again.
const ACK_WAIT_MS: u64 = 30_000;

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// How long the stream keeps a message: as long as a message waits for another machine at all.
const STREAM_AGE_MS: u64 = 7 * DAY_MS;

/// How long the directory keeps a card. A member writes its own every five minutes.
const CARD_AGE_MS: u64 = DAY_MS;

/// Within which a repeat of one publication is dropped.
const DUPLICATE_WINDOW_MS: u64 = 120_000;

/// The stream of a team's mail.
pub(crate) fn stream(team: &str) -> String {
    format!("PEERD_{team}")
}

/// The stream below the team's directory, a bucket `PEERD_<team>_dir`.
pub(crate) fn directory(team: &str) -> String {
    format!("KV_PEERD_{team}_dir")
}

/// The subject of mail from one member to another.
pub(crate) fn mail(team: &str, to: BrokerId, from: BrokerId) -> String {
    format!("peerd.{team}.mail.{to}.{from}")
}

/// The subject of all mail to one member.
pub(crate) fn mail_to(team: &str, to: BrokerId) -> String {
    format!("peerd.{team}.mail.{to}.*")
}

/// The sender and the recipient that a subject of mail names.
pub(crate) fn parties(team: &str, subject: &str) -> Option<(BrokerId, BrokerId)> {
    let rest = subject.strip_prefix("peerd.")?.strip_prefix(team)?.strip_prefix(".mail.")?;
    let (to, from) = rest.split_once('.')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// The subject on which a member answers at once.
pub(crate) fn live(team: &str, member: BrokerId) -> String {
    format!("peerd.{team}.live.{member}")
}

/// The subject of a member's card.
pub(crate) fn card(team: &str, member: BrokerId) -> String {
    format!("$KV.PEERD_{team}_dir.{member}")
}

/// The member whose card has this subject.
pub(crate) fn owner(team: &str, subject: &str) -> Option<BrokerId> {
    let rest = subject.strip_prefix("$KV.PEERD_")?.strip_prefix(team)?;
    rest.strip_prefix("_dir.")?.parse().ok()
}

/// The consumer of a member.
pub(crate) fn consumer(member: BrokerId) -> String {
    format!("H_{member}")
}

/// What the answers of the server come to.
pub(crate) fn inbox(member: BrokerId) -> String {
    format!("_INBOX_{member}")
}

pub(crate) fn stream_config(team: &str) -> Config {
    Config {
        name: stream(team),
        subjects: vec![format!("peerd.{team}.mail.*.*")],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: MESSAGES_PER_PAIR,
        max_messages: -1,
        max_bytes: -1,
        max_message_size: MESSAGE_BYTES_MAX,
        max_age: Duration::from_millis(STREAM_AGE_MS),
        duplicate_window: Duration::from_millis(DUPLICATE_WINDOW_MS),
        num_replicas: 1,
        ..Config::default()
    }
}

pub(crate) fn directory_config(team: &str) -> Config {
    Config {
        name: directory(team),
        subjects: vec![format!("$KV.PEERD_{team}_dir.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: -1,
        max_message_size: 16 * 1024,
        max_age: Duration::from_millis(CARD_AGE_MS),
        duplicate_window: Duration::from_millis(DUPLICATE_WINDOW_MS),
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        num_replicas: 1,
        ..Config::default()
    }
}

pub(crate) fn consumer_config(team: &str, member: BrokerId) -> pull::Config {
    pull::Config {
        durable_name: Some(consumer(member)),
        name: Some(consumer(member)),
        filter_subject: mail_to(team, member),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_millis(ACK_WAIT_MS),
        max_ack_pending: UNACKED_MAX,
        max_deliver: -1,
        num_replicas: 1,
        ..pull::Config::default()
    }
}

/// What is different on the server from what a team needs: one line each.
pub(crate) fn differences(found: &Config, wanted: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, found: String, wanted: String| {
        if found != wanted {
            lines.push(format!("{what} is {found}, not {wanted}"));
        }
    };
    compare("subjects", found.subjects.join(","), wanted.subjects.join(","));
    compare("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention));
    compare("discard", format!("{:?}", found.discard), format!("{:?}", wanted.discard));
    compare(
        "max_msgs_per_subject",
        found.max_messages_per_subject.to_string(),
        wanted.max_messages_per_subject.to_string(),
    );
    compare(
        "discard_new_per_subject",
        found.discard_new_per_subject.to_string(),
        wanted.discard_new_per_subject.to_string(),
    );
    compare("allow_direct", found.allow_direct.to_string(), wanted.allow_direct.to_string());
    // A larger bound or a longer age does no harm: what lies there is no promise.
    if found.max_message_size != -1 && found.max_message_size < wanted.max_message_size {
        let (found, wanted) = (found.max_message_size, wanted.max_message_size);
        lines.push(format!("max_msg_size is {found}, and at least {wanted} is needed"));
    }
    lines
}

/// What the admin of the server allows one member, as a block of the server's configuration. The
/// server then keeps senders apart: nobody sends as another, or reads another's mail.
#[must_use]
pub fn permissions(team: &str, member: BrokerId) -> String {
    let (stream, directory, consumer) = (stream(team), directory(team), consumer(member));
    let publish = [
        format!("peerd.{team}.mail.*.{member}"),
        format!("peerd.{team}.live.*"),
        card(team, member),
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{}", mail_to(team, member)),
        format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
        format!("$JS.ACK.{stream}.{consumer}.>"),
        format!("$JS.API.STREAM.INFO.{directory}"),
        format!("$JS.API.DIRECT.GET.{directory}.>"),
    ];
    let subscribe = [format!("{}.>", inbox(member)), live(team, member)];
    let list = |subjects: &[String]| {
        let lines: Vec<String> =
            subjects.iter().map(|subject| format!("    {subject:?}")).collect();
        lines.join("\n")
    };
    let mut text = String::new();
    let _ = write!(
        text,
        "permissions: {{\n  publish: [\n{}\n  ]\n  subscribe: [\n{}\n  ]\n  allow_responses: {{ max: 2, expires: \"10s\" }}\n}}",
        list(&publish),
        list(&subscribe)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_name_their_parties() {
        let (ann, bob) = (BrokerId([1; 16]), BrokerId([2; 16]));
        assert_eq!(parties("blue", &mail("blue", bob, ann)), Some((ann, bob)));
        assert_eq!(parties("blu", &mail("blue", bob, ann)), None);
        assert_eq!(parties("blue", "peerd.blue.mail.x.y"), None);
        assert_eq!(owner("blue", &card("blue", ann)), Some(ann));
        assert_eq!(owner("red", &card("blue", ann)), None);
    }

    #[test]
    fn permissions_name_no_other_member_and_no_wildcard_over_mail() {
        let ann = BrokerId([1; 16]);
        let text = permissions("blue", ann);
        for line in text.lines().filter(|line| line.contains("mail.")) {
            assert!(line.contains(&ann.to_string()), "{line}");
        }
        assert!(!text.contains("mail.>") && !text.contains("mail.*.*"), "{text}");
    }

    #[test]
    fn a_stream_with_other_settings_is_named() {
        let wanted = stream_config("blue");
        assert!(differences(&wanted, &wanted).is_empty());
        let limits = Config { retention: RetentionPolicy::Limits, ..wanted.clone() };
        assert_eq!(differences(&limits, &wanted), ["retention is Limits, not WorkQueue"]);
    }
}
