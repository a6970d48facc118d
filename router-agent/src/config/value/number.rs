//! Numbers, and fields that hold a number or a word.

use super::super::schema::{Status, Word};
use super::super::track::Weight;
use super::{Bad, NOT_YET, Value, bad, choice};

fn with_unit(unit: &str) -> String {
    if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    }
}

pub(super) fn number(word: &str, min: u32, max: u32, unit: &str) -> Result<u32, Bad> {
    let range = format!("{min} to {max}{}", with_unit(unit));
    let digits = word.strip_prefix('-').unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let help = match plain_milliseconds(word) {
            Some(ms) if unit == "milliseconds" => {
                format!("write it in milliseconds, without a unit: `{ms}`")
            }
            _ => format!("write a whole number, {range}"),
        };
        return Err(bad("is not a whole number", help));
    }
    match word.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(bad(
            "is out of range",
            format!("the legal range is {range}"),
        )),
    }
}

pub(super) fn weight(word: &str) -> Result<Weight, Bad> {
    let most = Weight::MOST;
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(
            "is not a whole number",
            format!("write a whole number, -{most} to {most}"),
        ));
    }
    word.parse().ok().and_then(Weight::new).ok_or_else(|| {
        bad(
            "is out of range",
            format!("the legal range is -{most} to {most}"),
        )
    })
}

/// What is meant by `200ms` or `3s`.
fn plain_milliseconds(word: &str) -> Option<u32> {
    if let Some(ms) = word.strip_suffix("ms") {
        ms.parse().ok()
    } else {
        word.strip_suffix('s')?
            .parse::<u32>()
            .ok()?
            .checked_mul(1_000)
    }
}

pub(super) fn number_or(
    word: &str,
    min: u32,
    max: u32,
    words: &'static [Word],
) -> Result<Value, Bad> {
    if begins_a_number(word) {
        return number(word, min, max, "").map(Value::Number);
    }
    word_instead(word, words, &format!("{min} to {max}"))
}

/// A field of `width` bits, at most 31.
pub(super) fn bits_or(word: &str, width: u32, words: &'static [Word]) -> Result<Value, Bad> {
    let max = (1_u32 << width) - 1;
    let Some(digits) = word.strip_prefix("0x") else {
        if begins_a_number(word) {
            return number(word, 0, max, "").map(Value::Number);
        }
        return word_instead(word, words, &format!("0 to {max} or 0x0 to {max:#x}"));
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad(
            "is not a hexadecimal number",
            format!("write 0x and hexadecimal digits, 0x0 to {max:#x}"),
        ));
    }
    match u32::from_str_radix(digits, 16) {
        Ok(number) if number <= max => Ok(Value::Number(number)),
        _ => Err(bad(
            "is out of range",
            format!("the legal range is 0x0 to {max:#x}"),
        )),
    }
}

fn begins_a_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

/// One of the `words` where a number could be too.
fn word_instead(word: &str, words: &'static [Word], range: &str) -> Result<Value, Bad> {
    choice(word, words).map(Value::Word).map_err(|error| {
        let mut legal = format!("write a whole number, {range}");
        for known in words.iter().filter(|w| w.status == Status::Supported) {
            legal.push_str(", or `");
            legal.push_str(known.word);
            legal.push('`');
        }
        if error.reason == NOT_YET {
            bad(error.reason, legal)
        } else {
            bad("is not a whole number", legal)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(number("0", 0, u32::MAX, ""), Ok(0));
        assert_eq!(number("4294967295", 0, u32::MAX, ""), Ok(u32::MAX));
        for out in ["4294967296", "-1", "99999999999999999999"] {
            assert_eq!(
                number(out, 0, u32::MAX, "").unwrap_err().reason,
                "is out of range"
            );
        }
        for wrong in ["", "-", "+5", "1.5", "0x10", "٣"] {
            assert_eq!(
                number(wrong, 0, 9, "").unwrap_err().reason,
                "is not a whole number"
            );
        }
        assert!(
            number("3s", 1, 29_999, "milliseconds")
                .unwrap_err()
                .help
                .contains("`3000`")
        );
    }

    #[test]
    fn weights_have_a_sign() {
        for (word, value) in [("-253", -253), ("-0", 0), ("0", 0), ("20", 20), ("+20", 20)] {
            assert_eq!(Some(weight(word).unwrap()), Weight::new(value), "{word}");
        }
        for out in ["-254", "254", "99999999"] {
            assert_eq!(weight(out).unwrap_err().reason, "is out of range");
        }
        for wrong in ["", "-", "--1", "1.5", "low"] {
            assert_eq!(weight(wrong).unwrap_err().reason, "is not a whole number");
        }
    }

    #[test]
    fn bits_are_decimal_or_hexadecimal() {
        let label = |word| bits_or(word, 20, &[]);
        for (word, value) in [
            ("0", 0),
            ("1048575", 0xf_ffff),
            ("0x0", 0),
            ("0xFfFfF", 0xf_ffff),
            ("0x000012345", 0x1_2345),
        ] {
            assert_eq!(label(word), Ok(Value::Number(value)), "{word}");
        }
        for out in ["1048576", "-1", "0x100000", "0xfffffffffffffffff"] {
            assert_eq!(label(out).unwrap_err().reason, "is out of range", "{out}");
        }
        for wrong in ["0x", "0xg", "0x-1", "0x+1", "ff", "0X1"] {
            assert!(
                label(wrong).unwrap_err().reason.starts_with("is not a"),
                "{wrong}"
            );
        }
    }
}
