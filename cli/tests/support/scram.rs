//! The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding, as PostgreSQL speaks it.
//!
//! It knows the exchange and the two primitives it needs besides SHA-256 itself. It does no I/O.

use sha2::{Digest, Sha256};

const BLOCK: usize = 64;

/// One login.
pub struct Scram {
    password: String,
    nonce: String,
    expected_server_signature: Vec<u8>,
}

impl Scram {
    pub fn new(password: &str) -> Scram {
        let seed = format!("{:?} {:?}", std::time::SystemTime::now(), std::thread::current().id());
        Scram {
            password: password.into(),
            nonce: hex::encode(Sha256::digest(seed)),
            expected_server_signature: Vec::new(),
        }
    }

    /// The body of SASLInitialResponse.
    pub fn first(&mut self) -> Vec<u8> {
        let message = format!("n,,{}", self.first_bare());
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend_from_slice(&i32::try_from(message.len()).expect("a small message").to_be_bytes());
        body.extend_from_slice(message.as_bytes());
        body
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The body of SASLResponse for the server's first message.
    pub fn last(&mut self, server_first: &[u8]) -> Vec<u8> {
        let server_first = std::str::from_utf8(server_first).expect("SCRAM is text");
        let attribute = |key: &str| {
            let found = server_first.split(',').find_map(|part| part.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key} in {server_first}"))
        };
        let salt = base64_decode(attribute("s="));
        let rounds: u32 = attribute("i=").parse().expect("the iteration count");
        let nonce = attribute("r=");
        assert!(nonce.starts_with(&self.nonce), "the server's nonce extends ours");

        let salted = salted_password(self.password.as_bytes(), &salt, rounds);
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare());
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(&client_key), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        self.expected_server_signature = hmac(&hmac(&salted, b"Server Key"), auth_message.as_bytes());
        format!("{without_proof},p={}", base64_encode(&proof)).into_bytes()
    }

    /// Checks the server's own proof.
    pub fn verify(&self, server_last: &[u8]) {
        let expected = format!("v={}", base64_encode(&self.expected_server_signature));
        assert_eq!(
            String::from_utf8_lossy(server_last),
            expected,
            "the server proves that it knows the password"
        );
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

/// PBKDF2 with one output block.
fn salted_password(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut round = hmac(password, &[salt, &[0, 0, 0, 1]].concat());
    let mut out = round.clone();
    for _ in 1..rounds {
        round = hmac(password, &round);
        out.iter_mut().zip(&round).for_each(|(sum, byte)| *sum ^= byte);
    }
    out
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn base64_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = ALPHABET.iter().position(|letter| *letter == byte).expect("a base64 letter");
        word = word << 6 | u32::try_from(digit).expect("below 64");
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).expect("one byte"));
        }
    }
    out
}
