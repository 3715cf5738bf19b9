//! What both halves of a SCRAM-SHA-256 login compute (RFC 5802, RFC 7677), from a password or from the verifier that
//! PostgreSQL keeps in its place, and the messages they exchange. ✗ sockets, where secrets come from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// The mechanism, and the one that binds the exchange to the TLS channel below it.
pub const SCRAM: &str = "SCRAM-SHA-256";
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// How a client-first message begins that uses the binding.
const BOUND: &str = "p=tls-server-end-point,,";

/// PBKDF2-HMAC-SHA-256 with one output block (RFC 5802 calls it Hi).
pub fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut block = salt.to_vec();
    block.extend_from_slice(&1u32.to_be_bytes());
    let mut round = hmac(password.as_bytes(), &block);
    let mut sum = round;
    for _ in 1..iterations {
        round = hmac(password.as_bytes(), &round);
        for (total, byte) in sum.iter_mut().zip(round) {
            *total ^= byte;
        }
    }
    sum
}

/// HMAC-SHA-256 (RFC 2104).
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

/// A key or a signature.
pub type Key = [u8; 32];

/// What PostgreSQL keeps of a password: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

impl Verifier {
    /// Reads `pg_authid.rolpassword`; None: it is of another kind (MD5).
    pub fn parse(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Verifier {
            iterations: iterations.parse().ok()?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: BASE64.decode(stored).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server).ok()?.try_into().ok()?,
        })
    }

    /// Whether the exchange that began with this message is about this verifier.
    pub fn is_of(&self, first: &ServerFirst<'_>) -> bool {
        self.iterations == first.iterations && BASE64.decode(first.salt).is_ok_and(|salt| salt == self.salt)
    }

    /// The client's key, out of its proof over `message`; None: it does not know the password.
    pub fn client_key(&self, message: &str, proof: &Key) -> Option<Key> {
        let key = xor(proof, &hmac(&self.stored_key, message.as_bytes()));
        (Sha256::digest(key).as_slice() == self.stored_key).then_some(key)
    }

    /// The proof over `message` of who has the client's key.
    pub fn proof(&self, client_key: &Key, message: &str) -> Key {
        xor(client_key, &hmac(&self.stored_key, message.as_bytes()))
    }

    /// The proof over `message` of who has the verifier.
    pub fn server_signature(&self, message: &str) -> Key {
        hmac(&self.server_key, message.as_bytes())
    }
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|n| a[n] ^ b[n])
}

/// The server's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerFirst<'a> {
    pub nonce: &'a str,
    /// In base64.
    pub salt: &'a str,
    pub iterations: u32,
}

impl<'a> ServerFirst<'a> {
    pub fn read(message: &'a str) -> Option<ServerFirst<'a>> {
        let mut parts = message.split(',');
        let mut part = |prefix| parts.next().and_then(|part: &str| part.strip_prefix(prefix));
        Some(ServerFirst { nonce: part("r=")?, salt: part("s=")?, iterations: part("i=")?.parse().ok()? })
    }
}

/// The client's first message behind its header: `n=user,r=nonce`, of which PostgreSQL ignores the user.
pub fn client_nonce(bare: &str) -> Option<&str> {
    let mut parts = bare.split(',');
    parts.next().filter(|user| user.starts_with("n="))?;
    parts.next()?.strip_prefix("r=")
}

/// The client's last message: `c=binding,r=nonce,...,p=proof`.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientLast<'a> {
    pub without_proof: &'a str,
    /// In base64.
    pub binding: &'a str,
    pub nonce: &'a str,
    pub proof: Key,
}

impl<'a> ClientLast<'a> {
    pub fn read(message: &'a str) -> Option<ClientLast<'a>> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let mut part = |prefix| parts.next().and_then(|part: &str| part.strip_prefix(prefix));
        Some(ClientLast {
            without_proof,
            binding: part("c=")?,
            nonce: part("r=")?,
            proof: BASE64.decode(proof).ok()?.try_into().ok()?,
        })
    }
}

/// What a client puts after `c=` where the channel's end point has this hash.
pub fn binding(end_point: &[u8]) -> String {
    BASE64.encode([BOUND.as_bytes(), end_point].concat())
}

/// In base64, as all keys and signatures are sent.
pub fn encoded(key: &[u8]) -> String {
    BASE64.encode(key)
}
