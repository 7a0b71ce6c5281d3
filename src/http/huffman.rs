//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B). It is a canonical code: the codes of
//! one length are consecutive and in the order of their symbols, so that their lengths define it.

use std::sync::LazyLock;

use super::steps;

const SYMBOLS: usize = 256;
/// The end-of-string symbol, which no string may hold.
const END: usize = SYMBOLS;
const BITS_MAX: usize = 30;
/// Most bits behind the last symbol; all of them are set.
const PADDING_BITS_MAX: u32 = 7;

/// Bits in the code of each byte, and of the end.
#[rustfmt::skip]
const CODE_BITS: [u8; SYMBOLS + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The codes of one length.
#[derive(Clone, Copy, Default)]
struct Length {
    bits: u32,
    first_code: u32,
    /// One more than the last code.
    codes_end: u32,
    /// Where in [`Code::symbols`] the symbol of the first code is.
    symbols_at: usize,
}

/// Computed once, for the whole process.
struct Code {
    /// In ascending order, without the lengths that no code has.
    lengths: Vec<Length>,
    symbols: Vec<usize>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut code = Code {
        lengths: Vec::new(),
        symbols: Vec::with_capacity(CODE_BITS.len()),
    };
    let mut next = 0u32;
    for bits in 1..=BITS_MAX {
        next <<= 1;
        let symbols_at = code.symbols.len();
        let of_length = (0..CODE_BITS.len()).filter(|at| usize::from(CODE_BITS[*at]) == bits);
        code.symbols.extend(of_length);
        let count = (code.symbols.len() - symbols_at) as u32;
        if count > 0 {
            code.lengths.push(Length {
                bits: bits as u32,
                first_code: next,
                codes_end: next + count,
                symbols_at,
            });
        }
        next += count;
    }
    code
});

/// Calls `each` with every byte of the string; `None` when it is not valid.
pub(super) fn decode(coded: &[u8], mut each: impl FnMut(u8)) -> Option<()> {
    let code = &*CODE;
    // The next bits are the highest ones; `held` of them are valid.
    let mut window = 0u64;
    let mut held = 0u32;
    let mut rest = coded.iter();
    loop {
        while held <= 56
            && let Some(byte) = rest.next()
        {
            window |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        steps::count(1);
        let found = code.lengths.iter().find(|length| {
            let head = (window >> (64 - length.bits)) as u32;
            head < length.codes_end
        });
        match found {
            Some(length) if length.bits <= held => {
                let head = (window >> (64 - length.bits)) as u32;
                let symbol = code.symbols[length.symbols_at + (head - length.first_code) as usize];
                if symbol == END {
                    return None;
                }
                each(symbol as u8);
                window <<= length.bits;
                held -= length.bits;
            }
            _ => break,
        }
    }
    let is_ones = held == 0 || window >> (64 - held) == (1 << held) - 1;
    (held <= PADDING_BITS_MAX && is_ones).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        decode(coded, |byte| bytes.push(byte)).map(|()| bytes)
    }

    fn coded(bytes: &[u8]) -> Vec<u8> {
        let code = &*CODE;
        let mut bits = String::new();
        for byte in bytes {
            let place = code.symbols.iter().position(|at| *at == usize::from(*byte));
            let place = place.expect("every byte has a code");
            let is_of = |length: &&Length| length.symbols_at <= place;
            let length = code.lengths.iter().rfind(is_of).expect("and a length");
            let number = length.first_code as usize + place - length.symbols_at;
            bits += &format!("{number:0width$b}", width = length.bits as usize);
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc() {
        for (code, want) in [
            (
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\x64\x02", "302"),
            (b"", ""),
        ] {
            assert_eq!(decoded(code).as_deref(), Some(want.as_bytes()));
            assert_eq!(coded(want.as_bytes()), code);
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for code in [
            // A whole byte of padding, padding that is not of ones, the end of the string.
            &b"\xff"[..],
            b"\x64\x02\xff",
            b"\x60",
            b"\xff\xff\xff\xff",
            b"\xff\xff\xff\xfc",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(decoded(code), None, "{}", code.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let code = coded(&bytes);
            prop_assert_eq!(decoded(&code), Some(bytes));
        }

        /// Another implementation says the same.
        #[test]
        fn any_bytes(code in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..20)) {
            let theirs = loona_hpack::huffman::HuffmanDecoder::new().decode(&code).ok();
            prop_assert_eq!(decoded(&code), theirs);
        }
    }
}
