//! An action as a line of a scenario.

use peer_mcp_core::event::Action;
use peer_mcp_core::inbox::Block;
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;
use peer_proto::request::Request;

/// What the action says; none for one that only wakes a hand.
pub(super) fn told(action: &Action) -> Option<String> {
    let line = match action {
        Action::Tell(request) | Action::Ask { request, .. } => {
            format!("broker: {}", request_told(request))
        }
        Action::Bind(seat) => format!("broker: bind {:?}:{}", seat.kind, seat.key).to_lowercase(),
        Action::Look | Action::Watch | Action::News => return None,
        Action::Push { carrier, post } => {
            format!("push {}: {}", carrier.as_str(), text_told(&post.text))
        }
        Action::Go => "go".to_owned(),
        Action::Show { call, block } => format!("result c{}: {}", call.0, block_told(block)),
        Action::Receive { .. } => "receive".to_owned(),
        Action::Print { block, asks } => {
            format!(
                "hook prints {}{}",
                block_told(block),
                if *asks { " (asked with it)" } else { "" }
            )
        }
        Action::Notice(text) => format!("notice: {text}"),
        Action::Title(name) => format!("title {name}"),
        Action::Summarize(_) => "summarize".to_owned(),
    };
    Some(line)
}

fn request_told(request: &Request) -> String {
    match request {
        Request::Offered { messages, carrier, last } => {
            format!(
                "offered {} by {}{}",
                names(messages),
                carrier.as_str(),
                if *last { ", the last" } else { "" }
            )
        }
        Request::Presented { messages, carrier, evidence } => {
            format!("presented {} by {}, {}", names(messages), carrier.as_str(), evidence.as_str())
        }
        Request::Tried { messages } => format!("tried {}", names(messages)),
        Request::Report(report) => {
            let carriers = report.carriers.as_deref().unwrap_or_default();
            let carriers: Vec<&str> =
                carriers.iter().map(|carrier: &Carrier| carrier.as_str()).collect();
            let activity = report.activity.map_or("unknown", |activity| activity.as_str());
            let mode = report.mode.map_or_else(String::new, |mode| format!(" {}", mode.as_str()));
            format!("report {activity}{mode}: {}", carriers.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn block_told(block: &Block) -> String {
    if block.text.is_empty() { "nothing".to_owned() } else { text_told(&block.text) }
}

/// The messages of a block, each with what is said of it, and our own lines.
fn text_told(text: &str) -> String {
    let mut told: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with("| ") || line.starts_with("[PEER INBOX]") || line == "|" {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let id = header.split_whitespace().next().unwrap_or_default();
            told.push(format!(
                "{}{}",
                short(id),
                if header.ends_with("(shown before)") { " (shown before)" } else { "" }
            ));
        } else {
            told.push(format!(
                "\"{}\"",
                line.split_inclusive([' ', ',', '"', ';']).map(shortened).collect::<String>()
            ));
        }
    }
    told.join(", ")
}

/// A word in which an id may stand.
fn shortened(word: &str) -> String {
    let id = word.trim_end_matches([' ', ',', '"', ')', ';']);
    match id.rfind("m-") {
        Some(at) if id.len() == at + 18 => {
            format!("{}{}{}", &id[..at], short(&id[at..]), &word[id.len()..])
        }
        _ => word.to_owned(),
    }
}

fn names(messages: &[MessageId]) -> String {
    messages.iter().map(|message| short(&message.to_string())).collect::<Vec<_>>().join(",")
}

/// `m7` of `m-0000000000000007`.
fn short(id: &str) -> String {
    id.parse::<MessageId>().map_or_else(|_| id.to_owned(), |id| format!("m{}", id.to_u128()))
}
