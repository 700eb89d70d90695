//! `peerctl channels`: lists and changes channels and groups.
//!
//! Does not know who may see or change a channel: the broker decides.

use clap::Subcommand;
use peer_client::Endpoint;
use peer_proto::channel::{ChannelInfo, ChannelRequest};
use peer_proto::request::{HistoryQuery, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;

use super::history;
use crate::error::Failure;
use crate::json::Time;
use crate::operator::{Operator, unexpected};
use crate::output::{Output, Tone, cell};
use crate::parse;

const AFTER_HELP: &str = "\
Examples:
  peerctl channels                              list channels and groups
  peerctl channels create '#ops' --topic \"what runs where\"
  peerctl channels create '#plan' --private
  peerctl channels invite '#plan' backend
  peerctl channels history '#ops' -n 50
  peerctl send '#ops' -- \"main is frozen until noon\"
  peerctl channels join '#build@desk'           a channel of the machine desk

#name is a channel: each member gets its messages, also after being offline.
A post to a channel wakes no session. @name is a group, a label that sessions
carry: a message to it goes to each of them. A session that is not a member
sees nothing of a private channel. You see all channels, and may post in them
without being a member. A channel of another machine, such as #build@desk, is
kept there: only its members post in it, and its history here has the posts
since this machine has a member.";

/// See channels and groups, create and change them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<ChannelsCommand>,
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// List all channels and groups
    List,
    /// Create a channel, with you as its first member
    Create {
        /// #name
        name: String,
        /// What the channel is for
        #[arg(long, default_value = "")]
        topic: String,
        /// Hidden from all sessions but its members
        #[arg(long)]
        private: bool,
    },
    /// Become a member of a channel, or take the label of a group
    Join {
        /// #name or @name
        name: String,
    },
    /// Leave a channel, or drop the label of a group
    Leave {
        /// #name or @name
        name: String,
    },
    /// Make a session a member
    Invite {
        /// #name or @name
        name: String,
        /// A name or id
        peer: String,
    },
    /// Print the messages of a channel or group, oldest first
    History {
        /// #name or @name
        name: String,
        /// Print at most this many, the newest
        #[arg(short, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        n: u32,
    },
    /// Set the text that tells what a channel is for
    Topic {
        /// #name or @name
        name: String,
        /// The new topic; an empty text clears it
        topic: String,
    },
}

/// A channel or group.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChannelRow {
    /// The name with its sign, `#` or `@`.
    name: String,
    topic: String,
    /// Hidden from all sessions but its members.
    private: bool,
    /// The names of the members. Of a channel of another machine, only those of this machine are
    /// known while its link is down.
    members: Vec<String>,
    /// Whether you are a member.
    joined: bool,
    created_by: String,
    created_at: Time,
    /// The link to its machine. Null for a channel of this machine.
    link: Option<String>,
    /// Whether that link is up.
    link_up: Option<bool>,
    /// You asked that machine to join or to leave, and it has not answered.
    asked: bool,
}

impl From<&ChannelInfo> for ChannelRow {
    fn from(channel: &ChannelInfo) -> Self {
        Self {
            name: channel.name.clone(),
            topic: channel.topic.clone(),
            private: channel.private,
            members: channel.members.clone(),
            joined: channel.joined,
            created_by: channel.created_by.clone(),
            created_at: Time(channel.created_at),
            link: channel.link.as_ref().map(|link| link.name.clone()),
            link_up: channel.link.as_ref().map(|link| link.up),
            asked: channel.asked,
        }
    }
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let operator = Operator::connect(endpoint).await?;
    let request = match args.command.unwrap_or(ChannelsCommand::List) {
        ChannelsCommand::List => {
            let channels = ask(&operator, ChannelRequest::List).await?;
            return print(output, &channels);
        }
        ChannelsCommand::History { name, n } => {
            let query = HistoryQuery {
                channel: Some(parse::channel(name)),
                limit: n,
                ..HistoryQuery::default()
            };
            return history::show(output, &operator, query).await;
        }
        ChannelsCommand::Create { name, topic, private } => {
            ChannelRequest::Create { name, topic, private }
        }
        ChannelsCommand::Join { name } => ChannelRequest::Join(name),
        ChannelsCommand::Leave { name } => ChannelRequest::Leave(name),
        ChannelsCommand::Invite { name, peer } => ChannelRequest::Invite { name, peer },
        ChannelsCommand::Topic { name, topic } => ChannelRequest::SetTopic { name, topic },
    };
    let channels = ask(&operator, request).await?;
    let channel = channels.first().ok_or_else(unexpected)?;
    if output.json {
        return output.json(&ChannelRow::from(channel));
    }
    if channel.asked {
        output.remark("the channel's machine is asked; a message in your inbox tells the outcome");
    }
    let members = match channel.members.is_empty() {
        true if channel.link.is_some() => "its members are not known now".to_owned(),
        true => {
            "it has no member left and was deleted; its messages stay in the history".to_owned()
        }
        false => format!("members: {}", names(channel)),
    };
    output.line(&format!("{}  {members}", output.paint(Tone::Strong, &cell(&channel.name))))
}

async fn ask(operator: &Operator, request: ChannelRequest) -> Result<Vec<ChannelInfo>, Failure> {
    match operator.ask(Request::Channel(request)).await? {
        Reply::Channels(channels) => Ok(channels),
        _ => Err(unexpected()),
    }
}

fn print(output: &Output, channels: &[ChannelInfo]) -> Result<(), Failure> {
    if output.json {
        return output.json_rows(channels.iter().map(ChannelRow::from));
    }
    let row = |channel: &ChannelInfo| {
        vec![
            cell(&channel.name),
            match (channel.private, channel.link.as_ref().map(|link| link.up)) {
                (true, Some(false)) => "private, unreachable",
                (false, Some(false)) => "open, unreachable",
                (true, _) => "private",
                (false, _) => "open",
            }
            .to_owned(),
            names(channel),
            cell(&channel.topic),
        ]
    };
    let rows: Vec<_> = channels.iter().map(row).collect();
    output.table(&["NAME", "WHO", "MEMBERS", "TOPIC"], &rows, "no channel or group exists")
}

fn names(channel: &ChannelInfo) -> String {
    channel.members.iter().map(|name| cell(name)).collect::<Vec<_>>().join(", ")
}
