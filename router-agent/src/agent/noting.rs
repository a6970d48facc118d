//! Takes in what the threads report: for who asks now, and on disk for who asks after a restart.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, warn};

use super::{
    board::{Board, Facts},
    configuration::Configuration,
    driver::Input,
    join,
    report::{News, Report},
    setup, spawn,
};
use crate::{
    history::{self, Entry},
    takeover::notify::Notifier,
};

/// Between two looks for the first packet after an activation, which the kernel stamps.
const FIRST_PACKETS: Duration = Duration::from_millis(100);

pub(super) struct Noting {
    pub board: Arc<Board>,
    stop: oneshot::Sender<()>,
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
    pub(super) async fn stop(self) {
        // It is gone only if it had panicked.
        let _ = self.stop.send(());
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
    mut stopped: oneshot::Receiver<()>,
) {
    // Without a recorder the history ends with this agent, as was said at its start.
    let keep = |entry| {
        let _ = record.send(entry);
    };
    let mut looks = interval(FIRST_PACKETS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            report = reports.recv() => match report {
                Some(report) => {
                    tell(&mut notifiers, &report);
                    board.note(report).into_iter().for_each(keep);
                }
                None => return,
            },
            _ = looks.tick() => board.note_first_packets().into_iter().for_each(keep),
            _ = &mut stopped => break,
        }
    }
    while let Ok(report) = reports.try_recv() {
        board.note(report).into_iter().for_each(keep);
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
