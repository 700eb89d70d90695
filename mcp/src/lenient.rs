//! Reads messages of clients that deviate from the protocol, if their meaning is certain.
//!
//! rmcp reads a message by its exact form, and takes one that does not fit for a request of another
//! kind. It refuses that with an error about a protocol version that the client never named. Common
//! cases are a handshake without the client's version, and arguments as JSON in a text. Nobody at
//! the client's end can fix them. Pure: JSON in, a message out.
//!
//! Knows the protocol's forms. Does not know what a request does. Invariant: each request with an
//! id gets an answer.

use rmcp::model::{
    ClientCapabilities, ClientNotification, ClientRequest, ErrorCode, ErrorData, Implementation,
    JsonRpcMessage, ProtocolVersion, RequestId,
};
use rmcp::service::{RoleServer, RxJsonRpcMessage};
use serde_json::{Map, Value, json};

/// The meaning of one JSON value from the client.
pub(crate) enum Read {
    /// A message, perhaps corrected.
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// A value without meaning, for which no client waits.
    Nothing,
    /// Not a message, and the client may wait: the error to answer with.
    Refused(Option<RequestId>, ErrorData),
}

/// Returns the meaning of `value`.
pub(crate) fn read(mut value: Value) -> Read {
    if let Some(message) = typed(&value) {
        return Read::Message(Box::new(message));
    }
    let Some(fields) = value.as_object_mut() else {
        return Read::Refused(None, invalid("a message is one JSON object"));
    };
    let id = fields.get("id").cloned();
    let Some(method) = fields.get("method").and_then(Value::as_str).map(str::to_owned) else {
        return match id {
            // A malformed response: the adapter never sends the client a request that it depends
            // on.
            Some(_) if fields.contains_key("result") || fields.contains_key("error") => {
                Read::Nothing
            }
            id => Read::Refused(answerable(id), invalid("it has no method")),
        };
    };
    let Some(id) = id else {
        // A notification. rmcp serves nothing before it got this one, whatever its parameters.
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        return match typed(&initialized) {
            Some(message)
                if matches!(method.as_str(), "notifications/initialized" | "initialized") =>
            {
                Read::Message(Box::new(message))
            }
            _ => Read::Nothing,
        };
    };
    let Some(id) = answerable(Some(id)) else {
        return Read::Refused(None, invalid("its id is neither a text nor a whole number"));
    };
    // Another version of JSON-RPC is refused by name, but not in a handshake.
    if method == "initialize" || !fields.contains_key("jsonrpc") {
        fields.insert("jsonrpc".into(), json!("2.0"));
    }
    put_right(&method, fields);
    match serde_json::from_value(value) {
        Ok(message) => Read::Message(Box::new(message)),
        Err(reason) => Read::Refused(Some(id), invalid(&reason.to_string())),
    }
}

/// Returns the error for a value that is not a message.
pub(crate) fn invalid(why: &str) -> ErrorData {
    ErrorData::invalid_request(
        format!("this is not an MCP message: {why}; send one JSON-RPC 2.0 object per line"),
        None,
    )
}

/// Returns the error for a text that is not JSON.
pub(crate) fn no_json(why: &str) -> ErrorData {
    ErrorData::new(
        ErrorCode::PARSE_ERROR,
        format!("this is not JSON: {why}; send one JSON-RPC 2.0 object per line"),
        None,
    )
}

/// Returns the message if it has exactly a known form. rmcp reads a known method in another form as
/// a custom request.
fn typed(value: &Value) -> Option<RxJsonRpcMessage<RoleServer>> {
    serde_json::from_value(value.clone()).ok().filter(|message| !is_custom(message))
}

/// Whether rmcp knows no form for it: a method of ours, an unknown one, or a known method in a
/// wrong form.
pub(crate) fn is_custom(message: &RxJsonRpcMessage<RoleServer>) -> bool {
    match message {
        JsonRpcMessage::Request(request) => {
            matches!(request.request, ClientRequest::CustomRequest(_))
        }
        JsonRpcMessage::Notification(notification) => {
            matches!(notification.notification, ClientNotification::CustomNotification(_))
        }
        JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => false,
    }
}

/// Returns the id, if an answer can carry it.
fn answerable(id: Option<Value>) -> Option<RequestId> {
    id.and_then(|id| serde_json::from_value(id).ok())
}

