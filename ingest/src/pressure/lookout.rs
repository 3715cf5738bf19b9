//! Sees a full disk coming: says so well before [`super::Gate`] closes the door, so that old days can leave PostgreSQL first.

use super::{Config, Probe, Reading};
use super::monitor::size;

/// Reads the same probes as the monitor, against marks further up.
pub struct Lookout {
    config: Config,
    probes: Vec<Box<dyn Probe>>,
    pressed: Vec<bool>,
}

impl std::fmt::Debug for Lookout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookout").field("pressed", &self.pressed).finish_non_exhaustive()
    }
}

impl Lookout {
    pub fn new(config: Config, probes: Vec<Box<dyn Probe>>) -> Lookout {
        let pressed = vec![false; probes.len()];
        Lookout { config, probes, pressed }
    }

    /// Why room should be made, if it should. What cannot be measured presses nobody.
    pub async fn pressed(&mut self) -> Option<String> {
        let mut reason = None;
        for (probe, pressed) in self.probes.iter_mut().zip(&mut self.pressed) {
            let Ok(reading) = probe.read().await else { continue };
            let wanted = wanted(&self.config, &reading, *pressed);
            *pressed = reading.free < wanted;
            if *pressed && reason.is_none() {
                let (free, total, wanted) = (size(reading.free), size(reading.total), size(wanted));
                reason = Some(format!("{} fills up: {free} of {total} are free, and {wanted} are wanted", probe.place()));
            }
        }
        reason
    }
}

/// Free bytes below which room is made; once it is being made, until there is a third more.
fn wanted(config: &Config, reading: &Reading, pressed: bool) -> u64 {
    let (close, _) = config.marks(reading.total);
    if pressed { close * 4 } else { close * 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_before_the_door_closes_and_a_little_more_of_it() {
        let config = Config { min_free_bytes: 10, min_free_ratio: 0.02, ..Config::default() };
        let reading = Reading { free: 0, total: 10_000 };
        let (close, open) = config.marks(reading.total);
        assert!(wanted(&config, &reading, false) > open && open > close);
        assert!(wanted(&config, &reading, true) > wanted(&config, &reading, false));
    }
}
