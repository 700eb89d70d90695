//! What crosses a NATS server is sealed from one broker's key to another's.
//!
//! Knows keys, boxes and what stands inside each. Does not know the server. Invariants: a sender's
//! identity is the digest of the key that sealed. A box opens in both directions, so the text inside
//! names team, sender and recipient, and proves the team key; all of it is checked.

use std::fmt;

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use peer_proto::codec;
use peer_proto::ids::{BrokerId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The first byte of everything that is sealed: the version of this form.
const FORM: u8 = 1;

const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const PROOF_BYTES: usize = 16;

/// The secret that the members of a team share. It proves membership, and seals the directory.
#[derive(Clone, PartialEq, Eq)]
pub struct TeamKey(pub [u8; KEY_BYTES]);

impl fmt::Debug for TeamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TeamKey(…)")
    }
}

impl TeamKey {
    /// Draws a new one.
    ///
    /// # Errors
    /// The system has no random bits.
    pub fn draw() -> Result<Self, SealError> {
        random().map(Self)
    }

    /// Shows that who sends this to `to` has the key. Another pair has another proof.
    fn proof(&self, from: BrokerId, to: BrokerId, team: &str) -> [u8; PROOF_BYTES] {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update(from.0);
        digest.update(to.0);
        digest.update(team.as_bytes());
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(&digest.finalize()[..PROOF_BYTES]);
        proof
    }
}

/// Random bytes.
///
/// # Errors
/// The system has none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SealError::Entropy)?;
    Ok(bytes)
}

/// The identity of the broker that has this public key.
#[must_use]
pub fn id_of(public: &[u8; KEY_BYTES]) -> BrokerId {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(public)[..16]);
    BrokerId(id)
}

/// A connection between two members: drawn half by each side, so that neither can be made to repeat
/// an old one.
pub(crate) type SessionName = [u8; 32];

/// What one link process says to another. Each kind has a place: pieces and letters are in the
/// stream, all others are requests and answers that the server does not keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// A part of a frame of a connection.
    Piece {
        session: SessionName,
        /// Counts from 0, without a gap.
        number: u64,
        /// The frame ends with this one.
        last: bool,
        bytes: Vec<u8>,
    },
    /// A message for a member that was not there: the bytes of one `Frame::Mail`.
    Letter {
        /// What the sending machine calls itself.
        name: String,
        frame: Vec<u8>,
    },
    /// Make a connection with me. Answer: `Called`.
    Call {
        half: [u8; 16],
        wall: Timestamp,
        preface: Vec<u8>,
    },
    /// The answer to `Call`: the first half is that of the caller.
    Called {
        theirs: [u8; 16],
        half: [u8; 16],
        preface: Vec<u8>,
    },
    /// I am here: call me. Answer: `Noticed`.
    Knock {
        nonce: [u8; 16],
        wall: Timestamp,
    },
    Noticed {
        nonce: [u8; 16],
    },
    /// Are you there? Answer: `Here`.
    Probe {
        nonce: [u8; 16],
    },
    Here {
        nonce: [u8; 16],
        /// Drawn by the process when it began.
        run: [u8; 16],
        name: String,
        software: String,
    },
    /// The answer to anything that is not done.
    Declined {
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    team: String,
    /// One for each team key of the sender. One that the recipient has too is enough.
    proofs: Vec<[u8; PROOF_BYTES]>,
    from: BrokerId,
    to: BrokerId,
    said: Said,
}

/// What a member tells the team of itself. It lies in the team's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryCard {
    /// The public key.
    pub public: [u8; KEY_BYTES],
    /// What the machine calls itself.
    pub name: String,
    /// The version of its `peerctl`.
    pub software: String,
    /// Drawn by the link process when it began: two living ones are two holders of one identity.
    pub run: [u8; 16],
    /// When it was written, by the clock there.
    pub written_at: Timestamp,
}

/// Why nothing can be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// The system has no random bits.
    #[error("the system gives no random bits")]
    Entropy,
    /// The text is too long, or cannot be encoded.
    #[error("it cannot be sealed: {0}")]
    Form(String),
}

