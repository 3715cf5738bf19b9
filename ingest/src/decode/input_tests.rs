use std::io::Write;

use super::*;

fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Content) {
    let mut f = tempfile::NamedTempFile::new().unwrap();
    f.write_all(bytes).unwrap();
    let content = Content::open(f.path()).unwrap();
    (f, content)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

#[test]
fn packed_or_not_it_is_the_same_content() {
    let text: Vec<u8> = (0..100_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
    // Two gzip members and two zstd frames one after another are one content too.
    let half = text.len() / 2;
    let gz = [gzip(&text[..half]), gzip(&text[half..])].concat();
    let zst =
        [zstd::encode_all(&text[..half], 1).unwrap(), zstd::encode_all(&text[half..], 1).unwrap()].concat();
    let marks = [0, 1, half as u64, text.len() as u64, text.len() as u64 + 1];
    let scans: Vec<Scan> = [&text, &gz, &zst]
        .map(|b| {
            let (_f, c) = file(b);
            let mut rest = Vec::new();
            c.reader_at(half as u64).unwrap().read_to_end(&mut rest).unwrap();
            assert!(rest == text[half..]);
            assert!(c.head(10).unwrap() == text[..10]);
            c.scan(&marks, None).unwrap()
        })
        .to_vec();
    assert_eq!(scans[0], scans[1]);
    assert_eq!(scans[0], scans[2]);
    let s = &scans[0];
    assert_eq!(s.bytes, text.len() as u64);
    assert_eq!(s.prefixes.keys().copied().collect::<Vec<_>>(), marks[..4]);
    assert_eq!(s.prefixes[&s.bytes], s.hash);
    assert_eq!(s.prefixes[&(half as u64)], hex::encode(Sha256::digest(&text[..half])));
}

#[test]
fn every_line_is_shown_once() {
    let text: Vec<u8> =
        (0..50_000).flat_map(|i| format!("{i} {}\n", "x".repeat(i % 40)).into_bytes()).collect();
    let (_f, c) = file(&text);
    let mut n = 0;
    let mut look = |l: &[u8]| {
        if !l.is_empty() {
            assert!(l.starts_with(n.to_string().as_bytes()));
            n += 1;
        }
    };
    c.scan(&[], Some(&mut look)).unwrap();
    assert_eq!(n, 50_000);
}

#[test]
fn damaged_files_are_errors() {
    let mut gz = gzip(&[b'x'; 100_000]);
    gz.truncate(gz.len() / 2);
    let (_f, c) = file(&gz);
    assert!(c.scan(&[], None).is_err());
    assert!(Content::open(Path::new("/")).is_err());
    assert!(Content::open(Path::new("/does/not/exist")).is_err());
}