/// Corrects a request's parameters to the form of its method, as far as their meaning is certain.
fn put_right(method: &str, fields: &mut Map<String, Value>) {
    let given = match fields.remove("params") {
        Some(Value::Object(given)) => Some(given),
        _ => None,
    };
    let params = match method {
        "initialize" => Some(handshake(given.unwrap_or_default())),
        "tools/call" => given.map(call),
        _ => given,
    };
    if let Some(params) = params {
        fields.insert("params".into(), Value::Object(params));
    }
}

/// Corrects the parameters of `initialize`: a missing or wrong one gets the value of a client
/// without details.
fn handshake(given: Map<String, Value>) -> Map<String, Value> {
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let info = given.get("clientInfo");
    let name = match info {
        Some(Value::String(name)) => Some(name.clone()),
        info => text(info.and_then(|info| info.get("name"))),
    };
    let version = text(info.and_then(|info| info.get("version")));
    let info = Implementation::new(name.unwrap_or_default(), version.unwrap_or_default());
    // A capability in a wrong form counts as present; an unknown one is left out.
    let mut capabilities = ClientCapabilities::default();
    for (name, value) in given.get("capabilities").and_then(Value::as_object).into_iter().flatten()
    {
        let there = !matches!(value, Value::Null | Value::Bool(false));
        let read = |value: &Value| {
            serde_json::from_value::<ClientCapabilities>(json!({ name: value })).ok()
        };
        let Some(one) = read(value).or_else(|| read(&json!({}))).filter(|_| there) else {
            continue;
        };
        capabilities.experimental = capabilities.experimental.take().or(one.experimental);
        capabilities.extensions = capabilities.extensions.take().or(one.extensions);
        capabilities.roots = capabilities.roots.take().or(one.roots);
        capabilities.sampling = capabilities.sampling.take().or(one.sampling);
        capabilities.elicitation = capabilities.elicitation.take().or(one.elicitation);
    }
    // A client that names no version gets the newest one with a handshake; the client can read the
    // answer's.
    let version = text(given.get("protocolVersion"))
        .unwrap_or_else(|| ProtocolVersion::V_2025_11_25.to_string());
    Map::from_iter([
        ("protocolVersion".to_owned(), json!(version)),
        ("capabilities".to_owned(), json!(capabilities)),
        ("clientInfo".to_owned(), json!(info)),
    ])
}

/// Corrects the parameters of `tools/call`. Arguments as JSON in a text become the object in it,
/// missing ones an empty object. Other wrong fields are left out.
fn call(mut given: Map<String, Value>) -> Map<String, Value> {
    let arguments = match given.remove("arguments") {
        None | Some(Value::Null) => json!({}),
        Some(Value::Array(none)) if none.is_empty() => json!({}),
        Some(Value::String(text)) if text.trim().is_empty() => json!({}),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(said @ Value::Object(_)) => said,
            _ => Value::String(text),
        },
        Some(other) => other,
    };
    let mut params = Map::from_iter([("arguments".to_owned(), arguments)]);
    for key in ["name", "_meta"] {
        if let Some(value) = given.remove(key).filter(|value| key == "name" || value.is_object()) {
            params.insert(key.to_owned(), value);
        }
    }
    params
}

#[cfg(test)]
mod tests {
    use rmcp::model::{CallToolRequestParams, InitializeRequestParams};

    use super::*;

    fn request(value: Value) -> ClientRequest {
        match read(value) {
            Read::Message(message) => match *message {
                JsonRpcMessage::Request(request) => request.request,
                other => panic!("{other:?}"),
            },
            Read::Nothing => panic!("nothing"),
            Read::Refused(id, why) => panic!("{id:?} {why:?}"),
        }
    }

