//! Takes in what the threads report: for who asks now, and on disk for who asks after a restart.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, warn};

use super::{
    board::{Board, Facts},
    configuration::Configuration,
    driver::Input,
    report::{News, Report},
    setup,
    threads::{join, spawn},
};
use crate::{
    history::{self, Entry},
    takeover::notify::Notifier,
};

/// Between two looks for the first packet after an activation, which the kernel stamps.
const FIRST_PACKETS: Duration = Duration::from_millis(100);

/// How long a stop waits for the scripts that are told of changes of state.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What becomes of the scripts that have not heard all yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scripts {
    /// They hear of the stop.
    HearAll,
    /// They are killed: another agent waits to take this one's place.
    AreLeft,
}

pub(super) struct Noting {
    pub board: Arc<Board>,
    stop: oneshot::Sender<Scripts>,
    task: task::JoinHandle<()>,
    /// Writes the history down as long as reports are noted. None if it cannot be kept.
    recorder: Option<JoinHandle<()>>,
}

impl Noting {
    /// Reads what the agents before this one recorded, and goes on from there.
    pub(super) fn start(
        facts: Facts,
        configuration: Arc<Configuration>,
        directory: &Path,
        inbox: mpsc::Sender<Input>,
        reports: UnboundedReceiver<Report>,
        ended: &UnboundedSender<&'static str>,
    ) -> Result<Self> {
        let before = history::read(directory).unwrap_or_else(|error| {
            warn!(%error, "the history in {} cannot be read", directory.display());
            Vec::new()
        });
        let (record, entries) = mpsc::channel();
        // A history that cannot be kept is no reason not to route.
        let recorder = match history::Recorder::open(directory) {
            Ok(recorder) => Some(spawn("history", ended, move || recorder.run(&entries))?),
            Err(error) => {
                warn!(
                    %error,
                    "the history will be gone when this agent ends: it cannot be kept in {}",
                    directory.display()
                );
                None
            }
        };
        let board = Arc::new(Board::new(facts, configuration, before, inbox));
        let (stop, stopped) = oneshot::channel();
        let notifiers = setup::notifiers(&board.facts().config);
        let task = tokio::spawn(note(
            Arc::clone(&board),
            notifiers,
            reports,
            record,
            stopped,
        ));
        Ok(Self {
            board,
            stop,
            task,
            recorder,
        })
    }

    /// Ends when all is written that was reported before.
    pub(super) async fn stop(self, scripts: Scripts) {
        // It is gone only if it had panicked.
        let _ = self.stop.send(scripts);
        if self.task.await.is_err() {
            error!("the end of the history is lost");
        }
        join(self.recorder.into_iter().collect()).await;
    }
}

/// Until it is stopped and all is noted that was reported before.
async fn note(
    board: Arc<Board>,
    mut notifiers: Vec<Option<Notifier>>,
    mut reports: UnboundedReceiver<Report>,
    record: mpsc::Sender<Entry>,
    mut stopped: oneshot::Receiver<Scripts>,
) {
    // Without a recorder the history ends with this agent, as was said at its start.
    let keep = |entry| {
        let _ = record.send(entry);
    };
    let mut take_in = |report| {
        tell(&mut notifiers, &report);
        board.note(report).into_iter().for_each(keep);
    };
    let mut looks = interval(FIRST_PACKETS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let scripts = loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(report) => take_in(report),
                None => break (&mut stopped).await,
            },
            _ = looks.tick() => board.note_first_packets().into_iter().for_each(keep),
            scripts = &mut stopped => break scripts,
        }
    };
    while let Ok(report) = reports.try_recv() {
        take_in(report);
    }
    if scripts == Ok(Scripts::HearAll) {
        let told = join_all(notifiers.into_iter().flatten().map(Notifier::finish));
        if timeout(LAST_WORDS, told).await.is_err() {
            warn!("a notify script is still running after {LAST_WORDS:?}, and is killed");
        }
    }
}

/// Tells a group's script of a change of its state.
fn tell(notifiers: &mut [Option<Notifier>], report: &Report) {
    if let News::Transition(decided) = &report.news
        && let Some(notifier) = &mut notifiers[report.group]
    {
        notifier.tell(decided.transition);
    }
}
