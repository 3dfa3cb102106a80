//! Sizes: bytes as numbers, and the words people write for them.

/// Units of sizes, largest first.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TIB", 1 << 40),
    ("GIB", 1 << 30),
    ("MIB", 1 << 20),
    ("KIB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size such as `512MiB`, `2GB` or `4096`; returns bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let refused =
        || format!("'{text}' is not a size: write bytes, or a number with KiB, MiB or GiB");
    let capitals = text.trim().to_ascii_uppercase();
    let (number, unit) = SIZE_UNITS
        .iter()
        .find_map(|&(name, unit)| capitals.strip_suffix(name).map(|n| (n, unit)))
        .unwrap_or((&capitals, 1));
    let number: u64 = number.trim().parse().map_err(|_| refused())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("'{text}' is too large"))
}

/// A size as [`parse_size`] reads it, in the largest binary unit that loses nothing.
pub(crate) fn size_word(bytes: u64) -> String {
    let (name, unit) = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|&(_, unit)| bytes >= unit && bytes.is_multiple_of(unit))
        .unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("4096", 4096),
            ("8KiB", 8192),
            ("1 MiB", 1 << 20),
            ("2gb", 2_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        assert_eq!(
            (size_word(1 << 20), size_word(1_000), size_word(3 << 30)),
            ("1MiB".into(), "1000B".into(), "3GiB".into())
        );
    }
}
