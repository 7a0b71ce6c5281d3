//! HPACK (RFC 7541): the fields of one header block that name its host. Of all other fields only the
//! length is kept, which the size of the dynamic table depends on. A block costs its length to decode,
//! whatever its fields refer to.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{huffman, steps};

/// Size of the dynamic table before the peer has sent its settings (RFC 9113 section 6.5.2).
const TABLE_BYTES_MAX: usize = 4096;
/// Added to the size of each entry (RFC 7541 section 4.1).
const ENTRY_BYTES: usize = 32;
/// An integer of more bytes is larger than any block.
const INTEGER_BYTES_MAX: usize = 5;

/// The lengths of the names in the static table (RFC 7541 appendix A). Its values do not matter here.
#[rustfmt::skip]
const STATIC_NAME_BYTES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
const STATIC_AUTHORITY: usize = 1;
const STATIC_METHODS: [usize; 2] = [2, 3];
const STATIC_HOST: usize = 38;

/// The names that are looked for.
const NAMES: [(&[u8], Name); 3] = [
    (b":authority", Name::Authority),
    (b"host", Name::Host),
    (b":method", Name::Method),
];
const NAME_BYTES_MAX: usize = 10;

/// The name of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Authority,
    Host,
    Method,
    Other,
}

/// The block is not valid HPACK.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Calls `each` with the name and the value of every field that is looked for, in order.
///
/// # Errors
/// [`Malformed`], or the error of `each`.
pub(super) fn decode<E: From<Malformed>>(
    block: &[u8],
    mut each: impl FnMut(Name, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut table = Table::default();
    let mut rest = Rest(block);
    let mut has_fields = false;
    while let Some(first) = rest.0.first() {
        steps::count(1);
        if first & 0x80 != 0 {
            let entry = table.entry(rest.integer(7)?)?;
            if entry.name != Name::Other {
                each(entry.name, &entry.value)?;
            }
        } else if first & 0x40 != 0 {
            let entry = rest.literal(6, &table)?;
            if entry.name != Name::Other {
                each(entry.name, &entry.value)?;
            }
            table.insert(entry);
        } else if first & 0x20 != 0 {
            // A size update is allowed only in front of the fields (RFC 7541 section 4.2).
            let bytes_max = rest.integer(5)?;
            if has_fields || bytes_max > TABLE_BYTES_MAX {
                return Err(Malformed.into());
            }
            table.resize(bytes_max);
            continue;
        } else {
            let entry = rest.literal(4, &table)?;
            if entry.name != Name::Other {
                each(entry.name, &entry.value)?;
            }
        }
        has_fields = true;
    }
    if has_fields {
        Ok(())
    } else {
        Err(Malformed.into())
    }
}

/// A field, as it is in the dynamic table.
#[derive(Debug, Clone)]
struct Entry {
    name: Name,
    name_bytes: usize,
    /// Empty where the name is not looked for.
    value: Vec<u8>,
    value_bytes: usize,
}

impl Entry {
    fn table_bytes(&self) -> usize {
        self.name_bytes + self.value_bytes + ENTRY_BYTES
    }
}

/// The dynamic table (RFC 7541 section 2.3.2).
struct Table {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES_MAX,
        }
    }
}

impl Table {
    fn name(&self, index: usize) -> Result<(Name, usize), Malformed> {
        let beyond = index.checked_sub(1).ok_or(Malformed)?;
        if let Some(bytes) = STATIC_NAME_BYTES.get(beyond) {
            let name = match index {
                STATIC_AUTHORITY => Name::Authority,
                STATIC_HOST => Name::Host,
                _ if STATIC_METHODS.contains(&index) => Name::Method,
                _ => Name::Other,
            };
            return Ok((name, usize::from(*bytes)));
        }
        let entry = self.entries.get(beyond - STATIC_NAME_BYTES.len());
        entry
            .map(|entry| (entry.name, entry.name_bytes))
            .ok_or(Malformed)
    }

    fn entry(&self, index: usize) -> Result<Cow<'_, Entry>, Malformed> {
        if let Some(at) = index.checked_sub(1 + STATIC_NAME_BYTES.len()) {
            return self.entries.get(at).map(Cow::Borrowed).ok_or(Malformed);
        }
        let (name, name_bytes) = self.name(index)?;
        // The values do not matter: the static methods are GET and POST, the other names have none.
        Ok(Cow::Owned(Entry {
            name,
            name_bytes,
            value: Vec::new(),
            value_bytes: 0,
        }))
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.table_bytes();
        self.entries.push_front(entry);
        self.resize(self.bytes_max);
    }

    fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.table_bytes();
        }
    }
}

