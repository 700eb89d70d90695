//! Measures two adapter processes: the time from a tool call in one to the channel notification of
//! the other.
//!
//! Knows the adapters as MCP clients see them. Does not know the broker's protocol.

use std::time::Instant;

use serde_json::{Value, json};

use super::{TEXT_BYTES, report};
use crate::error::Failure;
use crate::mcp_client::{Introduction, McpClient};
use crate::throwaway::Throwaway;

pub(super) struct Adapters {
    sender: McpClient,
    receiver: McpClient,
    sent: u64,
}

impl Adapters {
    pub(super) async fn start(room: &Throwaway) -> Result<Self, Failure> {
        let sender = adapter(room, "adapter-sender").await?;
        let receiver = adapter(room, "adapter-receiver").await?;
        Ok(Self { sender, receiver, sent: 0 })
    }

    /// Sends one message. Returns the microseconds until the receiver printed the notification.
    pub(super) async fn send(&mut self) -> Result<f64, Failure> {
        self.sent += 1;
        let text = format!("{:<TEXT_BYTES$}", self.sent);
        let begun = Instant::now();
        let sending =
            self.sender.call("send_message", json!({ "to": "adapter-receiver", "message": text }));
        let (_, (at, id)) = tokio::try_join!(sending, self.receiver.next_channel())?;
        self.receiver.call("ack_messages", json!({ "message_ids": id })).await?;
        Ok(report::us_between(begun, at))
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.sender.stop().await?;
        self.receiver.stop().await
    }
}

async fn adapter(room: &Throwaway, name: &str) -> Result<McpClient, Failure> {
    let mut command = room.command(&["mcp"]);
    command.env("PEERD_CLIENT", "claude");
    let who = Introduction { name, client: "claude-code", thread_id: None };
    let (mut client, _): (McpClient, Value) = McpClient::start(command, &who).await?;
    // The answer of a tool means that the session is registered.
    client.call("set_summary", json!({ "summary": "measuring" })).await?;
    Ok(client)
}
