//! The kernel's lists of processors and nodes, such as `0-2,8`.

#![forbid(unsafe_code)]

/// The numbers of a list, in its order; what cannot be read is left out.
pub(crate) fn parse(list: &str) -> Vec<u16> {
    list.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_are_read() {
        assert_eq!(parse("0\n"), [0]);
        assert_eq!(parse("0-2,8"), [0, 1, 2, 8]);
        assert_eq!(parse(""), [0_u16; 0]);
        assert_eq!(parse("x,3"), [3]);
    }
}
