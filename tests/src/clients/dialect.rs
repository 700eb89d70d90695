//! The two vendors' forms of a request to a model and of its answer: Anthropic's messages and
//! OpenAI's responses.
//!
//! It knows how a request says what the model is shown, and how an answer says text and tool calls.
//! It does not know scripts.

use std::time::Instant;

use serde_json::{Value, json};

use super::model::{Call, Tool};

/// Which vendor's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Claude Code's.
    Anthropic,
    /// Codex's.
    OpenAi,
}

/// One request to the model.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its form.
    pub dialect: Dialect,
    /// When it was read.
    pub at: Instant,
    /// The conversation it belongs to, by its place; none for a client's side chatter.
    pub conversation: Option<usize>,
    /// Its whole body.
    pub body: Value,
}

/// One entry of what a model is shown, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `system`, `developer`, `user`, `assistant`, `tool_call` or `tool_result`.
    pub role: String,
    /// Its text; of a tool call, the arguments as JSON.
    pub text: String,
    /// Of a tool call and its result: which.
    pub call_id: String,
}

impl Request {
    /// What the model is shown besides the tools: instructions first, then the conversation.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        match self.dialect {
            Dialect::Anthropic => anthropic_shown(&self.body),
            Dialect::OpenAi => openai_shown(&self.body),
        }
    }

    /// Whether the model is shown `text`, in the conversation or in its instructions.
    #[must_use]
    pub fn shows(&self, text: &str) -> bool {
        self.shown().iter().any(|shown| shown.text.contains(text))
    }

    /// How many times `text` stands in what the model is shown.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.shown().iter().map(|shown| shown.text.matches(text).count()).sum()
    }

    /// The entries in which `text` stands.
    #[must_use]
    pub fn entries_with(&self, text: &str) -> Vec<Shown> {
        self.shown().into_iter().filter(|shown| shown.text.contains(text)).collect()
    }

    /// The tool results, oldest first.
    #[must_use]
    pub fn results(&self) -> Vec<Shown> {
        self.shown().into_iter().filter(|shown| shown.role == "tool_result").collect()
    }

    /// The tools that the model is offered: the name as the client makes it, and the description.
    #[must_use]
    pub fn tools(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        // Where Codex has the model write programs, an entry of the conversation says what there
        // is.
        let items = self.body["input"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| item["type"] == "additional_tools");
        let listed = [&self.body["tools"]].into_iter().chain(items.map(|item| &item["tools"]));
        for tool in listed.filter_map(Value::as_array).flatten() {
            let (name, description) = (text_of(&tool["name"]), text_of(&tool["description"]));
            for inner in tool["tools"].as_array().into_iter().flatten() {
                found.push((
                    format!("{name}__{}", text_of(&inner["name"])),
                    text_of(&inner["description"]),
                ));
            }
            found.push((name, description));
        }
        found
    }

    /// What tells whose conversation it is: the entries after the instructions.
    pub(super) fn conversation_entries(&self) -> Vec<Shown> {
        let mut shown = self.shown();
        let start = match self.dialect {
            Dialect::Anthropic => self.body["system"].as_array().map_or(1, Vec::len),
            Dialect::OpenAi => usize::from(self.body["instructions"].is_string()),
        };
        shown.drain(..start.min(shown.len()));
        shown.retain(|shown| shown.role != "developer");
        shown
    }

    /// Whether it is a conversation (also a subagent's), and not what a client asks on the side: a
    /// title, a quota.
    pub(super) fn is_conversation(&self) -> bool {
        // Codex has a title made in a thread of its own, which has the prompt and sometimes a tool.
        let turn = text_of(&self.body["client_metadata"]["x-codex-turn-metadata"]);
        let has_tools = self.body["tools"].as_array().is_some_and(|tools| !tools.is_empty())
            || self.in_code_mode();
        has_tools && !turn.contains(r#""thread_source":"thread_title""#)
    }

    /// Codex's newer models have one tool that runs a program, which calls the others.
    #[must_use]
    pub fn in_code_mode(&self) -> bool {
        self.body["input"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|item| item["type"] == "additional_tools")
    }

    pub(super) fn media_type(&self) -> &'static str {
        if self.body["stream"] == true { "text/event-stream" } else { "application/json" }
    }

    /// An answer's events, cut before the one that ends its first part.
    pub(super) fn halves<'a>(&self, events: &'a str) -> (&'a str, &'a str) {
        let cut = match self.dialect {
            Dialect::Anthropic => "event: content_block_stop",
            Dialect::OpenAi => "event: response.output_item.done",
        };
        events.split_at(events.find(cut).unwrap_or(events.len()))
    }

    pub(super) fn saying(&self, answer: usize, text: &str) -> String {
        match self.dialect {
            Dialect::Anthropic => {
                self.anthropic(answer, &[json!({"type": "text", "text": text})], "end_turn")
            }
            Dialect::OpenAi => {
                let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
                let id = format!("msg_{answer:06}");
                openai(
                    answer,
                    &[
                        json!({"type": "message", "role": "assistant", "id": id, "status": "completed", "content": content}),
                    ],
                )
            }
        }
    }

    pub(super) fn calling(&self, answer: usize, calls: &[Call]) -> String {
        match self.dialect {
            Dialect::Anthropic => {
                let block = |(place, call): (usize, &Call)| {
                    let (name, input) = self.anthropic_call(call);
                    json!({"type": "tool_use", "id": format!("toolu_{answer:06}_{place}"), "name": name, "input": input})
                };
                let blocks: Vec<Value> = calls.iter().enumerate().map(block).collect();
                self.anthropic(answer, &blocks, "tool_use")
            }
            Dialect::OpenAi => {
                let item = |(place, call): (usize, &Call)| {
                    let mut item = if self.is_program(call) {
                        code_call(call)
                    } else {
                        self.openai_call(call)
                    };
                    item["id"] = json!(format!("fc_{answer:06}_{place}"));
                    item["call_id"] = json!(format!("call_{answer:06}_{place}"));
                    item["status"] = json!("completed");
                    item
                };
                let items: Vec<Value> = calls.iter().enumerate().map(item).collect();
                openai(answer, &items)
            }
        }
    }

    /// Whether the model can make this call only from a program.
    fn is_program(&self, call: &Call) -> bool {
        let is_direct = match &call.tool {
            Tool::Peers(tool) => {
                self.tools().iter().any(|(name, _)| *name == format!("mcp__peers__{tool}"))
            }
            Tool::Named(named) => self.tools().iter().any(|(name, _)| name == named),
            Tool::Shell | Tool::Program => false,
        };
        self.in_code_mode() && !is_direct
    }

    /// The name by which the model is offered peerd's tool; a plugin's server has a longer one.
    fn anthropic_call(&self, call: &Call) -> (String, Value) {
        match &call.tool {
            Tool::Named(name) => (name.clone(), call.arguments.clone()),
            Tool::Shell | Tool::Program => (
                "Bash".to_owned(),
                json!({"command": call.arguments, "description": "Run a command"}),
            ),
            Tool::Peers(tool) => {
                let ours = |name: &String| {
                    name.starts_with("mcp__") && name.ends_with(&format!("peers__{tool}"))
                };
                let offered = self.tools().into_iter().map(|(name, _)| name).find(ours);
                (offered.unwrap_or_else(|| format!("mcp__peers__{tool}")), call.arguments.clone())
            }
        }
    }

    fn openai_call(&self, call: &Call) -> Value {
        let arguments = |value: &Value| value.to_string();
        match &call.tool {
            Tool::Named(name) => match name.rsplit_once("__") {
                Some((namespace, name)) => {
                    json!({"type": "function_call", "namespace": namespace, "name": name, "arguments": arguments(&call.arguments)})
                }
                None => {
                    json!({"type": "function_call", "name": name, "arguments": arguments(&call.arguments)})
                }
            },
            Tool::Shell | Tool::Program => {
                let names: Vec<String> = self.tools().into_iter().map(|(name, _)| name).collect();
                if names.iter().any(|name| name == "exec_command") {
                    // As long as a test may want: a shorter wait returns before the command has
                    // ended.
                    json!({"type": "function_call", "name": "exec_command", "arguments": arguments(&json!({"cmd": call.arguments, "yield_time_ms": 30_000}))})
                } else {
                    json!({"type": "function_call", "name": "shell_command", "arguments": arguments(&json!({"command": call.arguments}))})
                }
            }
            Tool::Peers(tool) => {
                json!({"type": "function_call", "namespace": "mcp__peers", "name": tool, "arguments": arguments(&call.arguments)})
            }
        }
    }

    fn anthropic(&self, answer: usize, blocks: &[Value], stop_reason: &str) -> String {
        let id = format!("msg_{answer:06}");
        let usage = json!({"input_tokens": 1000, "output_tokens": 10});
        let message = json!({
            "id": id, "type": "message", "role": "assistant", "model": self.body["model"], "content": blocks,
            "stop_reason": stop_reason, "stop_sequence": null, "usage": usage,
        });
        if self.body["stream"] != true {
            return message.to_string();
        }
        let mut start = message;
        (start["content"], start["stop_reason"]) = (json!([]), Value::Null);
        let mut events = vec![json!({"type": "message_start", "message": start})];
        for (index, block) in blocks.iter().enumerate() {
            let (mut empty, delta) = match block["type"].as_str() {
                Some("text") => {
                    (block.clone(), json!({"type": "text_delta", "text": block["text"]}))
                }
                _ => (
                    block.clone(),
                    json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}),
                ),
            };
            if block["type"] == "text" {
                empty["text"] = json!("");
            } else {
                empty["input"] = json!({});
            }
            events.push(
                json!({"type": "content_block_start", "index": index, "content_block": empty}),
            );
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
            events.push(json!({"type": "content_block_stop", "index": index}));
        }
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": null});
        events
            .push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 10}}));
        events.push(json!({"type": "message_stop"}));
        stream(&events)
    }
}

