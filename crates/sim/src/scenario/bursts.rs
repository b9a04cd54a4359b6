//! How evenly the upkeep of nodes that started together is spread over time.
//!
//! The same nodes, started in one moment, are told twice: with the prime periods, random
//! phases and jitter of the daemon, and with one period common to everything. What they
//! send in the quiet time after they have all joined is counted in bins of an eighth of a
//! second; the spectrum of the counts shows what is in step.

use std::time::Duration;

use enishi_overlay::config::UpkeepClock;

use super::{Options, Outcome};
use crate::plot::{Axis, Panel, Picture, Series, Style};
use crate::statistics::{Figures, Results, mean, peak_to_mean, rate_of, spectrum, thousandths};
use crate::world::World;

/// How long the measured part lasts if nothing else is asked for: 4,096 bins.
const DURATION: Duration = Duration::from_secs(512);
/// What is counted together.
const BIN: Duration = Duration::from_millis(125);
/// The most bins; the spectrum costs the square of their number.
const BINS_MAX: u32 = 8192;
/// How long joining together takes.
const SETTLING: Duration = Duration::from_secs(240);
/// How much of the counts is drawn beside the spectra.
const SHOWN: usize = 960;

pub(super) fn run(options: &Options, progress: &mut impl FnMut(u32)) -> Outcome {
    let (first, primes) = story(options, UpkeepClock::Primes, &mut |done| progress(done / 2));
    let (world, common) = story(options, UpkeepClock::Common, &mut |done| {
        progress(500 + done / 2);
    });
    let mut figures = Figures::default();
    figures.amount("peak_to_mean_primes", peak_to_mean(&primes));
    figures.amount("peak_to_mean_common", peak_to_mean(&common));
    let spectra = (spectrum(&primes), spectrum(&common));
    let strongest = |spectrum: &[u64]| spectrum.iter().max().map(|height| thousandths(*height));
    figures.amount("strongest_wave_primes", strongest(&spectra.0));
    figures.amount("strongest_wave_common", strongest(&spectra.1));
    let per_second = |bins: &[u64]| mean(bins).map(|mean| mean * rate_of(BIN));
    figures.amount("messages_per_second_primes", per_second(&primes));
    figures.amount("messages_per_second_common", per_second(&common));
    let mut results = Outcome::new(&first, Results::default()).results;
    results.add_run(&Outcome::new(&world, Results::default()).results);
    results.figures = figures;
    Outcome {
        results,
        picture: Some(picture(options, (&primes, &common), spectra)),
    }
}

/// Starts all nodes in one moment; returns how many messages were sent in each bin of the
/// quiet time.
fn story(
    options: &Options,
    clock: UpkeepClock,
    progress: &mut impl FnMut(u32),
) -> (World, Vec<u64>) {
    let mut world = options.world_with(|config| config.upkeep = clock);
    for born in 0..options.nodes {
        let bootstrap = (born > 0).then(|| world.rng().below(born as u64) as usize);
        world.spawn(bootstrap);
    }
    for part in 1..=100 {
        world.run_for(SETTLING / 100);
        progress(part * 4);
    }
    let duration = options.duration.unwrap_or(DURATION);
    let bins = (duration.as_micros() / BIN.as_micros()).clamp(64, u128::from(BINS_MAX)) as u32;
    let mut counts = Vec::new();
    let mut sent = world.counters().messages;
    for bin in 0..bins {
        world.run_for(BIN);
        let now = world.counters().messages;
        counts.push(now - sent);
        sent = now;
        progress(400 + bin * 600 / bins);
    }
    (world, counts)
}

fn picture(options: &Options, bins: (&[u64], &[u64]), spectra: (Vec<u64>, Vec<u64>)) -> Picture {
    let length_ms = bins.0.len() as u64 * BIN.as_millis() as u64;
    // Frequencies in millionths of a hertz.
    let waves = |spectrum: Vec<u64>| {
        let frequency = |i: usize| (i as u64 + 1) * 1_000_000_000 / length_ms;
        let waves = spectrum.into_iter().enumerate();
        waves.map(|(i, height)| (frequency(i), height)).collect()
    };
    let counts = |bins: &[u64]| {
        let bins = bins.iter().take(SHOWN).enumerate();
        let per_second = 1000 / BIN.as_millis() as u64;
        bins.map(|(i, count)| (i as u64 * BIN.as_millis() as u64, count * per_second))
            .collect()
    };
    let (primes, common) = ("prime periods, phase, jitter", "one common period");
    Picture {
        title: options.title("bursts"),
        panels: vec![
            Panel {
                title: "Spectrum".into(),
                x: Axis::new("frequency, Hz", 1_000_000),
                y: Axis::new("amplitude against the mean", 1000).from(0),
                series: vec![
                    Series::new(common, Style::Line, waves(spectra.1)),
                    Series::new(primes, Style::Line, waves(spectra.0)),
                ],
            },
            Panel {
                title: "Messages".into(),
                x: Axis::new("time, s", 1000),
                y: Axis::new("messages per second", 1).from(0),
                series: vec![
                    Series::new(common, Style::Line, counts(bins.1)),
                    Series::new(primes, Style::Line, counts(bins.0)),
                ],
            },
        ],
    }
}
