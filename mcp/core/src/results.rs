//! Tool calls and their results: the carrier that every client has.
//!
//! Knows which mail a result carries. Does not know how a result is written. The invariants:
//!
//! - Before a call acts, its evidence goes to the broker; afterwards the due mail goes into its
//!   result.
//! - The broker is told of an offer before the result can leave.
//! - A cancelled call gets no mail.

use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::Request;

use crate::adapter::Adapter;
use crate::call::{CallId, CallOrigin};
use crate::event::{Action, Due};
use crate::inbox::{Block, BlockRequest, Proof};

impl Adapter {
    pub(crate) fn tool_called(&mut self, caller: CallOrigin) {
        self.calls.begin(caller.clone());
        if self.is_main(&caller) {
            self.tried(None);
        }
        self.reassert_title();
        let proved = self.inbox.proved_by(&caller);
        if !proved.is_empty() && self.is_connected {
            self.prove(
                proved,
                Proof { carrier: Carrier::ToolResult, evidence: Evidence::NextCall },
            );
        }
    }

    /// Whether the conversation that made the call gets mail. A caller that does not name its
    /// conversation may be the main one.
    pub fn carries_mail(&self, call: CallId) -> bool {
        self.calls.caller(call).is_some_and(|caller| self.is_main(caller))
    }

    fn is_main(&self, caller: &CallOrigin) -> bool {
        match (&self.main_conversation, caller.conversation.as_deref()) {
            _ if caller.is_subagent => false,
            (Some(main), Some(conversation)) => main == conversation,
            _ => true,
        }
    }

    pub(crate) fn result_due(&mut self, call: CallId, due: &Due) {
        let caller = self.calls.caller(call).filter(|_| self.is_connected && !self.is_closing);
        let Some(caller) = caller else {
            return self.replies.push(Action::Show { call, block: Block::default() });
        };
        self.inbox.mark_all_held();
        // Mail that another adapter of this client takes is not available here.
        let takes_mail = self.identity.as_ref().is_some_and(|identity| identity.takes_mail);
        let waiting =
            if takes_mail { usize::try_from(due.waiting).unwrap_or(usize::MAX) } else { 0 };
        let ask = BlockRequest {
            among: due.among.as_deref(),
            also: due.also,
            limit: due.limit,
            peek: due.peek,
            budget: due.budget,
            home: &self.settings.home,
        };
        let block = self.inbox.block(caller, ask, waiting);
        self.offered(&block.offered);
        self.replies.push(Action::Show { call, block });
    }

    pub(crate) fn read_on(&mut self, call: CallId, message: MessageId, offset: usize, peek: bool) {
        let part = match self.calls.caller(call) {
            Some(caller) => self.inbox.part(message, offset, peek, &self.settings.home, caller),
            None => None,
        };
        let (text, is_first) = part.unwrap_or_default();
        let offered = if is_first && self.is_connected { vec![message] } else { Vec::new() };
        self.offered(&offered);
        let block = Block { shown: usize::from(!text.is_empty()), text, offered };
        self.replies.push(Action::Show { call, block });
    }

    /// Tells the broker, before the result can leave, that it carries these. The answer does not
    /// matter: a message that was withdrawn meanwhile is shown once more than needed.
    fn offered(&mut self, messages: &[MessageId]) {
        // If hooks arrive, a message that was shown to another conversation, such as a subagent's,
        // has another carrier.
        let last = !self.facts.hooks_come;
        for messages in messages.chunks(MESSAGES_PER_REQUEST_MAX) {
            self.tell(Request::Offered {
                messages: messages.to_vec(),
                carrier: Carrier::ToolResult,
                last,
            });
        }
        if !messages.is_empty() {
            self.actions.push(Action::Watch);
        }
    }
}
