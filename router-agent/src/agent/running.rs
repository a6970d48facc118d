//! A running agent, until it ends.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use anyhow::{Result, anyhow};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::sleep,
};
use tracing::{error, info};

use super::{
    Ending,
    doors::Doors,
    driver::Input,
    noting::{Noting, Scripts},
    program_log,
    pulse::{BEAT, Pulse},
    start::Started,
    supervisor::Supervisor,
    threads,
};
use crate::{clock, dataplane::Dataplane, slow_path::SlowPath};

/// The threads at work.
pub struct Running {
    pub inbox: mpsc::Sender<Input>,
    /// The takeover thread shall leave the services where they are.
    pub keeps_services: Arc<AtomicBool>,
    pub slow_path: SlowPath,
    pub threads: Vec<JoinHandle<()>>,
    pub noting: Noting,
    /// Names of threads that have ended, in order or not.
    pub ended: UnboundedReceiver<&'static str>,
}

impl Running {
    /// Ends all threads. To leave, they release what is held and tell the peers.
    async fn stop(self, ending: &Ending) {
        let (input, scripts) = match ending {
            Ending::Leave => (Input::Stop, Scripts::HearAll),
            Ending::Detach | Ending::Succeed(_) => {
                self.keeps_services.store(true, Ordering::Relaxed);
                (Input::Detach, Scripts::AreLeft)
            }
        };
        // A clock thread that has ended has nothing to stop.
        let _ = self.inbox.send(input);
        drop(self.slow_path);
        threads::join(self.threads).await;
        // Those that report have ended.
        self.noting.stop(scripts).await;
    }
}

/// Works until `stop`, or until a thread ends, and removes programs and maps unless they shall
/// stay.
pub async fn run_until(
    stop: impl Future<Output = (&'static str, Ending)>,
    started: Started,
    dataplane: Dataplane,
    doors: Doors,
    bpffs: &Path,
) -> Result<Ending> {
    let Started {
        mut running,
        keeper,
        path_mtus,
        pulses,
    } = started;
    let mut servers = doors.serve(running.noting.board.clone());
    servers.spawn(program_log::forward(&dataplane, &running.noting.board));
    let (stop_keeper, stopped) = oneshot::channel();
    let mut keeper = tokio::spawn(keeper.run(dataplane, path_mtus, stopped));
    let main = Pulse::new("main", clock::now());
    servers.spawn(beat(main.clone()));
    let [probes, takeover] = pulses;
    let releasing = takeover.clone();
    let pulses = vec![probes, takeover, main];
    let supervisor = Supervisor::tell(running.noting.board.clone(), pulses, releasing);
    info!("running");
    let outcome = tokio::select! {
        (reason, ending) = stop => {
            info!(reason, "stopping");
            Ok(ending)
        }
        Some(name) = running.ended.recv() => Err(anyhow!("thread {name} has ended")),
        _ = &mut keeper => {
            running.stop(&Ending::Leave).await;
            servers.abort_all();
            Dataplane::remove_left_over(bpffs)?;
            return Err(anyhow!("the keeper of the tunnels has ended"));
        }
    };
    let ending = outcome.as_ref().unwrap_or(&Ending::Leave);
    supervisor.agent_ends(ending);
    running.stop(ending).await;
    servers.abort_all();
    // One that has panicked need not hear.
    let _ = stop_keeper.send(());
    let handed_back = keeper.await;
    match ending {
        Ending::Detach | Ending::Succeed(_) => return outcome,
        Ending::Leave => {}
    }
    let removed = if let Ok(dataplane) = handed_back {
        dataplane.remove()
    } else {
        error!("the keeper of the tunnels had panicked");
        Dataplane::remove_left_over(bpffs)
    };
    removed.and(outcome)
}

/// Says again and again that the runtime of this thread goes round.
async fn beat(pulse: Pulse) {
    loop {
        pulse.beat(clock::now());
        sleep(BEAT).await;
    }
}
