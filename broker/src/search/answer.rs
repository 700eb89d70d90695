//! Builds the answer to a search: hits with names, times and snippets from the store.
//!
//! Knows records and snippets. Does not know the index.

use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::message::Kind;
use peer_proto::search::{Hit, HitKind};
use tantivy::tokenizer::TextAnalyzer;

use super::snippet;
use super::wire::SearchHits;
use super::words::Part;
use crate::store::{Reference, Snapshot, StoreError};

/// Returns the hits that the index found, and their total number.
pub(super) fn hits(
    store: &Snapshot,
    analyzer: &mut TextAnalyzer,
    parts: &[Part],
    found: &SearchHits,
    now: Timestamp,
) -> Result<(Vec<Hit>, u64), StoreError> {
    let mut total = found.total;
    let mut hits = Vec::with_capacity(found.references.len());
    for reference in &found.references {
        match hit(store, analyzer, parts, reference, now)? {
            Some(hit) => hits.push(hit),
            // It was deleted since, or has expired.
            None => total = total.saturating_sub(1),
        }
    }
    Ok((hits, total))
}

fn hit(
    store: &Snapshot,
    analyzer: &mut TextAnalyzer,
    parts: &[Part],
    reference: &Reference,
    now: Timestamp,
) -> Result<Option<Hit>, StoreError> {
    Ok(match reference {
        Reference::Message(id) => store.message(*id)?.map(|message| {
            let snippet = snippet::snippet(analyzer, &message.text, parts);
            let head = message.head;
            Hit {
                kind: match head.kind {
                    Kind::Question => HitKind::Question,
                    Kind::Answer => HitKind::Answer,
                    Kind::Message | Kind::Notice | Kind::Join | Kind::Leave => HitKind::Message,
                },
                id: id.to_string(),
                from: head.from.name,
                to: match head.channel {
                    Some(channel) => vec![channel],
                    None => head.to.into_iter().map(|(_, name)| name).collect(),
                },
                at: head.sent_at,
                snippet: snippet.text,
                matches: snippet.matches,
            }
        }),
        Reference::Note(key) => store
            .note(key)?
            .filter(|note| note.head.expires_at.is_none_or(|at| at > now))
            .map(|note| {
                let snippet = snippet::snippet(analyzer, &note.value, parts);
                Hit {
                    kind: HitKind::Note,
                    id: note.head.key,
                    from: note.head.author,
                    to: Vec::new(),
                    at: note.head.changed_at,
                    snippet: snippet.text,
                    matches: snippet.matches,
                }
            }),
        Reference::Task(id) => match store.task(*id)? {
            Some(task) => {
                let texts = [&task.title, &task.description, &task.result].map(|text| text.trim());
                let text = texts
                    .into_iter()
                    .filter(|text| !text.is_empty())
                    .collect::<Vec<_>>()
                    .join(" · ");
                let snippet = snippet::snippet(analyzer, &text, parts);
                Some(Hit {
                    kind: HitKind::Task,
                    id: id.to_string(),
                    from: name_of(store, task.creator)?,
                    to: Vec::new(),
                    at: task.changed_at,
                    snippet: snippet.text,
                    matches: snippet.matches,
                })
            }
            None => None,
        },
    })
}

fn name_of(store: &Snapshot, peer: PeerId) -> Result<String, StoreError> {
    Ok(match store.peer_name(peer)? {
        Some(name) => name,
        None if peer == PeerId::HUMAN => "human".to_owned(),
        None => peer.to_string(),
    })
}
