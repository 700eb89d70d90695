//! A member's card in the team's directory, and its looks at what the server has.
//!
//! Knows when the server's state does not fit. Does not know what crosses it. Invariants: a card is
//! written only over the one that this process knows, so that two holders of one identity find each
//! other. A consumer that does not fit its stream twice in a row is made anew.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures_util::StreamExt;

use crate::dispatch::Inner;
use crate::seal::{DirectoryCard, Said};
use crate::stock;
use crate::team::{MeetError, TeamError, ask, chain, now};

/// How often the server's state is compared, and the directory read.
const LOOK_MS: u64 = 60_000;

/// How soon the comparison is repeated if the server's state did not fit.
const LOOK_AGAIN_MS: u64 = 5_000;

/// After how many looks this member's card is written again.
const LOOKS_PER_CARD: u32 = 5;

/// Most members whose cards are read.
const MEMBERS_MAX: usize = 1_000;

// ---- the directory

/// Fails if another process answers for this broker.
pub(crate) async fn alone(inner: &Arc<Inner>) -> Result<(), TeamError> {
    let own = inner.own();
    let mut answered = 0;
    // The server may not have noticed yet that a former process of this machine has ended.
    for _ in 0..2 {
        match ask(inner, own, inner.sealer.public(), |nonce| Said::Probe { nonce }).await {
            Err(MeetError::Away) => return Ok(()),
            Err(MeetError::Team(error)) => return Err(error),
            Ok(_) | Err(_) => answered += 1,
        }
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }
    debug_assert!(answered > 0, "only an answer leads here");
    Err(TeamError::IdentityConflict(own))
}

/// Writes this member's card. `known` is the revision of the one that this process wrote last.
pub(crate) async fn write_card(
    inner: &Arc<Inner>,
    directory: &Stream,
    known: Option<u64>,
) -> Result<u64, TeamError> {
    let own = inner.own();
    let subject = stock::card(&inner.team, own);
    let before = match known {
        Some(revision) => revision,
        // One of a former process of this machine may be there.
        None => match directory.direct_get_last_for_subject(subject.clone()).await {
            Ok(message) => message.sequence,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => 0,
            Err(error) => return Err(inner.because("reading the directory", error)),
        },
    };
    let card = DirectoryCard {
        public: inner.sealer.public(),
        name: inner.name.clone(),
        software: inner.software.clone(),
        run: inner.run,
        written_at: now(),
    };
    let sealed = inner.sealer.seal_card(&card)?;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", before.to_string());
    let doing = "writing this machine's card";
    let written = inner
        .context
        .publish_with_headers(subject, headers, sealed.into())
        .await
        .map_err(|error| inner.because(doing, error))?;
    match written.await {
        Ok(ack) => Ok(ack.sequence),
        // Somebody else wrote it since.
        Err(error) if chain(&error).contains("wrong last sequence") => {
            Err(TeamError::IdentityConflict(own))
        }
        Err(error) => Err(inner.because(doing, chain(&error))),
    }
}

/// Reads the cards of the members that are not known yet.
pub(crate) async fn read_directory(
    inner: &Arc<Inner>,
    directory: &Stream,
) -> Result<(), TeamError> {
    let doing = "reading the directory";
    let mut subjects = directory
        .info_with_subjects(format!("$KV.PEERD_{}_dir.>", inner.team))
        .await
        .map_err(|error| inner.because(doing, error))?;
    let mut read = 0;
    while let Some(entry) = subjects.next().await {
        let (subject, _) = entry.map_err(|error| inner.because(doing, error))?;
        let Some(owner) = stock::owner(&inner.team, &subject) else { continue };
        if owner == inner.own() || inner.public_of(owner).is_some() || read == MEMBERS_MAX {
            continue;
        }
        read += 1;
        // One that went in between is no error.
        let Ok(message) = directory.direct_get_last_for_subject(subject).await else { continue };
        match inner.sealer.open_card(owner, &message.payload) {
            Ok(card) => inner.heard_of(owner, card.public, Some(card.name)),
            Err(why) => inner.refused_of(owner, &why),
        }
    }
    Ok(())
}

// ---- looks at the server

/// What waits for this member, counted in the stream and by the consumer.
async fn count(inner: &Arc<Inner>, stream: &Stream) -> Result<(u64, u64), TeamError> {
    let doing = "comparing the stream and the consumer";
    let mut subjects = stream
        .info_with_subjects(stock::mail_to(&inner.team, inner.own()))
        .await
        .map_err(|error| inner.because(doing, error))?;
    let mut there = 0;
    while let Some(entry) = subjects.next().await {
        let (_, messages) = entry.map_err(|error| inner.because(doing, error))?;
        there += messages as u64;
    }
    let info = stream
        .consumer_info(stock::consumer(inner.own()))
        .await
        .map_err(|error| inner.because(doing, error))?;
    Ok((there, info.num_pending + info.num_ack_pending as u64))
}

/// Compares stream and consumer, reads the directory and keeps this member's card there, again and
/// again. After the server lost a part of its disk, a consumer may skip messages for good: then it is
/// made anew.
pub(crate) async fn look(inner: Arc<Inner>, stream: Stream, directory: Stream, mut card: u64) {
    let mut differed = false;
    let mut looks = 0;
    loop {
        let looked = async {
            let (there, known) = count(&inner, &stream).await?;
            if there == known {
                differed = false;
            } else if std::mem::replace(&mut differed, true) {
                let name = stock::consumer(inner.own());
                stream
                    .delete_consumer(&name)
                    .await
                    .map_err(|error| inner.because("making the consumer anew", error))?;
                return Err(TeamError::Repaired);
            }
            read_directory(&inner, &directory).await?;
            looks += 1;
            if looks % LOOKS_PER_CARD == 0 {
                card = write_card(&inner, &directory, Some(card)).await?;
            }
            Ok(())
        };
        if let Err(error) = looked.await {
            return inner.fail(error);
        }
        let wait_ms = if differed { LOOK_AGAIN_MS } else { LOOK_MS };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}