/// The part of the block that is not decoded yet.
struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    /// Decodes an integer that begins with the last `prefix` bits of the next byte (RFC 7541 section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, Malformed> {
        let (first, mut rest) = self.0.split_first().ok_or(Malformed)?;
        let mask = (1usize << prefix) - 1;
        let mut value = usize::from(*first) & mask;
        if value == mask {
            let mut shift = 0;
            loop {
                let (byte, behind) = rest.split_first().ok_or(Malformed)?;
                rest = behind;
                value += usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
                if shift == 7 * (INTEGER_BYTES_MAX - 1) {
                    return Err(Malformed);
                }
            }
        }
        self.0 = rest;
        Ok(value)
    }

    fn literal(&mut self, prefix: u32, table: &Table) -> Result<Entry, Malformed> {
        let (name, name_bytes) = match self.integer(prefix)? {
            0 => {
                let mut begin = [0; NAME_BYTES_MAX];
                let bytes = self.string(|at, byte| {
                    if let Some(place) = begin.get_mut(at) {
                        *place = byte;
                    }
                })?;
                let known = NAMES
                    .iter()
                    .find(|(name, _)| Some(*name) == begin.get(..bytes));
                (known.map_or(Name::Other, |(_, name)| *name), bytes)
            }
            index => table.name(index)?,
        };
        let mut value = Vec::new();
        let is_kept = name != Name::Other;
        let value_bytes = self.string(|_, byte| {
            if is_kept {
                value.push(byte);
            }
        })?;
        Ok(Entry {
            name,
            name_bytes,
            value,
            value_bytes,
        })
    }

    /// Calls `each` with the index and the value of every byte of a string; returns their number.
    fn string(&mut self, mut each: impl FnMut(usize, u8)) -> Result<usize, Malformed> {
        let is_coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (raw, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        let mut count = 0;
        let mut next = |byte| {
            each(count, byte);
            count += 1;
        };
        if is_coded {
            huffman::decode(raw, next).ok_or(Malformed)?;
        } else {
            steps::count(raw.len());
            raw.iter().for_each(|byte| next(*byte));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl From<Malformed> for String {
        fn from(_: Malformed) -> String {
            "malformed".to_owned()
        }
    }

    type Fields = Vec<(Name, Vec<u8>)>;

    fn ours(block: &[u8]) -> Result<Fields, Malformed> {
        let mut fields = Vec::new();
        decode(block, |name, value| {
            fields.push((name, value.to_vec()));
            Ok::<(), Malformed>(())
        })?;
        Ok(fields)
    }

    /// What another implementation finds. It takes size updates of any size anywhere but at the end.
    fn theirs(block: &[u8]) -> Option<Fields> {
        let fields = loona_hpack::Decoder::new().decode(block).ok()?;
        let looked_for = |(name, value): (Vec<u8>, Vec<u8>)| {
            let known = NAMES.iter().find(|(known, _)| *known == name)?.1;
            // The static table's methods have values there.
            Some((known, value))
        };
        Some(fields.into_iter().filter_map(looked_for).collect())
    }

    fn without_static_methods(fields: Fields) -> Fields {
        let is_static = |value: &[u8]| matches!(value, b"" | b"GET" | b"POST");
        fields
            .into_iter()
            .filter(|(name, value)| *name != Name::Method || !is_static(value))
            .collect()
    }

    #[test]
    fn the_table_says_what_is_referred_to() {
        // :authority a, then itself by its place, then its name with b.
        let block = b"\x41\x01a\xbe\x01\x01b\x7e\x01c";
        let authority = |value: &[u8]| (Name::Authority, value.to_vec());
        assert_eq!(
            ours(block),
            Ok(vec![
                authority(b"a"),
                authority(b"a"),
                authority(b"b"),
                authority(b"c")
            ])
        );
        for malformed in [
            &b""[..],
            b"\x80",
            b"\xbe",
            b"\x20",
            b"\x82\x20",
            b"\x3f\xe2\x1f\x82",
            b"\xff\xff\xff\xff\xff\x01",
            b"\x40\x02a",
            b"\x00\x81\xff\x00",
        ] {
            assert_eq!(ours(malformed), Err(Malformed), "{malformed:?}");
        }
        // The largest table that may be said, and none at all.
        assert_eq!(
            ours(b"\x3f\xe1\x1f\x41\x01a\xbe").map(|all| all.len()),
            Ok(2)
        );
        assert_eq!(ours(b"\x20\x41\x01a\xbe"), Err(Malformed));
    }

    /// What is left out of a table was counted as large as it is.
    #[test]
    fn entries_are_as_large_as_they_are() {
        for length in [4096 - 32 - 1, 4096 - 32 - 2, 200] {
            let name = [
                b"\x40\x01x\x7f".to_vec(),
                integer(length - 127),
                vec![b'v'; length],
            ]
            .concat();
            let block = [name, b"\xbe".to_vec()].concat();
            assert_eq!(ours(&block).ok(), theirs(&block), "{length}");
        }
    }

    fn integer(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 128 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    proptest! {
        #[test]
        fn another_implementation_says_the_same(
            fields in prop::collection::vec(
                (
                    0u8..5,
                    prop_oneof![Just(0u8), 1u8..70],
                    "(:authority|host|:method|x{0,12})",
                    "[a-z]{0,9}|CONNECT",
                ),
                0..12,
            ),
        ) {
            let mut block = Vec::new();
            for (kind, index, name, value) in &fields {
                let (flag, prefix_max) = match kind {
                    0 => (0x80, 0x7f),
                    1 | 2 => (0x40, 0x3f),
                    3 => (0x00, 0x0f),
                    _ => (0x10, 0x0f),
                };
                let index = (*index).min(if *kind == 0 { 0x7e } else { prefix_max - 1 });
                block.push(flag | index);
                if *kind > 0 {
                    if index == 0 {
                        block.push(name.len() as u8);
                        block.extend(name.bytes());
                    }
                    block.push(value.len() as u8);
                    block.extend(value.bytes());
                }
            }
            let ours = ours(&block).ok().map(without_static_methods);
            let theirs = theirs(&block).filter(|_| !block.is_empty()).map(without_static_methods);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn any_block(block in prop::collection::vec(any::<u8>(), 0..80)) {
            let has_update = block.iter().any(|byte| byte & 0xe0 == 0x20);
            let ours = ours(&block).ok().map(without_static_methods);
            let theirs = theirs(&block).map(without_static_methods);
            if !has_update && !block.is_empty() {
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
