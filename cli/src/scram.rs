//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it: the client's half of a login, and the
//! verifier a role's password is stored as. No sockets; no channel binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::wire::scram::{hmac, salted_password};
use sha2::{Digest, Sha256};

/// Iterations of new verifiers: PostgreSQL's own default.
const ITERATIONS: u32 = 4096;
/// More than any sane server asks for; a bound on the work a peer can make us do.
const MAX_ITERATIONS: u32 = 1_000_000;

/// The text PostgreSQL stores for a password, so that the password itself never appears in SQL or in its log.
/// `password` must be printable ASCII (SASLprep leaves it as it is).
pub fn verifier(password: &str, salt: [u8; 16]) -> String {
    let salted = salted_password(password, &salt, ITERATIONS);
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key),
        BASE64.encode(server_key)
    )
}

/// One login in progress.
pub struct Login {
    password: String,
    nonce: String,
    client_first_bare: String,
}

/// What the server must answer for us to know that it too knows the password.
pub struct ServerProof(String);

impl Login {
    /// `nonce`: fresh random printable characters without a comma.
    pub fn new(password: &str, nonce: String) -> Self {
        // PostgreSQL takes the user from the startup packet and ignores the one here.
        let client_first_bare = format!("n=,r={nonce}");
        Login { password: password.to_owned(), nonce, client_first_bare }
    }

    /// The client-first-message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.client_first_bare)
    }

    /// The client-final-message for the server's first, or None if that is not an answer to ours.
    pub fn last(&self, server_first: &str) -> Option<(String, ServerProof)> {
        let mut nonce = None;
        let mut salt = None;
        let mut iterations = None;
        for part in server_first.split(',') {
            match part.split_at_checked(2)? {
                ("r=", value) => nonce = Some(value),
                ("s=", value) => salt = BASE64.decode(value).ok(),
                ("i=", value) => iterations = value.parse::<u32>().ok(),
                _ => {}
            }
        }
        let (nonce, salt, iterations) = (nonce?, salt?, iterations?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || iterations > MAX_ITERATIONS {
            return None;
        }
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sig)| key ^ sig).collect();
        let expected = hmac(&hmac(&salted, b"Server Key"), message.as_bytes());
        Some((
            format!("{without_proof},p={}", BASE64.encode(proof)),
            ServerProof(format!("v={}", BASE64.encode(expected))),
        ))
    }
}

impl ServerProof {
    pub fn holds(&self, server_final: &str) -> bool {
        self.0 == server_final
    }
}

#[cfg(test)]
mod tests;
