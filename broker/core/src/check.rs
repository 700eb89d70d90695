//! Checks the bounds of request fields: lengths, counts and forms that several rules need.

use peer_proto::ids::{MessageId, is_reserved_name, is_well_formed_name};
use peer_proto::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, MESSAGES_PER_REQUEST_MAX, SEAT_KEY_BYTES_MAX, THREAD_BYTES_MAX,
};
use peer_proto::request::{Seat, SeatKind};

use crate::rejection::Rejection;

pub(crate) fn check_length(
    what: &'static str,
    text: &str,
    bytes_max: usize,
) -> Result<(), Rejection> {
    if text.len() <= bytes_max {
        Ok(())
    } else {
        Err(Rejection::OutOfBounds { what, bound: format!("at most {bytes_max} bytes") })
    }
}

pub(crate) fn check_seat(seat: &Seat) -> Result<(), Rejection> {
    if seat.key.is_empty() {
        return Err(Rejection::OutOfBounds {
            what: "the seat",
            bound: format!("1 to {SEAT_KEY_BYTES_MAX} bytes"),
        });
    }
    // Register and Rename check the form of a chosen name when they claim it.
    if seat.kind == SeatKind::Name {
        return check_name(&seat.key);
    }
    check_length("the seat", &seat.key, SEAT_KEY_BYTES_MAX)
}

/// Checks that this can be an idempotency key.
pub(crate) fn check_idempotency_key(key: Option<&str>) -> Result<(), Rejection> {
    if key.is_none_or(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())) {
        return Ok(());
    }
    let bound = format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
    Err(Rejection::OutOfBounds { what: "the idempotency key", bound })
}

/// Checks that this can be the name of a thread.
pub(crate) fn check_thread(thread: &str) -> Result<(), Rejection> {
    let fits = (1..=THREAD_BYTES_MAX).contains(&thread.len());
    if fits && thread.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(());
    }
    let bound = format!("1 to {THREAD_BYTES_MAX} letters, digits, -, _ or .");
    Err(Rejection::OutOfBounds { what: "the thread", bound })
}

pub(crate) fn check_count(messages: &[MessageId]) -> Result<(), Rejection> {
    if (1..=MESSAGES_PER_REQUEST_MAX).contains(&messages.len()) {
        Ok(())
    } else {
        Err(Rejection::OutOfBounds {
            what: "the list of messages",
            bound: format!("1 to {MESSAGES_PER_REQUEST_MAX}"),
        })
    }
}

/// Checks that `name` may be given to a peer.
pub(crate) fn check_name(name: &str) -> Result<(), Rejection> {
    if is_reserved_name(name) {
        return Err(Rejection::ReservedName { name: name.to_owned() });
    }
    if !is_well_formed_name(name) {
        return Err(Rejection::BadName { name: name.chars().take(64).collect() });
    }
    Ok(())
}

/// Whether a name can be that of a peer on another broker, or of a proxy on it.
pub(crate) fn is_name_there(name: &str) -> bool {
    let (peer, link) = name.split_once('@').unwrap_or((name, "x"));
    is_well_formed_name(peer) && is_well_formed_name(link)
}
