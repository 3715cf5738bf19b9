//! Figures as people read them: medians, quantiles, a line of bars. Pure.

use std::time::Duration;

/// The value below which `part` (0 to 1) of the values lie; 0 of none. Nearest rank, so it is one of the values.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = (part.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1).min(last)]
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Values as bars from zero to the greatest, at most `width` of them, each the mean of its neighbours.
pub fn bars(values: &[f64], width: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if values.is_empty() || width == 0 {
        return String::new();
    }
    let columns = width.min(values.len());
    let means: Vec<f64> = (0..columns)
        .map(|i| {
            let from = i * values.len() / columns;
            let to = ((i + 1) * values.len() / columns).max(from + 1);
            values[from..to].iter().sum::<f64>() / (to - from) as f64
        })
        .collect();
    let greatest = means.iter().copied().fold(0.0, f64::max);
    means
        .iter()
        .map(|v| if greatest <= 0.0 { STEPS[0] } else { STEPS[((v / greatest) * 7.0).round().clamp(0.0, 7.0) as usize] })
        .collect()
}

/// Cores kept busy: CPU time over the time that passed.
pub fn cores(cpu: Duration, passed: Duration) -> f64 {
    if passed.is_zero() { 0.0 } else { cpu.as_secs_f64() / passed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.99), 4.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.0), 1.0);
    }

    #[test]
    fn bars_fit_the_width() {
        assert_eq!(bars(&[0.0, 7.0], 10), "▁█");
        assert_eq!(bars(&[1.0; 100], 5), "█████");
        assert_eq!(bars(&[0.0, 0.0], 2), "▁▁");
        assert_eq!(bars(&[], 5), "");
    }
}
