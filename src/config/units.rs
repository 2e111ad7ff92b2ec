//! Durations and sizes as people write them: a whole number and a unit, and back.

use std::time::Duration;

/// Milliseconds in each unit of time, the largest first.
pub(super) const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes in each binary unit, the largest first: what sizes are printed in.
pub(super) const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes in each decimal unit.
pub(super) const DECIMAL: [(&str, u64); 6] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000), ("kB", 1_000), ("B", 1)];

/// Reads `500ms`, `5s`, `2m`, `1h` or `1d`.
///
/// # Errors
/// What is wrong with `text`, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let not_one = || "is not a duration; write a number and a unit, like `500ms` or `5s`".to_owned();
    let (number, unit) = split(text).ok_or_else(not_one)?;
    let (_, milliseconds) = TIME.into_iter().find(|(name, _)| *name == unit).ok_or_else(not_one)?;
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    total.map(Duration::from_millis).ok_or_else(|| "is longer than any duration; write one like `5s`".to_owned())
}

/// Reads `64KiB`, `10MiB`, `1GiB`, `6MB` (decimal), or a plain number of bytes.
///
/// # Errors
/// What is wrong with `text`, and what to write instead.
pub fn size(text: &str) -> Result<u64, String> {
    let not_one = || "is not a size; write a number and a unit, like `64KiB` or `10MiB`".to_owned();
    let (number, unit) = split(text).ok_or_else(not_one)?;
    let bytes = match unit {
        "" => 1,
        unit => BINARY.into_iter().chain(DECIMAL).find(|(name, _)| *name == unit).ok_or_else(not_one)?.1,
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes));
    total.ok_or_else(|| "is larger than any size; write one like `10MiB`".to_owned())
}

/// `duration` as [`duration`] reads it, in the largest unit that holds it whole.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match TIME.into_iter().find(|(_, size)| milliseconds > 0 && milliseconds.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", milliseconds / size),
        None => "0s".to_owned(),
    }
}

/// `bytes` as [`size`] reads it, in the largest unit that holds it whole.
pub fn show_size(bytes: u64) -> String {
    let whole = BINARY.into_iter().chain(DECIMAL).find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    match whole {
        Some((unit, size)) if unit != "B" => format!("{}{unit}", bytes / size),
        _ => bytes.to_string(),
    }
}

/// A number and what follows it; `None` where it does not start with one.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "5", "5x", "s", "1.5s", "-1s", "5 s", "5S", "٣s", "99999999999999999999s", "999999999999999999d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_decimal_or_plain() {
        for (text, bytes) in [
            ("0", 0),
            ("6291456", 6_291_456),
            ("64KiB", 65_536),
            ("10MiB", 10_485_760),
            ("1GiB", 1_073_741_824),
            ("6MB", 6_000_000),
            ("1kB", 1_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "10 MiB", "10mib", "10M", "99999999999TiB", "99999999999999999999"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_printed_in_the_largest_whole_unit() {
        for (milliseconds, text) in [(0, "0s"), (1_500, "1500ms"), (90_000, "90s"), (120_000, "2m"), (86_400_000, "1d")]
        {
            assert_eq!(show_duration(Duration::from_millis(milliseconds)), text);
        }
        for (bytes, text) in [(0, "0"), (1_023, "1023"), (6_291_456, "6MiB"), (6_000_000, "6MB"), (65_536, "64KiB")] {
            assert_eq!(show_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = duration(&text);
            let _ = size(&text);
        }

        #[test]
        fn what_is_printed_is_read_back(number in any::<u64>()) {
            let time = Duration::from_millis(number);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(number)), Ok(number));
        }
    }
}
