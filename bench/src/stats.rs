//! Medians and ratios. A ratio is taken between two windows of the same round: from round to round the
//! figures of a machine change by more than the proxies differ.

/// The middle value; the mean of the two middle ones when there are as many above as below. `None`
/// without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Smallest and largest value; `None` without values.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some((low, high))
}

/// Subject divided by peer, for each round that has both values. A round in which the peer's value is zero
/// has no ratio.
pub fn ratios(subject: &[(u32, f64)], peer: &[(u32, f64)]) -> Vec<f64> {
    subject
        .iter()
        .filter_map(|(round, value)| {
            let (_, other) = peer.iter().find(|(other, _)| other == round)?;
            (*other != 0.0).then(|| value / other)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(spread(&[2.0, 9.0, 1.0]), Some((1.0, 9.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn ratios_pair_within_a_round_only() {
        let subject = [(1, 10.0), (2, 30.0), (3, 8.0), (4, 5.0)];
        let peer = [(1, 20.0), (2, 20.0), (4, 0.0), (5, 1.0)];
        assert_eq!(ratios(&subject, &peer), [0.5, 1.5]);
    }
}
