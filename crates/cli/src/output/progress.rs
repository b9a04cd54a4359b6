//! A sign of life while something takes long.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::Output;
use crate::text::Message;

/// What takes less than this gets no spinner.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// How often the spinner turns.
const TURN_TIME: Duration = Duration::from_millis(100);

/// A spinner on standard error while this value lives: only for a person, and only
/// from the second second on.
#[derive(Debug)]
pub(crate) struct Progress(Option<JoinHandle<()>>);

impl Progress {
    /// Begins to count the time.
    pub(crate) fn start(out: &Output, message: &Message<'_>) -> Self {
        if out.json || !io::stderr().is_terminal() {
            return Self(None);
        }
        let text = out.text(message);
        Self(Some(tokio::spawn(async move {
            tokio::time::sleep(QUIET_TIME).await;
            let bar = Cleared(ProgressBar::new_spinner().with_message(text));
            bar.0.enable_steady_tick(TURN_TIME);
            std::future::pending::<()>().await;
        })))
    }

    /// Takes the spinner off the terminal, so that text can follow.
    pub(crate) async fn stop(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            // Cancelled is what it is to be.
            let _ = task.await;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A bar of so many parts with the time that is left, for a person alone.
pub(crate) fn bar(out: &Output, parts: u64) -> ProgressBar {
    if out.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let times = out.text(&Message::Times {
        elapsed: "{elapsed}",
        left: "{eta}",
    });
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{percent:>3}} %  {times}"));
    let bar = ProgressBar::new(parts);
    // Some parts take long, and still it is to be seen that time goes by.
    bar.enable_steady_tick(Duration::from_secs(1));
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Wipes the spinner however its task ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
