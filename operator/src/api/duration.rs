//! A duration as users write it (`1m30s`) in, milliseconds out; never written back.

/// What a duration looks like.
pub const PATTERN: &str = "^([0-9]+(ms|s|m|h))+$";

/// Milliseconds of a duration such as `1s`, `250ms` or `1m30s`.
pub fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at_checked(digits)?;
        let (factor, after) = if let Some(after) = unit.strip_prefix("ms") {
            (1, after)
        } else if let Some(after) = unit.strip_prefix('s') {
            (1_000, after)
        } else if let Some(after) = unit.strip_prefix('m') {
            (60_000, after)
        } else {
            (3_600_000, unit.strip_prefix('h')?)
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_their_users_mean_them() {
        for (text, expected) in [
            ("1s", Some(1_000)),
            ("250ms", Some(250)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
    }
}
