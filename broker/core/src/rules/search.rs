//! Decides what a search may find.
//!
//! Knows for whom a search is, and which messages, notes and tasks that actor may find. Does not
//! know the index: the search thread asks it. Invariant: a search finds only what its actor could
//! also read otherwise.

use peer_proto::ids::PeerId;
use peer_proto::limits::{
    CHANNEL_NAME_CHARS_MAX, PAGE_ENTRIES_MAX, SEARCH_BEGINNINGS_MAX, SEARCH_BYTES_MAX,
    SEARCH_OFFSET_MAX, THREAD_BYTES_MAX,
};
use peer_proto::search::SearchQuery;
use peer_proto::text::is_blank;

use crate::broker::Broker;
use crate::check::check_length;
use crate::rejection::Rejection;
use crate::rules::visibility::Scope;
use crate::step::{Effect, Search};
use crate::turn::Turn;
use crate::who::Caller;

impl Broker {
    pub(crate) fn search(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        mut query: SearchQuery,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        check_length("the search text", &query.text, SEARCH_BYTES_MAX)?;
        check_length("the thread", query.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        check_length(
            "the channel",
            query.channel.as_deref().unwrap_or(""),
            CHANNEL_NAME_CHARS_MAX + 1,
        )?;
        if is_blank(&query.text) {
            return Err(Rejection::OutOfBounds {
                what: "the search text",
                bound: "at least one word".to_owned(),
            });
        }
        // Each `*` stands for all words with that beginning.
        if query.text.matches('*').count() > SEARCH_BEGINNINGS_MAX {
            let bound =
                format!("at most {SEARCH_BEGINNINGS_MAX} of them; whole words have no star");
            return Err(Rejection::OutOfBounds { what: "the number of stars (word*)", bound });
        }
        if query.offset > SEARCH_OFFSET_MAX {
            return Err(Rejection::OutOfBounds {
                what: "the offset",
                bound: format!("at most {SEARCH_OFFSET_MAX}"),
            });
        }
        let peer = query
            .peer
            .as_deref()
            .map(|name| self.presence.resolve(name, caller.peer()))
            .transpose()?;
        query.limit = query.limit.clamp(1, PAGE_ENTRIES_MAX as u32);
        query.channel = query
            .channel
            .map(|name| if name.starts_with(['#', '@']) { name } else { format!("#{name}") });
        query.channel = query.channel.map(|name| name.to_ascii_lowercase());
        let ids =
            |peer: Option<PeerId>| peer.map(|peer| self.presence.ids_of(peer)).unwrap_or_default();
        let Scope { seen_by, direct, channels, open_channels } = self.scope(actor);
        let search = Search { query, seen_by, direct, peers: ids(peer), channels, open_channels };
        turn.effect(Effect::Search {
            connection: caller.connection,
            id: caller.id,
            search: Box::new(search),
        });
        Ok(())
    }
}