/// A call as a program: it shows the texts of the result, as a model that wants to read it does.
fn code_call(call: &Call) -> Value {
    let program = match &call.tool {
        Tool::Program => text_of(&call.arguments),
        Tool::Named(name) => format!("text(await tools.{name}({}));", call.arguments),
        Tool::Shell => format!(
            "const result = await tools.exec_command({{cmd: {}}}); text(result.output);",
            call.arguments
        ),
        Tool::Peers(tool) => format!(
            "const result = await tools.mcp__peers__{tool}({}); for (const part of result.content) text(part.text);",
            call.arguments
        ),
    };
    json!({"type": "custom_tool_call", "namespace": "functions", "name": "exec", "input": program})
}

fn openai(answer: usize, items: &[Value]) -> String {
    let id = format!("resp_{answer:06}");
    let mut events = vec![json!({"type": "response.created", "response": {"id": id}})];
    for (index, item) in items.iter().enumerate() {
        events.push(
            json!({"type": "response.output_item.added", "output_index": index, "item": item}),
        );
        events.push(
            json!({"type": "response.output_item.done", "output_index": index, "item": item}),
        );
    }
    let usage = json!({
        "input_tokens": 1000, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1010,
    });
    events.push(json!({"type": "response.completed", "response": {"id": id, "output": items, "usage": usage}}));
    stream(&events)
}

