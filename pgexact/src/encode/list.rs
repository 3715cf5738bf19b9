//! Arrays of one dimension: `array_out` and `array_send` of PostgreSQL's `arrayfuncs.c`. ✗ what the elements look like.

use arrow::array::{Array, ListArray};
use bytes::{BufMut, BytesMut};

use super::{Column, ValueError, Writer};
use crate::Zone;

/// The element type of an array type, if arrays of it are written here.
pub(super) fn element(type_oid: u32) -> Option<u32> {
    use super::oid::*;
    Some(match type_oid {
        1000 => BOOL,
        1005 => INT2,
        1007 => INT4,
        1016 => INT8,
        1022 => FLOAT8,
        1231 => NUMERIC,
        1009 => TEXT,
        1015 => VARCHAR,
        1182 => DATE,
        1115 => TIMESTAMP,
        1185 => TIMESTAMPTZ,
        2951 => UUID,
        _ => return None,
    })
}

/// A column of arrays.
pub(super) struct Lists<'a> {
    lists: &'a ListArray,
    items: Box<Writer<'a>>,
    element: u32,
    /// The text of one element.
    scratch: BytesMut,
}

impl<'a> Lists<'a> {
    /// `item` is how elements are encoded; None if the array is not of them.
    pub(super) fn new(lists: &'a ListArray, item: &Column, zone: &'a Zone) -> Option<Self> {
        let items = Box::new(Writer::new(item, lists.values(), zone)?);
        Some(Lists { lists, items, element: item.target.type_oid, scratch: BytesMut::new() })
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        // Offsets of Arrow arrays are not negative.
        let offsets = self.lists.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }

    fn is_null(&self, item: usize) -> bool {
        self.lists.values().is_null(item)
    }

    pub(super) fn text(&mut self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let range = self.range(row);
        let first = range.start;
        out.put_u8(b'{');
        for item in range {
            if item > first {
                out.put_u8(b',');
            }
            if self.is_null(item) {
                out.put_slice(b"NULL");
                continue;
            }
            self.scratch.clear();
            self.items.text(item, &mut self.scratch)?;
            put_element(&self.scratch, out);
        }
        out.put_u8(b'}');
        Ok(())
    }

    pub(super) fn binary(&mut self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let range = self.range(row);
        let dimensions = i32::from(!range.is_empty());
        out.put_i32(dimensions);
        out.put_i32(range.clone().any(|item| self.is_null(item)).into());
        out.put_u32(self.element);
        if dimensions > 0 {
            // A row has fewer elements than Arrow's offsets count.
            out.put_i32(range.len() as i32);
            out.put_i32(1);
        }
        for item in range {
            if self.is_null(item) {
                out.put_i32(-1);
                continue;
            }
            let start = out.len();
            out.put_i32(0);
            self.items.binary(item, out)?;
            let length = (out.len() - start - 4) as i32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// In quotes where it could be read as something else.
fn put_element(text: &[u8], out: &mut BytesMut) {
    let special = |b: &u8| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"NULL") && !text.iter().any(special) {
        out.put_slice(text);
        return;
    }
    out.put_u8(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(b'\\');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}
