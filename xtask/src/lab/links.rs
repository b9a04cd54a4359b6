//! What the links of the lab are like.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::Context as _;
use enishi_lab::wire::LinkKind;
use serde_json::{Value, json};

use crate::options::Options;

/// How long a packet takes to a public host or to a router, each way, unless that is said: 20 ms
/// between two of them, and a round trip of 40.
const DELAY_MS: u16 = 10;
/// The longest that may be said: nearly twice what a packet takes by a geostationary satellite
/// (RFC 2488, section 2).
const DELAY_MS_MAX: u16 = 500;
/// The most that may get lost on one link: of round trips over four of them one in sixteen is left.
const LOSS_PERCENT_MAX: f64 = 50.0;
const PPM_OF_PERCENT: f64 = 10_000.0;

/// Of how many links a round trip by way of a third one is made.
const LINKS_OF_ROUND_TRIP: u32 = 8;

/// What each link between a public host, or a router, and the Internet is like, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    delay_ms: u16,
    loss_ppm: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay_ms: DELAY_MS,
            loss_ppm: 0,
        }
    }
}

impl Links {
    /// Takes `--delay MS` and `--loss PERCENT`.
    ///
    /// # Errors
    /// When one of them is no number, or out of bounds: 500 ms and 50 %.
    pub(super) fn taken(options: &mut Options) -> anyhow::Result<Self> {
        let mut links = Self::default();
        if let Some(text) = options.value("--delay")? {
            let delay = text.parse().ok().filter(|ms| *ms <= DELAY_MS_MAX);
            links.delay_ms = delay.with_context(|| {
                format!("--delay needs whole milliseconds from 0 to {DELAY_MS_MAX}, not `{text}`")
            })?;
        }
        if let Some(text) = options.value("--loss")? {
            let loss = text.parse().ok();
            let loss = loss.filter(|percent| (0.0..=LOSS_PERCENT_MAX).contains(percent));
            let loss: f64 = loss.with_context(|| {
                format!("--loss needs per cent from 0 to {LOSS_PERCENT_MAX}, not `{text}`")
            })?;
            links.loss_ppm = (loss * PPM_OF_PERCENT).round() as u32;
        }
        Ok(links)
    }

    /// Returns them as the lab makes them.
    pub(super) fn kind(self) -> LinkKind {
        LinkKind {
            loss_ppm: self.loss_ppm,
            ..LinkKind::of_delay(Duration::from_millis(self.delay_ms.into()))
        }
    }

    /// Returns how many seconds an answer is waited for: a second longer than it may take by way of a
    /// third node.
    pub(super) fn answer_s(self) -> u64 {
        let round_trip = self.kind().delay * LINKS_OF_ROUND_TRIP;
        1 + round_trip.as_secs()
    }

    /// Returns `{delay_ms, loss_percent}`.
    pub(super) fn to_json(self) -> Value {
        json!({ "delay_ms": self.delay_ms, "loss_percent": self.loss_percent() })
    }

    fn loss_percent(self) -> f64 {
        f64::from(self.loss_ppm) / PPM_OF_PERCENT
    }
}

impl Display for Links {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (delay, loss) = (self.delay_ms, self.loss_percent());
        write!(f, "links take {delay} ms and lose {loss} %, each way")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> anyhow::Result<Links> {
        let mut options = Options::new(text.split_whitespace().map(str::to_owned).collect());
        let links = Links::taken(&mut options)?;
        options.finish()?;
        Ok(links)
    }

    #[test]
    fn links_are_as_they_are_asked_for() {
        let usual = taken("").unwrap();
        assert_eq!(usual.kind(), LinkKind::of_delay(Duration::from_millis(10)));
        assert_eq!(usual.answer_s(), 1);
        let slow = taken("--loss=2.5 --delay 300").unwrap();
        assert_eq!(slow.kind().delay, Duration::from_millis(300));
        assert_eq!(slow.kind().loss_ppm, 25_000);
        assert_eq!(slow.answer_s(), 3);
        assert_eq!(
            slow.to_string(),
            "links take 300 ms and lose 2.5 %, each way"
        );
        let told = json!({ "delay_ms": 300, "loss_percent": 2.5 });
        assert_eq!(slow.to_json(), told);
        let most = taken("--delay 500 --loss 50").unwrap();
        assert_eq!(most.kind().loss_ppm, 500_000);
        assert_eq!(
            taken("--delay 0 --loss 0").unwrap().kind().delay,
            Duration::ZERO
        );
    }

    #[test]
    fn nonsense_is_refused_and_what_is_possible_is_said() {
        for text in ["501", "-1", "1.5", "10ms", "99999999999"] {
            let error = taken(&format!("--delay {text}")).unwrap_err().to_string();
            assert!(
                error.contains("from 0 to 500") && error.contains(text),
                "{error}"
            );
        }
        for text in ["50.1", "-0.1", "NaN", "inf", "1%"] {
            let error = taken(&format!("--loss {text}")).unwrap_err().to_string();
            assert!(
                error.contains("from 0 to 50") && error.contains(text),
                "{error}"
            );
        }
        assert!(taken("--delay").is_err());
        assert!(taken("--loss").is_err());
    }
}
