//! Serves a member that is not there: messages are left for it, and those that it left are taken.
//!
//! Knows the broker's connection and the member's letters. Does not know how they cross. Invariants:
//! a letter is put away only after this broker has committed what came of it. A message that was left
//! stays leased here and is never called delivered: only the member's broker says that, once both
//! meet. So at most one message of each pair of sender and recipient is left at a time.

use std::collections::BTreeSet;

use peer_client::RequestError;
use peer_link_nats::team::{MeetError, Team};
use peer_proto::ids::{BrokerId, MessageId};
use peer_proto::link::{LinkPush, LinkReply, LinkRequest, Outcome, Taken};
use peer_proto::policy::Policy;
use peer_proto::request::{Push, Reply, Request};

use crate::serve::{BrokerLine, Ended};

/// The other broker's run, where it is not reached.
const NOT_REACHED: u64 = 0;

/// Whose letters are served, and for whom.
pub(crate) struct Correspondence<'a> {
    pub(crate) team: &'a Team,
    /// This broker.
    pub(crate) own: BrokerId,
    /// The member.
    pub(crate) remote: BrokerId,
    /// What to call it, if this broker does not know it yet.
    pub(crate) alias: String,
    /// What becomes of its mail, if this broker does not know it yet.
    pub(crate) policy: Policy,
}

impl Correspondence<'_> {
    /// Opens the link at this broker, and carries letters until the broker ends it.
    pub(crate) async fn serve(
        &self,
        mut line: BrokerLine,
        left: &mut BTreeSet<MessageId>,
    ) -> Ended {
        let open = LinkRequest::Open {
            own: self.own,
            remote: self.remote,
            alias: self.alias.clone(),
            boot: NOT_REACHED,
            policy: self.policy,
        };
        match line.connection.request(Request::Link(open)).await {
            Ok(Reply::Link(LinkReply::Opened { .. })) => {}
            Err(RequestError::Refused(refusal)) => return Ended::Refused(refusal),
            Ok(_) | Err(_) => return Ended::BrokerLost,
        }
        loop {
            tokio::select! {
                push = line.pushes.next() => match push {
                    Some(Push::Link(LinkPush::Mail(mail))) => {
                        // The same process may have left it before, for another connection.
                        if !left.insert(mail.id) {
                            continue;
                        }
                        let id = mail.id;
                        match self.team.leave(self.remote, *mail).await {
                            Ok(()) => {}
                            // Then it waits here, until both meet.
                            Err(MeetError::Team(_) | MeetError::Unknown) => drop(left.remove(&id)),
                            Err(_) => {}
                        }
                    }
                    // Cards, receipts and withdrawals need both: they come again at the next
                    // connection.
                    Some(_) => {}
                    None => return Ended::BrokerLost,
                },
                letter = self.team.letter(self.remote) => {
                    let take = LinkRequest::Take(vec![letter.mail.clone()]);
                    match line.connection.request(Request::Link(take)).await {
                        Ok(Reply::Link(LinkReply::Taken(taken))) => {
                            if taken.iter().all(is_settled) {
                                self.team.put_away(letter);
                            }
                        }
                        // It breaks a rule of form, and always will.
                        Err(RequestError::Refused(_)) => self.team.put_away(letter),
                        Ok(_) | Err(_) => return Ended::BrokerLost,
                    }
                }
            }
        }
    }
}

/// Whether nothing of a message is to be tried again. What was refused is told to the sender when
/// both meet: its broker offers it again.
fn is_settled(taken: &Taken) -> bool {
    !taken.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Later { .. }))
}
