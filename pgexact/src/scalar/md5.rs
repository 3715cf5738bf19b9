//! MD5 (RFC 1321), as `md5_text` of PostgreSQL's `cryptohashfuncs.c` prints it.

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// floor(2^32 × |sin(i + 1)|), section 3.4 of the RFC.
static SINES: std::sync::LazyLock<[u32; 64]> = std::sync::LazyLock::new(|| {
    std::array::from_fn(|i| (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32)
});

/// The digest in 32 lower-case hexadecimal digits.
pub(super) fn hex(message: &[u8]) -> String {
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let blocks = message.chunks_exact(64);
    let rest = blocks.remainder();
    blocks.for_each(|block| round(&mut state, block));
    // The rest, a one, zeros, and the length in bits in the last eight bytes.
    let mut tail = [0u8; 128];
    tail[..rest.len()].copy_from_slice(rest);
    tail[rest.len()] = 0x80;
    let end = if rest.len() < 56 { 64 } else { 128 };
    tail[end - 8..end].copy_from_slice(&(message.len() as u64).wrapping_mul(8).to_le_bytes());
    tail[..end].chunks_exact(64).for_each(|block| round(&mut state, block));
    let mut out = String::with_capacity(32);
    for byte in state.iter().flat_map(|word| word.to_le_bytes()) {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    out
}

fn round(state: &mut [u32; 4], block: &[u8]) {
    let mut words = [0u32; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let [mut a, mut b, mut c, mut d] = *state;
    for i in 0..64 {
        let (mixed, at) = match i / 16 {
            0 => ((b & c) | (!b & d), i),
            1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
            2 => (b ^ c ^ d, (3 * i + 5) % 16),
            _ => (c ^ (b | !d), (7 * i) % 16),
        };
        let turned = a
            .wrapping_add(mixed)
            .wrapping_add(SINES[i])
            .wrapping_add(words[at])
            .rotate_left(SHIFTS[i / 16][i % 4]);
        (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}
