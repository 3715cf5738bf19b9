//! The section [lake]: where the lake is and how its store is reached. Opens nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use lake::store::{S3, Settings};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::exit::Failure;
use crate::units::{Bytes, Period};

/// Where the lake is, and how its store is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lake {
    /// None: below the data directory.
    pub url: Option<Url>,
    pub store: Settings,
}

/// `lake = "URL"`, or a section of settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LakeFile(Section);

#[derive(Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Section {
    url: Option<Url>,
    cache_size: Option<Bytes>,
    read_timeout: Option<Period>,
    write_timeout: Option<Period>,
    metadata_timeout: Option<Period>,
    hadoop_conf_dir: Option<PathBuf>,
    hadoop: BTreeMap<String, String>,
    s3: S3,
}

impl fmt::Debug for Section {
    // Properties may be secrets; the keys of S3 hide themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("url", &self.url).field("s3", &self.s3).finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for LakeFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = LakeFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the URL of the lake, or a table of settings")
            }
            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<LakeFile, E> {
                let url = Url::parse(url).map_err(|e| E::custom(format!("{url} is no URL: {e}")))?;
                Ok(LakeFile(Section { url: Some(url), ..Section::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LakeFile, A::Error> {
                Section::deserialize(MapAccessDeserializer::new(map)).map(LakeFile).map_err(A::Error::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

impl LakeFile {
    /// Flags over the file over the defaults.
    pub fn settled(self, url: Option<Url>, hadoop_conf_dir: Option<PathBuf>) -> Lake {
        let (file, default) = (self.0, Settings::default());
        Lake {
            url: url.or(file.url),
            store: Settings {
                cache_bytes: file.cache_size.map_or(default.cache_bytes, |size| size.0),
                read_timeout: file.read_timeout.map_or(default.read_timeout, |p| p.0),
                write_timeout: file.write_timeout.map_or(default.write_timeout, |p| p.0),
                metadata_timeout: file.metadata_timeout.map_or(default.metadata_timeout, |p| p.0),
                hadoop_conf_dir: hadoop_conf_dir.or(file.hadoop_conf_dir),
                hadoop: file.hadoop,
                s3: file.s3,
            },
        }
    }
}

/// Says what is wrong with a lake's URL, without asking whether anybody answers there.
pub fn check(url: &Url) -> Result<()> {
    lake::store::open(url)
        .map(|_| ())
        .map_err(|error| Failure::usage(error.to_string(), "correct --lake, or lake in watershed.toml").into())
}
