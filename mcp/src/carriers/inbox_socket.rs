//! Claude Code's own socket for messages from other sessions. A post goes into the running turn
//! between two tool calls, or begins a turn in an idle session.
//!
//! Knows how to post. Does not know which mail is due. The client passes path and token on to its
//! children, and shows no dialog for their posts, as it does for strangers. So this carrier never
//! poses as another sender: the post says that it comes from peerd, that others wrote the quoted
//! text, and how to answer them. Invariants:
//!
//! - A session that acts without asking, or may come to do so unnoticed, gets a post only with the
//!   person's permission.
//! - Only the client itself gets a post. The socket belongs to this user, in a directory that no
//!   other user can write. The client's registry names it, and the process that listens there is
//!   the client.
//!
//! The client confirms nothing. The [`transcript`](crate::transcript) shows whether the model was
//! shown a post.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{Leave, PushCarrier, PushError};
use crate::claude;
use crate::inbox::Post;
use crate::session::{Environment, Session};
use crate::ways::Ways;

/// How long a post may take, in milliseconds. A running client reads at once.
const POST_MS_MAX: u64 = 2_000;

/// Names the real sender, because the client's own text names another Claude session.
const WHO_SPEAKS: &str = "From peerd, which carries messages between agent sessions on this machine. The line above each \
                          message names its sender, which may not be Claude. Answer with the tool send_message of the MCP \
                          server `peers` (reply_to = the message's id), not with SendMessage.";

pub(crate) struct InboxSocket;

impl PushCarrier for InboxSocket {
    fn see(session: &Session, ways: &mut Ways) {
        ways.inbox_socket =
            socket(session).is_some_and(|socket| is_the_clients(session, socket).is_ok());
        ways.asks_first = ways.inbox_socket && !may_bypass(session);
    }

    async fn push(session: &Arc<Session>, post: &Post, leave: Leave<'_>) -> Result<(), PushError> {
        let socket = socket(session).ok_or(PushError::Gone)?;
        is_the_clients(session, socket)?;
        let lines = lines(&socket.token, &post.text);
        let posting = async {
            let mut stream = UnixStream::connect(&socket.path).await?;
            let listener = stream.peer_cred()?;
            let pid = listener.pid().and_then(|pid| u32::try_from(pid).ok());
            if listener.uid() != geteuid().as_raw()
                || pid.is_some_and(|pid| pid != session.environment.client_pid)
            {
                return Err(PushError::Refused(
                    "a process other than the client listens on its socket".into(),
                ));
            }
            leave.now(None)?;
            // Another async task writes to the broker and runs before this one writes to the
            // client. So an adapter that is killed between the two has reported the offer.
            tokio::task::yield_now().await;
            stream.write_all(lines.as_bytes()).await?;
            stream.shutdown().await?;
            Ok(())
        };
        let in_time = tokio::time::timeout(Duration::from_millis(POST_MS_MAX), posting).await;
        in_time.unwrap_or_else(|_| {
            Err(PushError::Refused("the client does not read from its socket".into()))
        })
    }
}

/// Whether the client may bypass permissions. It does not change while the client runs, so it is
/// looked up once.
fn may_bypass(session: &Session) -> bool {
    static MAY_BYPASS: OnceLock<bool> = OnceLock::new();
    let Environment { claude, client_pid, cwd, .. } = &session.environment;
    *MAY_BYPASS.get_or_init(|| claude::may_bypass(&claude.config, *client_pid, cwd.as_deref()))
}

fn socket(session: &Session) -> Option<&claude::OwnSocket> {
    session.environment.claude.inbox.as_ref()
}

fn is_the_clients(session: &Session, socket: &claude::OwnSocket) -> Result<(), PushError> {
    let registered = session
        .environment
        .claude
        .registered(session.environment.client_pid)
        .ok_or(PushError::Gone)?;
    if registered.inbox.as_deref() != Some(&socket.path) {
        return Err(PushError::Refused("the client's registry names another socket".into()));
    }
    is_ours_alone(&socket.path)
}

/// Checks that a socket belongs to this user, in a directory that only this user can change.
fn is_ours_alone(path: &Path) -> Result<(), PushError> {
    let us = geteuid().as_raw();
    let found = path.symlink_metadata()?;
    let directory = path.parent().ok_or(PushError::Gone)?.metadata()?;
    if !found.file_type().is_socket() || found.uid() != us {
        return Err(PushError::Refused("the client's socket is not this user's socket".into()));
    }
    if directory.uid() != us || directory.mode() & 0o022 != 0 {
        return Err(PushError::Refused(
            "other users could have put the client's socket there".into(),
        ));
    }
    Ok(())
}

fn lines(token: &str, block: &str) -> String {
    let content = format!("{WHO_SPEAKS}\n{}", block.trim_end_matches('\n'));
    let (auth, user) = (
        json!({ "type": "auth", "token": token }),
        json!({ "type": "user", "message": { "role": "user", "content": content } }),
    );
    format!("{auth}\n{user}\n")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_post_is_two_lines_and_claims_to_be_nobody_else() {
        let block = "[PEER INBOX] 1 message.\n[m-1 request] from luna\n| </cross-session-message>\n| \"from-mode\"\n";
        let text = lines("secret", block);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], json!({ "type": "auth", "token": "secret" }));
        let content = lines[1]["message"]["content"].as_str().unwrap();
        assert!(
            content.starts_with("From peerd, ") && content.ends_with(block.trim_end()),
            "{content}"
        );
        assert_eq!(
            lines[1],
            json!({ "type": "user", "message": { "role": "user", "content": content } })
        );
        assert!(
            !content.starts_with('<'),
            "the client reads a wrapper's attributes as the sender's"
        );
    }

    #[test]
    fn a_socket_that_others_could_have_put_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sock");
        assert!(is_ours_alone(&path).is_err(), "nothing is there");
        fs::write(&path, "").unwrap();
        assert!(is_ours_alone(&path).is_err(), "not a socket");
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(is_ours_alone(&path).is_ok());
        let link = dir.path().join("2.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(is_ours_alone(&link).is_err(), "a link to a socket");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(is_ours_alone(&path).is_err(), "anyone can write there");
    }
}
