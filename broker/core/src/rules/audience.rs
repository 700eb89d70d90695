//! Resolves the names that a sender gave into the peers that a message reaches.
//!
//! Knows names, channels and who is online. Does not know whether a recipient accepts the message.
//! Invariants: no peer is in an audience twice. A post to a private channel reaches members only.

use std::collections::BTreeSet;

use peer_proto::ids::{PeerId, unquoted};
use peer_proto::limits::RECIPIENTS_MAX;
use peer_proto::request::Send;

use crate::broker::Broker;
use crate::input::StoredMessage;
use crate::names::NEAREST_MAX;
use crate::rejection::{NoMailbox, Rejection};
use crate::state::channels::{is_channel_name, is_elsewhere, is_group};
use crate::who::Caller;

/// The recipients of a message.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    pub(crate) peers: Vec<PeerId>,
    /// The channel or group that the message is for.
    pub(crate) channel: Option<String>,
}

impl Broker {
    /// Returns the audience of a send. A reply without names goes to the sender of the message that
    /// it answers.
    pub(crate) fn audience(
        &self,
        caller: Caller,
        send: &Send,
        sender: PeerId,
        original: Option<&StoredMessage>,
    ) -> Result<Audience, Rejection> {
        let mut recipients: Vec<PeerId> = Vec::new();
        let mut channel: Option<(String, Vec<PeerId>)> = None;
        let names = send
            .to
            .iter()
            .flat_map(|name| name.split(','))
            .map(unquoted)
            .filter(|name| !name.is_empty());
        for (count, name) in names.enumerate() {
            // The limit counts names, not peers: each repeat of a name costs the same work.
            if count == RECIPIENTS_MAX {
                return Err(Rejection::too_many_recipients());
            }
            if is_channel_name(name) {
                let found = match self.audience_of(caller.actor()?, sender, name) {
                    Ok(found) => found,
                    Err(unknown) => {
                        recipients.push(self.peer_for_channel(name, sender, unknown)?);
                        continue;
                    }
                };
                match &channel {
                    Some((other, _)) if *other != found.0 => {
                        let bound = "at most one channel or group, and names".to_owned();
                        return Err(Rejection::OutOfBounds {
                            what: "the list of recipients",
                            bound,
                        });
                    }
                    _ => channel = Some(found),
                }
            } else if name.eq_ignore_ascii_case("all") && self.config.limits.broadcast_max > 0 {
                recipients.extend(self.everybody_online(sender)?);
            } else {
                recipients.push(self.presence.resolve(name, Some(sender))?);
            }
        }
        if let Some((name, members)) = channel {
            if is_elsewhere(&name) && !recipients.is_empty() {
                return Err(Rejection::OutOfBounds {
                    what: "the list of recipients",
                    bound: "a channel of another machine alone".to_owned(),
                });
            }
            let is_private = self.is_private(&name);
            let far = |peer: &PeerId| {
                self.mailboxes.broker_of(*peer).is_some() && !members.contains(peer)
            };
            if !is_group(&name) && recipients.iter().any(far) {
                return Err(Rejection::OutOfBounds {
                    what: "the list of recipients",
                    bound: "a channel, and of other machines its members alone".to_owned(),
                });
            }
            let outside = |peer: &&PeerId| {
                is_private && **peer != PeerId::HUMAN && !members.contains(peer) && **peer != sender
            };
            if let Some(stranger) = recipients.iter().find(outside) {
                return Err(Rejection::OutsideChannel {
                    channel: name,
                    name: self.name_of(*stranger),
                });
            }
            recipients.extend(members);
            return Ok(Audience { peers: each_once(recipients), channel: Some(name) });
        }
        if recipients.is_empty() {
            let back = original
                .map(|original| &original.head.from)
                .ok_or_else(Rejection::too_many_recipients)?;
            if back.peer == PeerId::SYSTEM {
                self.presence.resolve("system", None)?;
            }
            recipients.push(self.presence.current(back.peer).ok_or_else(|| {
                Rejection::UnknownPeer { name: back.name.clone(), nearest: Vec::new() }
            })?);
        }
        Ok(Audience { peers: each_once(recipients), channel: None })
    }

    /// Returns the peer that was named as if it were a group, as in `@bob`. Otherwise returns the
    /// refusal, which also offers peers of a similar name.
    fn peer_for_channel(
        &self,
        name: &str,
        sender: PeerId,
        unknown: Rejection,
    ) -> Result<PeerId, Rejection> {
        let Rejection::UnknownChannel { name: asked, mut nearest } = unknown else {
            return Err(unknown);
        };
        if is_group(name)
            && let Ok(peer) = self.presence.resolve(name, Some(sender))
        {
            return Ok(peer);
        }
        nearest.extend(self.presence.nearest_names(&name[1..]));
        nearest.truncate(NEAREST_MAX);
        Err(Rejection::UnknownChannel { name: asked, nearest })
    }

    /// Returns the audience of a message to `all`: every other agent that is online.
    fn everybody_online(&self, sender: PeerId) -> Result<Vec<PeerId>, Rejection> {
        let here = |peer: &PeerId| {
            *peer != sender && *peer != PeerId::HUMAN && self.presence.is_online(*peer)
        };
        let online: Vec<PeerId> =
            self.presence.iter().map(|record| record.id).filter(here).collect();
        let broadcast_max = self.config.limits.broadcast_max;
        if online.is_empty() {
            return Err(Rejection::NoMailbox {
                name: "all".to_owned(),
                why: NoMailbox::NobodyOnline,
            });
        }
        if online.len() > broadcast_max as usize {
            return Err(Rejection::BroadcastTooWide { online: online.len(), broadcast_max });
        }
        Ok(online)
    }
}

fn each_once(mut peers: Vec<PeerId>) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    peers.retain(|peer| seen.insert(*peer));
    peers
}