/// Server-sent events, each named by its type.
fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", text_of(&event["type"])))
        .collect()
}

fn anthropic_shown(body: &Value) -> Vec<Shown> {
    let mut found = Vec::new();
    blocks(&body["system"], "system", &mut found);
    for message in body["messages"].as_array().into_iter().flatten() {
        blocks(&message["content"], &text_of(&message["role"]), &mut found);
    }
    found
}

/// Content in either form: one text, or a list of blocks.
fn blocks(content: &Value, role: &str, found: &mut Vec<Shown>) {
    let shown = |role: &str, text: String, call_id: &Value| Shown {
        role: role.to_owned(),
        text,
        call_id: text_of(call_id),
    };
    if let Some(text) = content.as_str() {
        found.push(shown(role, text.to_owned(), &Value::Null));
    }
    for block in content.as_array().into_iter().flatten() {
        match block["type"].as_str() {
            Some("tool_use") => {
                found.push(shown("tool_call", block["input"].to_string(), &block["id"]))
            }
            Some("tool_result") => {
                found.push(shown("tool_result", all_text(&block["content"]), &block["tool_use_id"]))
            }
            _ => found.push(shown(role, text_of(&block["text"]), &Value::Null)),
        }
    }
}

fn openai_shown(body: &Value) -> Vec<Shown> {
    let mut found = Vec::new();
    if let Some(instructions) = body["instructions"].as_str() {
        found.push(Shown {
            role: "system".to_owned(),
            text: instructions.to_owned(),
            call_id: String::new(),
        });
    }
    for item in body["input"].as_array().into_iter().flatten() {
        let (role, text) = match item["type"].as_str() {
            Some("function_call" | "custom_tool_call") => {
                ("tool_call".to_owned(), text_of(&item["arguments"]) + &text_of(&item["input"]))
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                ("tool_result".to_owned(), all_text(&item["output"]))
            }
            Some("message") | None => (text_of(&item["role"]), all_text(&item["content"])),
            Some(other) => (other.to_owned(), all_text(item)),
        };
        found.push(Shown { role, text, call_id: text_of(&item["call_id"]) });
    }
    found
}

/// A text, or the texts of a list of parts, joined by newlines.
fn all_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().map(|part| all_text(&part["text"])).collect::<Vec<_>>().join("\n")
        }
        Value::Object(fields) => {
            all_text(fields.get("content").or_else(|| fields.get("text")).unwrap_or(&Value::Null))
        }
        _ => String::new(),
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
