//! Searching: who may find what.
//!
//! Knows whom a search is for, and what of all that was said, noted and planned that one may find. Does not know words: the
//! shell looks for them. Invariant: nothing is found that its finder could not read otherwise.

use peer_proto::ids::{PeerId, Timestamp};
use peer_proto::limits::{
    CHANNEL_NAME_CHARS_MAX, PAGE_ENTRIES_MAX, SEARCH_BEGINNINGS_MAX, SEARCH_BYTES_MAX, SEARCH_OFFSET_MAX, THREAD_BYTES_MAX,
};
use peer_proto::policy::Policy;
use peer_proto::search::SearchQuery;
use peer_proto::text::is_blank;

use crate::broker::{Broker, Caller};
use crate::rejection::Rejection;
use crate::sessions::check_length;
use crate::step::{Effect, Reader, Search, Step};

impl Broker {
    pub(crate) fn search(&mut self, caller: Caller, mut query: SearchQuery, step: &mut Step) -> Result<(), Rejection> {
        let reader = self.reader(caller)?;
        check_length("the text to look for", &query.text, SEARCH_BYTES_MAX)?;
        check_length("the thread", query.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        check_length("the channel", query.channel.as_deref().unwrap_or(""), CHANNEL_NAME_CHARS_MAX + 1)?;
        if is_blank(&query.text) {
            return Err(Rejection::OutOfBounds { what: "the text to look for", bound: "a word at least".to_owned() });
        }
        // Each stands for all words that begin so.
        if query.text.matches('*').count() > SEARCH_BEGINNINGS_MAX {
            let bound = format!("at most {SEARCH_BEGINNINGS_MAX} of them; whole words have no star");
            return Err(Rejection::OutOfBounds { what: "the number of stars (word*)", bound });
        }
        if query.offset > SEARCH_OFFSET_MAX {
            return Err(Rejection::OutOfBounds { what: "the offset", bound: format!("at most {SEARCH_OFFSET_MAX}") });
        }
        let me = self.sending_peer(caller.connection);
        let peer = query.peer.as_deref().map(|name| self.presence.resolve(name, me)).transpose()?;
        query.limit = query.limit.clamp(1, PAGE_ENTRIES_MAX as u32);
        query.channel = query.channel.map(|name| if name.starts_with(['#', '@']) { name } else { format!("#{name}") });
        query.channel = query.channel.map(|name| name.to_ascii_lowercase());
        let ids = |peer: Option<PeerId>| peer.map(|peer| self.presence.ids_of(peer)).unwrap_or_default();
        let peers = ids(peer);
        let (finder, direct) = match reader {
            Reader::Person => (None, true),
            Reader::Session(peer) => (Some(peer), false),
            Reader::Shell(peer) => (peer, true),
        };
        let seen_by = (reader != Reader::Person).then(|| ids(finder));
        let channels = finder.into_iter().flat_map(|peer| self.channels_read_by(peer)).collect();
        let is_shell = matches!(reader, Reader::Shell(_));
        let open_channels = self.public_channels().filter(|_| is_shell).collect();
        let search = Search { query, seen_by, direct, peers, channels, open_channels };
        step.effects.push(Effect::Search { connection: caller.connection, id: caller.id, search: Box::new(search) });
        Ok(())
    }

    /// The channels whose messages a member may read, and since when each is the same channel.
    fn channels_read_by(&self, peer: PeerId) -> impl Iterator<Item = (String, Timestamp)> {
        let reads = self.policy_of(peer) == Policy::Accept;
        self.channels.of(peer).filter(move |_| reads).map(|record| (record.name.to_ascii_lowercase(), record.created_at))
    }

    fn public_channels(&self) -> impl Iterator<Item = (String, Timestamp)> {
        let open = self.channels.iter().filter(|record| !record.private);
        open.map(|record| (record.name.to_ascii_lowercase(), record.created_at))
    }
}