/// Why something that came is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Another version of `peerctl` sealed it, or it is nothing of ours.
    #[error("it has another form; both machines need the same version of peerctl")]
    Form,
    /// The key that sealed it does not belong to the sender that the subject names.
    #[error("it was not sealed by the sender that the subject names")]
    Sender,
    /// The box does not open: it was changed, or is for somebody else.
    #[error("its box does not open")]
    Box,
    /// It opens, but it was made for another place: reflected, or of another team.
    #[error("it was sealed for another sender, recipient or team")]
    Context,
    /// The sender has not the team's key.
    #[error(
        "it has another team key; `peerctl link team invite` on a member shows the present one"
    )]
    TeamKey,
}

/// Seals and opens for one member of one team.
pub(crate) struct Sealer {
    secret: SecretKey,
    public: [u8; KEY_BYTES],
    /// This broker.
    pub(crate) own: BrokerId,
    team: String,
    /// The present key first, then a former one that still counts.
    keys: Vec<TeamKey>,
}

impl Sealer {
    pub(crate) fn new(secret: [u8; KEY_BYTES], team: String, keys: Vec<TeamKey>) -> Self {
        let secret = SecretKey::from(secret);
        let public = *secret.public_key().as_bytes();
        Self { secret, public, own: id_of(&public), team, keys }
    }

    pub(crate) fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// Seals for the holder of a key.
    pub(crate) fn seal(&self, to: &[u8; KEY_BYTES], said: Said) -> Result<Vec<u8>, SealError> {
        let (from, to_id) = (self.own, id_of(to));
        let proofs = self.keys.iter().map(|key| key.proof(from, to_id, &self.team)).collect();
        let envelope = Envelope { team: self.team.clone(), proofs, from, to: to_id, said };
        let text = codec::encode(&envelope).map_err(|error| SealError::Form(error.to_string()))?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let sealed = SalsaBox::new(&PublicKey::from(*to), &self.secret)
            .encrypt(&nonce.into(), text.as_slice())
            .map_err(|_| SealError::Form("the cipher refuses it".to_owned()))?;
        let mut bytes = Vec::with_capacity(1 + KEY_BYTES + NONCE_BYTES + sealed.len());
        bytes.push(FORM);
        bytes.extend_from_slice(&self.public);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// Opens what came, and returns the sender's key. `from` is the sender that the subject names,
    /// if it names one.
    pub(crate) fn open(
        &self,
        from: Option<BrokerId>,
        bytes: &[u8],
    ) -> Result<([u8; KEY_BYTES], Said), OpenError> {
        let (public, nonce, sealed) = parts(bytes).ok_or(OpenError::Form)?;
        let sender = id_of(&public);
        if from.is_some_and(|from| from != sender) {
            return Err(OpenError::Sender);
        }
        let text = SalsaBox::new(&PublicKey::from(public), &self.secret)
            .decrypt(&nonce.into(), sealed)
            .map_err(|_| OpenError::Box)?;
        let envelope: Envelope = codec::decode(&text).map_err(|_| OpenError::Form)?;
        if envelope.from != sender || envelope.to != self.own || envelope.team != self.team {
            return Err(OpenError::Context);
        }
        let known = |key: &TeamKey| {
            envelope.proofs.contains(&key.proof(envelope.from, envelope.to, &self.team))
        };
        if !self.keys.iter().any(known) {
            return Err(OpenError::TeamKey);
        }
        Ok((public, envelope.said))
    }

    /// Seals a card for the whole team.
    pub(crate) fn seal_card(&self, card: &DirectoryCard) -> Result<Vec<u8>, SealError> {
        let Some(key) = self.keys.first() else { return Err(SealError::Entropy) };
        let text = codec::encode(&(&self.team, card))
            .map_err(|error| SealError::Form(error.to_string()))?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let sealed = XSalsa20Poly1305::new(&key.0.into())
            .encrypt(&nonce.into(), text.as_slice())
            .map_err(|_| SealError::Form("the cipher refuses it".to_owned()))?;
        Ok([&[FORM][..], &nonce, &sealed].concat())
    }

    /// Opens the card that lies under `owner` in the directory.
    pub(crate) fn open_card(
        &self,
        owner: BrokerId,
        bytes: &[u8],
    ) -> Result<DirectoryCard, OpenError> {
        let (form, rest) = bytes.split_first().ok_or(OpenError::Form)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Form)?;
        if *form != FORM {
            return Err(OpenError::Form);
        }
        let open = |key: &TeamKey| {
            XSalsa20Poly1305::new(&key.0.into()).decrypt(&(*nonce).into(), sealed).ok()
        };
        let text = self.keys.iter().find_map(open).ok_or(OpenError::TeamKey)?;
        let (team, card): (String, DirectoryCard) =
            codec::decode(&text).map_err(|_| OpenError::Form)?;
        // Every member can seal a card. None can have the key that another's identity is made of.
        if team != self.team || id_of(&card.public) != owner {
            return Err(OpenError::Context);
        }
        Ok(card)
    }
}

