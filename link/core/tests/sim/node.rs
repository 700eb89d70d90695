//! A machine of the simulator: who is behind a connection, and how mail leaves it.

use peer_core::step::RemoteRecipient;
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::link::{Mail, RemoteSender};
use peer_proto::refusal::Refusal;
use peer_proto::request::{Reply, RequestId};

use crate::sim::{End, FromBroker, Node};

impl Node {
    pub fn place(&self, to: usize) -> usize {
        self.ends.iter().position(|end| end.to == to).expect("an end")
    }

    pub fn end_of(&self, connection: u64) -> Option<usize> {
        let program = |end: &End| self.world.programs.get(&end.program);
        self.ends
            .iter()
            .position(|end| program(end).is_some_and(|program| program.connection.0 == connection))
    }

    pub fn session_of(&self, connection: u64) -> Option<(String, PeerId)> {
        let found = self.names.iter().find_map(|name| {
            let program = self.world.programs.get(name)?;
            (program.connection.0 == connection).then(|| (name.clone(), program.peer))
        });
        found.and_then(|(name, peer)| Some((name, peer?)))
    }

    pub fn push(&mut self, connection: u64, what: FromBroker) {
        if let Some(place) = self.end_of(connection) {
            self.ends[place].inbox.push_back(what);
        }
    }

    pub fn answer(&mut self, connection: u64, id: RequestId, result: &Result<Reply, Refusal>) {
        let Some(place) = self.end_of(connection) else { return };
        if let Some(asked) = self.ends[place].asked.remove(&id) {
            self.ends[place].inbox.push_back(FromBroker::Answer(asked, result.clone()));
        }
    }

    /// The broker and identity that a proxy stands for.
    pub fn home(&self, peer: PeerId) -> Option<(BrokerId, PeerId)> {
        let record = self.world.disk.peers.get(&peer)?;
        record.home.as_ref().map(|home| (home.broker, home.peer))
    }

    pub fn mail(
        &self,
        message: MessageId,
        to: Vec<RemoteRecipient>,
        own: BrokerId,
        channel: Option<PeerId>,
    ) -> Mail {
        let record = self.world.disk.messages[&message].clone();
        let head = record.head;
        let to = to.into_iter().map(|to| to.as_sent(&head)).collect();
        Mail {
            id: head.id,
            origin: own,
            path: vec![own],
            from: RemoteSender {
                peer: head.from.peer,
                name: head.from.name,
                client: head.from.client,
                via: head.from.via,
            },
            to,
            channel,
            intent: head.intent,
            kind: head.kind,
            thread: head.thread,
            reply_to: head.reply_to,
            sent_at: head.sent_at,
            expires_at: head.expires_at,
            sources: head.sources,
            text: record.text,
        }
    }
}
