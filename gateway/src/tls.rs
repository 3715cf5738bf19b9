//! TLS towards clients: certificate, key and the authorities of client certificates, from files that are read
//! again when told. ✗ sockets, who may log in.

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The protocol's name in ALPN, as registered for PostgreSQL.
pub const ALPN: &[u8] = b"postgresql";

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server's certificate and those that lead to its authority, PEM, the server's first.
    pub cert: PathBuf,
    /// Its key, PEM, not encrypted, for nobody else to read.
    pub key: PathBuf,
    /// The authorities that client certificates may come from; none are asked for without.
    pub client_ca: Option<PathBuf>,
    /// A client that shows no certificate may come in all the same; a wrong one is refused either way.
    pub client_certificate_optional: bool,
}

/// Files that make no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} may be read by others: chmod 600 makes it private", .0.display())]
    Open(PathBuf),
    #[error("{} holds no {what} in PEM format", path.display())]
    Empty { path: PathBuf, what: &'static str },
    #[error("{} is wrong: {why}", path.display())]
    Wrong { path: PathBuf, why: String },
    #[error("{} and {} do not go together: {source}", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What handshakes are made with until the next reload.
#[derive(Debug)]
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// Hash of the certificate for SCRAM's channel binding (RFC 5929, tls-server-end-point); None where its
    /// signature names no single hash, so that no binding can be offered.
    pub end_point: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct Tls {
    settings: Settings,
    current: RwLock<Arc<Identity>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: Settings) -> Result<Tls, TlsError> {
        let current = RwLock::new(Arc::new(read(&settings)?));
        Ok(Tls { settings, current })
    }

    /// Reads the files again, for handshakes from now on. After an error everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.settings)?);
        *self.current.write() = new;
        Ok(())
    }

    /// For one handshake.
    pub fn current(&self) -> Arc<Identity> {
        self.current.read().clone()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

fn read(settings: &Settings) -> Result<Identity, TlsError> {
    let certificates = certificates(&settings.cert)?;
    let end_point = certificates.first().and_then(|own| end_point(own));
    let key = key(&settings.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for root in self::certificates(path)? {
                roots.add(root).map_err(|e| TlsError::Wrong { path: path.clone(), why: e.to_string() })?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if settings.client_certificate_optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier =
                verifier.build().map_err(|e| TlsError::Wrong { path: path.clone(), why: e.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(|source| TlsError::Pair {
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // As PostgreSQL: each session has a handshake of its own, so that what a reload takes away is gone.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Identity { config: Arc::new(config), end_point })
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Wrong { path: path.into(), why: e.to_string() })?;
    if all.is_empty() {
        return Err(TlsError::Empty { path: path.into(), what: "certificate" });
    }
    Ok(all)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = bytes(path)?;
    let of = fs::metadata(path).map_err(|source| TlsError::Read { path: path.into(), source })?;
    // As PostgreSQL: private to its owner; a key of root's may be lent to a group.
    let forbidden = if of.uid() == 0 { 0o027 } else { 0o077 };
    if of.mode() & forbidden != 0 {
        return Err(TlsError::Open(path.into()));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| match e {
        rustls::pki_types::pem::Error::NoItemsFound => {
            TlsError::Empty { path: path.into(), what: "private key without a passphrase" }
        }
        e => TlsError::Wrong { path: path.into(), why: e.to_string() },
    })
}

/// The certificate's hash by the hash function of its signature, MD5 and SHA-1 replaced by SHA-256 (RFC 5929, 4.1).
/// Ed25519 and RSA-PSS give none: what clients make of these differs.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, ... }, ... }
    let (0x30, inside, _) = der(certificate)? else { return None };
    let (_, _, after_tbs) = der(inside)?;
    let (0x30, algorithm, _) = der(after_tbs)? else { return None };
    let (0x06, oid, _) = der(algorithm)? else { return None };
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    Some(match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Sha256::digest(certificate).to_vec(),
        (Some([14]), _) | (_, Some([3, 1])) => Sha224::digest(certificate).to_vec(),
        (Some([12]), _) | (_, Some([3, 3])) => Sha384::digest(certificate).to_vec(),
        (Some([13]), _) | (_, Some([3, 4])) => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// Tag and content of the first DER element, and what follows it.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match first {
        short if short < 0x80 => (usize::from(short), rest),
        long => {
            let (len, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if len.is_empty() || len.len() > 4 {
                return None;
            }
            (len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests;