fn parts(bytes: &[u8]) -> Option<([u8; KEY_BYTES], [u8; NONCE_BYTES], &[u8])> {
    let (form, rest) = bytes.split_first()?;
    let (public, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    (*form == FORM).then_some((*public, *nonce, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [9; 32];

    fn member(secret: u8, key: [u8; 32]) -> Sealer {
        Sealer::new([secret; 32], "blue".to_owned(), vec![TeamKey(key)])
    }

    fn piece(number: u64) -> Said {
        Said::Piece { session: [1; 32], number, last: true, bytes: b"secret text".to_vec() }
    }

    #[test]
    fn what_is_sealed_opens_at_its_recipient_alone() {
        let (ann, bob, eve) = (member(1, KEY), member(2, KEY), member(3, KEY));
        let sealed = ann.seal(&bob.public(), piece(7)).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(bob.open(Some(ann.own), &sealed), Ok((ann.public(), piece(7))));
        assert_eq!(bob.open(None, &sealed), Ok((ann.public(), piece(7))));
        assert_eq!(eve.open(Some(ann.own), &sealed), Err(OpenError::Box));
        // The subject names another sender than the key.
        assert_eq!(bob.open(Some(eve.own), &sealed), Err(OpenError::Sender));
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(bob.open(Some(ann.own), &changed), Err(OpenError::Box));
        for end in 0..sealed.len() {
            assert!(bob.open(Some(ann.own), &sealed[..end]).is_err());
        }
    }

    /// A box is symmetric: what Ann sealed for Bob opens at Ann as if Bob had sealed it.
    #[test]
    fn a_reflected_box_is_refused() {
        let (ann, bob) = (member(1, KEY), member(2, KEY));
        let sealed = ann.seal(&bob.public(), piece(0)).unwrap();
        assert_eq!(ann.open(Some(ann.own), &sealed), Err(OpenError::Box));
        let mut reflected = sealed;
        reflected[1..=KEY_BYTES].copy_from_slice(&bob.public());
        // It opens, and only what stands inside shows that it is Ann's own.
        assert_eq!(ann.open(Some(bob.own), &reflected), Err(OpenError::Context));
    }

    #[test]
    fn another_team_or_team_key_is_refused() {
        let (ann, bob) = (member(1, KEY), member(2, [8; 32]));
        let sealed = ann.seal(&bob.public(), piece(0)).unwrap();
        assert_eq!(bob.open(Some(ann.own), &sealed), Err(OpenError::TeamKey));
        let red = Sealer::new([2; 32], "red".to_owned(), vec![TeamKey(KEY)]);
        assert_eq!(red.open(Some(ann.own), &sealed), Err(OpenError::Context));
        // While keys change, a member with both understands members with either.
        let both = Sealer::new([2; 32], "blue".to_owned(), vec![TeamKey([8; 32]), TeamKey(KEY)]);
        assert!(both.open(Some(ann.own), &sealed).is_ok());
        let answer = both.seal(&ann.public(), piece(0)).unwrap();
        assert!(ann.open(Some(both.own), &answer).is_ok());
    }

    #[test]
    fn a_card_belongs_to_the_key_that_it_names() {
        let (ann, bob, stranger) = (member(1, KEY), member(2, KEY), member(3, [8; 32]));
        let card = DirectoryCard {
            public: ann.public(),
            name: "desk".to_owned(),
            software: "0.1.0".to_owned(),
            run: [4; 16],
            written_at: Timestamp(5),
        };
        let sealed = ann.seal_card(&card).unwrap();
        assert_eq!(bob.open_card(ann.own, &sealed), Ok(card));
        assert_eq!(bob.open_card(bob.own, &sealed), Err(OpenError::Context));
        assert_eq!(stranger.open_card(ann.own, &sealed), Err(OpenError::TeamKey));
    }
}
