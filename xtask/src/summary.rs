//! Reading the summaries of the test runners.

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed, ran out of time or could not be started.
    pub(crate) failed: u32,
}

/// Whose output is read. Nextest repeats the output of failed tests, summaries of
/// cargo's own runner among it, which would count them twice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Runner {
    /// `cargo test`
    Cargo,
    /// `cargo nextest run`
    Nextest,
}

impl Counts {
    /// Reads one line of a runner's output and adds what a summary line says.
    pub(crate) fn read_line(&mut self, runner: Runner, line: &str) {
        let found = match runner {
            Runner::Cargo => cargo_test(line),
            Runner::Nextest => nextest(line),
        };
        self.add(found.unwrap_or_default());
    }

    /// Adds another count.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`, one per binary.
fn cargo_test(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    Some(tally(rest.split(';')))
}

/// `Summary [ 1.2s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 0 skipped`,
/// one per run. Nextest prints tests that were never started (`3/5 tests run`) apart.
fn nextest(line: &str) -> Option<Counts> {
    let rest = line.trim().strip_prefix("Summary [")?;
    let (_, rest) = rest.split_once("run: ")?;
    let mut depth = 0_u32;
    let outside: String = rest
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect();
    Some(tally(outside.split(',')))
}

/// Adds up parts such as `3 passed`, `1 failed`, `2 timed out`.
fn tally<'a>(parts: impl Iterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::default();
    for part in parts {
        let mut words = part.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u32>().ok()) else {
            continue;
        };
        match words.collect::<Vec<_>>().join(" ").as_str() {
            "passed" => counts.passed += number,
            "failed" | "timed out" | "exec failed" => counts.failed += number,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(runner: Runner, text: &str) -> (u32, u32) {
        let mut counts = Counts::default();
        text.lines().for_each(|line| counts.read_line(runner, line));
        (counts.passed, counts.failed)
    }

    #[test]
    fn adds_the_binaries_of_cargo_test() {
        let text = "\
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(read(Runner::Cargo, text), (7, 2));
        assert_eq!(read(Runner::Nextest, text), (0, 0));
    }

    #[test]
    fn reads_the_summary_of_nextest() {
        let well = "     Summary [   0.010s] 3 tests run: 3 passed, 2 skipped";
        assert_eq!(read(Runner::Nextest, well), (3, 0));
        let ill = "     Summary [   9.1s] 9/12 tests run: 4 passed (1 slow, 1 leaky), \
                   2 failed, 2 timed out, 1 exec failed, 3 skipped";
        assert_eq!(read(Runner::Nextest, ill), (4, 5));
    }

    #[test]
    fn other_lines_say_nothing() {
        let text = "running 3 tests\n3 passed\n  PASS [ 0.1s] x";
        assert_eq!(read(Runner::Cargo, text), (0, 0));
        assert_eq!(read(Runner::Nextest, text), (0, 0));
    }
}
