//! What both halves of a SCRAM-SHA-256 login compute (RFC 5802, RFC 7677). ✗ messages, secrets.

use sha2::{Digest, Sha256};

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
