//! The server's half of SCRAM-SHA-256 (RFC 5802, RFC 7677) as libpq speaks it, for secrets that are known here. ✗ sockets, channel binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

use crate::wire::scram::{hmac, salted_password};

const ITERATIONS: u32 = 4096;

/// One login: what was said so far.
pub struct Login {
    client_first_bare: String,
    server_first: String,
    nonce: String,
    salt: [u8; 16],
}

impl Login {
    /// Reads the client's first message; `salt` and `nonce` (printable, without a comma) are fresh and random. `None`: it is not one.
    pub fn new(client_first: &str, salt: [u8; 16], nonce: &str) -> Option<Login> {
        // No channel binding: there is no TLS on a Unix socket.
        let bare = client_first.strip_prefix("n,,").or_else(|| client_first.strip_prefix("y,,"))?;
        let theirs = bare.split(',').find_map(|part| part.strip_prefix("r="))?;
        let nonce = format!("{theirs}{nonce}");
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(salt));
        Some(Login { client_first_bare: bare.to_owned(), server_first, nonce, salt })
    }

    /// The server's first message.
    pub fn first(&self) -> &str {
        &self.server_first
    }

    /// The server's last message, if the client's proves that it knows the secret.
    pub fn last(&self, client_last: &str, secret: &str) -> Option<String> {
        let (without_proof, proof) = client_last.rsplit_once(",p=")?;
        let binding = without_proof.split(',').find_map(|part| part.strip_prefix("c="))?;
        let nonce = without_proof.split(',').find_map(|part| part.strip_prefix("r="))?;
        if !["biws", "eSws"].contains(&binding) || nonce != self.nonce {
            return None;
        }
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let salted = salted_password(secret, &self.salt, ITERATIONS);
        let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
        let signature = hmac(&stored_key, message.as_bytes());
        let proof = BASE64.decode(proof).ok().filter(|p| p.len() == signature.len())?;
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(p, s)| p ^ s).collect();
        if Sha256::digest(client_key) != stored_key {
            return None;
        }
        let server_key = hmac(&salted, b"Server Key");
        Some(format!("v={}", BASE64.encode(hmac(&server_key, message.as_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let salt: [u8; 16] = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let login =
            Login::new("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", salt, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(
            login.first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(
            login.last(last, "pencil").as_deref(),
            Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
        assert_eq!(login.last(last, "pencils"), None);
        assert!(Login::new("p=tls-server-end-point,,n=user,r=x", salt, "y").is_none());
    }
}