    fn initialize(params: Value) -> InitializeRequestParams {
        match request(
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }),
        ) {
            ClientRequest::InitializeRequest(request) => request.params,
            other => panic!("{other:?}"),
        }
    }

    fn call(params: Value) -> CallToolRequestParams {
        match request(
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }),
        ) {
            ClientRequest::CallToolRequest(request) => request.params,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_handshake_with_missing_or_odd_fields_is_one() {
        let info = json!({ "name": "t", "version": "1" });
        for (params, name) in [
            (json!(null), ""),
            (json!([]), ""),
            (json!({}), ""),
            (json!({ "protocolVersion": "2025-06-18", "capabilities": {} }), ""),
            (
                json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t" } }),
                "t",
            ),
            (
                json!({ "protocolVersion": 20250618, "capabilities": {}, "clientInfo": { "name": "t", "version": 1.5 } }),
                "t",
            ),
            (json!({ "protocolVersion": null, "capabilities": null, "clientInfo": "t" }), "t"),
            (json!({ "protocolVersion": "latest", "capabilities": [], "clientInfo": info }), "t"),
            (
                json!({ "capabilities": { "sampling": true, "roots": false, "elicitation": null, "tools": 1 }, "clientInfo": info }),
                "t",
            ),
            (
                json!({ "capabilities": {}, "clientInfo": { "name": "t", "version": "1", "icons": "x.png", "title": 7 } }),
                "t",
            ),
            (
                json!({ "capabilities": {}, "clientInfo": { "name": "t", "version": "1", "icons": [{ "url": "x" }] } }),
                "t",
            ),
        ] {
            assert_eq!(initialize(params.clone()).client_info.name, name, "{params}");
        }
        let told = initialize(
            json!({ "capabilities": { "sampling": true, "roots": { "listChanged": true }, "x": 1 } }),
        );
        assert!(told.capabilities.sampling.is_some() && told.capabilities.elicitation.is_none());
        assert_eq!(told.capabilities.roots.and_then(|roots| roots.list_changed), Some(true));
        for odd in [
            json!({ "id": 1, "method": "initialize" }),
            json!({ "jsonrpc": "1.0", "id": 1.0, "method": "initialize" }),
        ] {
            assert!(matches!(request(odd), ClientRequest::InitializeRequest(_)));
        }
    }

    #[test]
    fn arguments_that_come_as_json_in_a_text_or_not_at_all_are_read() {
        for arguments in
            [json!({ "to": "x" }), json!("{\"to\":\"x\"}"), json!(" { \"to\" : \"x\" } ")]
        {
            let call = call(json!({ "name": "t", "arguments": arguments, "_meta": 1, "task": 2 }));
            assert_eq!(
                call.arguments.map(Value::Object),
                Some(json!({ "to": "x" })),
                "{arguments}"
            );
        }
        for none in [json!(null), json!(""), json!([])] {
            assert!(
                call(json!({ "name": "t", "arguments": none }))
                    .arguments
                    .is_none_or(|given| given.is_empty())
            );
        }
        // The server reports arguments without a certain meaning, with the tool's error.
        for odd in [
            json!({ "name": 7 }),
            json!({ "name": "t", "arguments": "text" }),
            json!({ "name": "t", "arguments": [1] }),
        ] {
            let odd = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": odd });
            assert!(matches!(request(odd), ClientRequest::CustomRequest(_)));
        }
    }

    #[test]
    fn odd_parameters_of_other_requests_are_none() {
        for params in [json!(null), json!([]), json!(""), json!(0)] {
            let list =
                json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": params });
            assert!(matches!(request(list), ClientRequest::ListToolsRequest(_)), "{params}");
            let ping = json!({ "jsonrpc": "2.0", "id": "a", "method": "ping", "params": params });
            assert!(matches!(request(ping), ClientRequest::PingRequest(_)), "{params}");
            let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized", "params": params });
            assert!(matches!(read(notification), Read::Message(_)), "{params}");
        }
    }

    #[test]
    fn what_carries_an_id_is_answered_under_it_and_what_carries_none_is_not() {
        for (value, id) in [
            (json!({ "jsonrpc": "1.0", "id": 5, "method": "ping" }), Some(RequestId::Number(5))),
            (json!({ "jsonrpc": "2.0", "id": 5 }), Some(RequestId::Number(5))),
            (
                json!({ "jsonrpc": "2.0", "id": "x", "method": 7 }),
                Some(RequestId::String("x".into())),
            ),
            (json!({ "jsonrpc": "2.0", "id": null, "method": "ping" }), None),
            (json!({ "jsonrpc": "2.0", "id": [1], "method": "ping" }), None),
            (json!({}), None),
            (json!(7), None),
        ] {
            let Read::Refused(answered, _) = read(value.clone()) else { panic!("{value}") };
            assert_eq!(answered, id, "{value}");
        }
        for value in [
            json!({ "jsonrpc": "2.0", "method": "odd" , "params": 3 }),
            json!({ "method": "notifications/cancelled", "params": null }),
            json!({ "id": null, "error": "x" }),
        ] {
            assert!(matches!(read(value.clone()), Read::Nothing), "{value}");
        }
    }
}
