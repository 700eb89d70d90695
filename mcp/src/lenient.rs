//! Messages of clients that keep to the protocol in their own way: what they certainly mean.
//!
//! rmcp reads a message by its exact form, takes what does not fit for a request of another kind, and refuses that in words
//! about a version of the protocol that the client never heard of. A handshake without a version of the client, or arguments
//! that come as JSON in a text, are common; nobody at the client's end can mend them. Pure: JSON in, a message out.

use rmcp::model::{
    ClientCapabilities, ClientNotification, ClientRequest, ErrorCode, ErrorData, Implementation, JsonRpcMessage, ProtocolVersion,
    RequestId,
};
use rmcp::service::{RoleServer, RxJsonRpcMessage};
use serde_json::{Map, Value, json};

/// What one JSON value from the client is.
pub(crate) enum Read {
    /// A message, perhaps put right.
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// Nobody waits for an answer, and it says nothing.
    Nothing,
    /// No message, and somebody may wait: the error to answer with.
    Refused(Option<RequestId>, ErrorData),
}

/// What `value` means.
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
            // A response whose form is odd: we ask the client nothing that could not do without.
            Some(_) if fields.contains_key("result") || fields.contains_key("error") => Read::Nothing,
            id => Read::Refused(answerable(id), invalid("it has no method")),
        };
    };
    let Some(id) = id else {
        // A notification. rmcp serves nothing before it has heard this one, whatever its parameters.
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        return match typed(&initialized) {
            Some(message) if matches!(method.as_str(), "notifications/initialized" | "initialized") => {
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

/// The error for what is no message.
pub(crate) fn invalid(why: &str) -> ErrorData {
    ErrorData::invalid_request(format!("this is no MCP message: {why}; send one JSON-RPC 2.0 object per line"), None)
}

/// The error for what is no JSON.
pub(crate) fn no_json(why: &str) -> ErrorData {
    ErrorData::new(ErrorCode::PARSE_ERROR, format!("this is no JSON: {why}; send one JSON-RPC 2.0 object per line"), None)
}

/// The message, where it is exactly of a form that is known. A known method in another form rmcp reads as a custom request.
fn typed(value: &Value) -> Option<RxJsonRpcMessage<RoleServer>> {
    serde_json::from_value(value.clone()).ok().filter(|message| !is_custom(message))
}

/// Whether rmcp knows no form for it: it is something of ours, something unknown, or a known method in an odd form.
pub(crate) fn is_custom(message: &RxJsonRpcMessage<RoleServer>) -> bool {
    match message {
        JsonRpcMessage::Request(request) => matches!(request.request, ClientRequest::CustomRequest(_)),
        JsonRpcMessage::Notification(notification) => {
            matches!(notification.notification, ClientNotification::CustomNotification(_))
        }
        JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => false,
    }
}

/// The id, where an answer can carry it.
fn answerable(id: Option<Value>) -> Option<RequestId> {
    id.and_then(|id| serde_json::from_value(id).ok())
}

/// Puts a request's parameters into the form that its method has, as far as their meaning is certain.
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

/// The parameters of `initialize`: what is missing or odd gets the value of a client that says nothing about itself.
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
    // A capability whose form is odd is kept as one that is there, an unknown one is left out.
    let mut capabilities = ClientCapabilities::default();
    for (name, value) in given.get("capabilities").and_then(Value::as_object).into_iter().flatten() {
        let there = !matches!(value, Value::Null | Value::Bool(false));
        let read = |value: &Value| serde_json::from_value::<ClientCapabilities>(json!({ name: value })).ok();
        let Some(one) = read(value).or_else(|| read(&json!({}))).filter(|_| there) else { continue };
        capabilities.experimental = capabilities.experimental.take().or(one.experimental);
        capabilities.extensions = capabilities.extensions.take().or(one.extensions);
        capabilities.roots = capabilities.roots.take().or(one.roots);
        capabilities.sampling = capabilities.sampling.take().or(one.sampling);
        capabilities.elicitation = capabilities.elicitation.take().or(one.elicitation);
    }
    // Who names no version gets the newest that has a handshake; it can read our answer's.
    let version = text(given.get("protocolVersion")).unwrap_or_else(|| ProtocolVersion::V_2025_11_25.to_string());
    Map::from_iter([
        ("protocolVersion".to_owned(), json!(version)),
        ("capabilities".to_owned(), json!(capabilities)),
        ("clientInfo".to_owned(), json!(info)),
    ])
}

/// The parameters of `tools/call`: arguments that come as JSON in a text are the object in it, none are an empty object, and
/// what is beside them and odd is left out.
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
        match request(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })) {
            ClientRequest::InitializeRequest(request) => request.params,
            other => panic!("{other:?}"),
        }
    }

    fn call(params: Value) -> CallToolRequestParams {
        match request(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })) {
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
            (json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t" } }), "t"),
            (json!({ "protocolVersion": 20250618, "capabilities": {}, "clientInfo": { "name": "t", "version": 1.5 } }), "t"),
            (json!({ "protocolVersion": null, "capabilities": null, "clientInfo": "t" }), "t"),
            (json!({ "protocolVersion": "latest", "capabilities": [], "clientInfo": info }), "t"),
            (
                json!({ "capabilities": { "sampling": true, "roots": false, "elicitation": null, "tools": 1 }, "clientInfo": info }),
                "t",
            ),
            (json!({ "capabilities": {}, "clientInfo": { "name": "t", "version": "1", "icons": "x.png", "title": 7 } }), "t"),
            (json!({ "capabilities": {}, "clientInfo": { "name": "t", "version": "1", "icons": [{ "url": "x" }] } }), "t"),
        ] {
            assert_eq!(initialize(params.clone()).client_info.name, name, "{params}");
        }
        let told = initialize(json!({ "capabilities": { "sampling": true, "roots": { "listChanged": true }, "x": 1 } }));
        assert!(told.capabilities.sampling.is_some() && told.capabilities.elicitation.is_none());
        assert_eq!(told.capabilities.roots.and_then(|roots| roots.list_changed), Some(true));
        for odd in [json!({ "id": 1, "method": "initialize" }), json!({ "jsonrpc": "1.0", "id": 1.0, "method": "initialize" })] {
            assert!(matches!(request(odd), ClientRequest::InitializeRequest(_)));
        }
    }

    #[test]
    fn arguments_that_come_as_json_in_a_text_or_not_at_all_are_read() {
        for arguments in [json!({ "to": "x" }), json!("{\"to\":\"x\"}"), json!(" { \"to\" : \"x\" } ")] {
            let call = call(json!({ "name": "t", "arguments": arguments, "_meta": 1, "task": 2 }));
            assert_eq!(call.arguments.map(Value::Object), Some(json!({ "to": "x" })), "{arguments}");
        }
        for none in [json!(null), json!(""), json!([])] {
            assert!(call(json!({ "name": "t", "arguments": none })).arguments.is_none_or(|given| given.is_empty()));
        }
        // What has no certain meaning is told by the server, in the words of the tool.
        for odd in [json!({ "name": 7 }), json!({ "name": "t", "arguments": "text" }), json!({ "name": "t", "arguments": [1] })] {
            let odd = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": odd });
            assert!(matches!(request(odd), ClientRequest::CustomRequest(_)));
        }
    }

    #[test]
    fn odd_parameters_of_other_requests_are_none() {
        for params in [json!(null), json!([]), json!(""), json!(0)] {
            let list = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": params });
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
            (json!({ "jsonrpc": "2.0", "id": "x", "method": 7 }), Some(RequestId::String("x".into()))),
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
