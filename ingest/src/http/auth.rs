//! Bearer tokens: who may post, and to which tables. Knows digests only; a secret that was read is hashed and forgotten.
//! Comparing digests takes the same time whatever the secret is, and every token is compared.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// A shorter secret can be guessed.
const MIN_SECRET: usize = 16;

/// The tokens of the door; none means that it is open.
#[derive(Clone, Default)]
pub struct Tokens(Arc<[Token]>);

#[derive(Clone)]
struct Token {
    digest: [u8; 32],
    grant: Grant,
}

/// What a token may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant(Option<Arc<[String]>>);

impl Grant {
    /// True if rows may be added to this table; `table` is schema and name.
    pub fn allows(&self, table: &str) -> bool {
        let same =
            |name: &String| name == table || table.strip_prefix("public.").is_some_and(|rest| rest == name);
        self.0.as_ref().is_none_or(|tables| tables.iter().any(same))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// From entries `sha256:HEX` or, if `plain`, the secret itself, each optionally followed by a blank and the tables
    /// that it may add to: `sha256:... logs,public.events`.
    ///
    /// # Errors
    /// What is wrong, without the entry itself.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>, plain: bool) -> Result<Tokens, String> {
        let one =
            |(at, entry): (usize, &str)| token(entry, plain).map_err(|e| format!("token {}: {e}", at + 1));
        Ok(Tokens(entries.into_iter().enumerate().map(one).collect::<Result<_, _>>()?))
    }

    /// From a file of one entry a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// It cannot be read, others may read it, it holds no token or a wrong one.
    pub fn read(path: &Path) -> Result<Tokens, String> {
        let wrong = |e: String| format!("{}: {e}", path.display());
        let mode = fs::metadata(path).map_err(|e| wrong(e.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong("others may read it; chmod 600 makes it private".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let tokens = Tokens::parse(lines, true).map_err(wrong)?;
        if tokens.is_empty() {
            return Err(wrong("no token in it".to_owned()));
        }
        Ok(tokens)
    }

    /// Both.
    pub fn and(self, other: Tokens) -> Tokens {
        Tokens(self.0.iter().chain(other.0.iter()).cloned().collect())
    }

    /// True if the door is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the sender of these headers may do; `None` if it is not known.
    pub fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        if self.is_empty() {
            return Some(Grant::default());
        }
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        presented(given).iter().find_map(|secret| self.find(secret))
    }

    fn find(&self, secret: &[u8]) -> Option<Grant> {
        let digest = Sha256::digest(secret);
        let mut found = None;
        for token in self.0.iter() {
            let differs = token.digest.iter().zip(digest.iter()).fold(0, |all, (a, b)| all | (a ^ b));
            if std::hint::black_box(differs) == 0 {
                found = Some(token.grant.clone());
            }
        }
        found
    }
}

fn token(entry: &str, plain: bool) -> Result<Token, String> {
    let (secret, tables) = match entry.split_once(char::is_whitespace) {
        Some((secret, tables)) => (secret, Some(tables)),
        None => (entry, None),
    };
    let digest = match secret.strip_prefix("sha256:") {
        Some(hexadecimal) => hex::decode(hexadecimal)
            .ok()
            .and_then(|d| d.try_into().ok())
            .ok_or("sha256: must be followed by 64 hexadecimal digits")?,
        None if !plain => {
            return Err("give its digest here, sha256:HEX, or the secret in a private file".into());
        }
        None if secret.len() < MIN_SECRET => return Err(format!("shorter than {MIN_SECRET} characters")),
        None => Sha256::digest(secret).into(),
    };
    let tables =
        tables.map(|t| t.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect());
    Ok(Token { digest, grant: Grant(tables) })
}

/// The secrets that a header may mean: `Bearer SECRET`; for Elasticsearch's clients also `ApiKey` (the secret itself, or
/// base64 of `id:SECRET`) and `Basic` (the secret as the password of any user).
fn presented(header: &str) -> Vec<Vec<u8>> {
    let Some((scheme, value)) = header.split_once(' ') else { return Vec::new() };
    let value = value.trim();
    let after_colon = || {
        let pair = STANDARD.decode(value).ok()?;
        let colon = pair.iter().position(|b| *b == b':')?;
        Some(pair[colon + 1..].to_vec())
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        vec![value.as_bytes().to_vec()]
    } else if scheme.eq_ignore_ascii_case("apikey") {
        std::iter::once(value.as_bytes().to_vec()).chain(after_colon()).collect()
    } else if scheme.eq_ignore_ascii_case("basic") {
        after_colon().into_iter().collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn every_way_to_present_a_token() {
        let tokens = Tokens::parse([SECRET], true).unwrap();
        let pair = STANDARD.encode(format!("elastic:{SECRET}"));
        for good in [
            format!("Bearer {SECRET}"),
            format!("bearer  {SECRET} "),
            format!("ApiKey {SECRET}"),
            format!("ApiKey {pair}"),
            format!("Basic {pair}"),
        ] {
            assert_eq!(tokens.grant(&with(&good)), Some(Grant::default()), "{good}");
        }
        let other = STANDARD.encode(format!("{SECRET}:x"));
        for bad in [
            SECRET.to_owned(),
            format!("Bearer {SECRET}x"),
            "Bearer ".to_owned(),
            format!("Bearer {pair}"),
            format!("Basic {SECRET}"),
            format!("Basic {other}"),
            format!("Digest {SECRET}"),
        ] {
            assert_eq!(tokens.grant(&with(&bad)), None, "{bad}");
        }
        assert_eq!(tokens.grant(&HeaderMap::new()), None);
        assert_eq!(Tokens::default().grant(&HeaderMap::new()), Some(Grant::default()));
    }

    #[test]
    fn digests_and_tables() {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(SECRET)));
        let tokens = Tokens::parse([format!("{digest} logs, app.events").as_str()], false).unwrap();
        let grant = tokens.grant(&with(&format!("Bearer {SECRET}"))).unwrap();
        assert!(grant.allows("public.logs") && grant.allows("app.events"));
        assert!(!grant.allows("public.events") && !grant.allows("app.logs"));
        assert!(Grant::default().allows("any.thing"));
        assert!(Tokens::parse([SECRET], false).is_err());
        assert!(Tokens::parse(["sha256:00"], false).is_err());
        let short = Tokens::parse(["hunter2"], true).unwrap_err();
        assert!(!short.contains("hunter2"), "{short}");
        assert_eq!(format!("{tokens:?}"), "1 tokens");
    }

    #[test]
    fn a_token_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, format!("# of the shippers\n\n{SECRET} logs\nanother-long-secret\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Tokens::read(&path).unwrap_err().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let tokens = Tokens::read(&path).unwrap();
        assert!(tokens.grant(&with("Bearer another-long-secret")).unwrap().allows("public.events"));
        assert!(!tokens.grant(&with(&format!("Bearer {SECRET}"))).unwrap().allows("public.events"));
        fs::write(&path, "# nothing\n").unwrap();
        assert!(Tokens::read(&path).is_err());
    }
}
