//! What the tests of both ends share: a source with known answers and a place for sockets.

use std::{
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{
    permission::Access,
    protocol::{
        ConfigurationStatus, Configured, Configuring, Force, ForceBegun, HeartbeatStatus,
        InterfaceStatus, LogLine, LogWanted, Rotation, SessionRotation, Status, TunnelStatus,
    },
    server::{Limits, SharedSource, Source, Step, Verdict, bind, serve_within},
};
use crate::cluster::Refusal;
use crate::config::{Origin, Secrets, Statement};
use futures::future::{BoxFuture, FutureExt as _, ready};

/// Answers with a node's name and nothing else.
#[derive(Default)]
pub struct Fixed {
    /// Who asks for the status waits until so many do.
    pub meeting: Option<Barrier>,
}

impl Source for Fixed {
    fn status(&self) -> Status {
        if let Some(meeting) = &self.meeting {
            meeting.wait();
        }
        Status {
            node: "vyatta-a".to_owned(),
            ..Status::default()
        }
    }

    fn tunnels(&self) -> Vec<TunnelStatus> {
        vec![TunnelStatus {
            name: "tun00".to_owned(),
            ..TunnelStatus::default()
        }]
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        vec![InterfaceStatus::default()]
    }

    fn heartbeat(&self) -> Vec<HeartbeatStatus> {
        vec![HeartbeatStatus::default()]
    }

    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Vec<SessionRotation>, String>> {
        ready(match rotation {
            Rotation::Begin(_) => Ok(vec![SessionRotation::default()]),
            Rotation::Finish { .. } => Err("no change is under way".to_owned()),
        })
        .boxed()
    }

    fn force(&self, force: &Force) -> Result<(ForceBegun, oneshot::Receiver<Verdict>), String> {
        let (decide, decided) = oneshot::channel();
        let begun = ForceBegun {
            group: force.group.clone().ok_or("name a group")?,
            text: "begun".to_owned(),
        };
        let verdict = if force.i_know {
            Ok(())
        } else {
            Err(Refusal::Starting)
        };
        let _ = decide.send(verdict);
        Ok((begun, decided))
    }

    fn configuration(&self, secrets: Secrets, _: bool) -> ConfigurationStatus {
        let value = match secrets {
            Secrets::Masked => "***",
            Secrets::Shown => "s3cr3t",
        };
        ConfigurationStatus {
            statements: vec![Statement {
                path: vec!["cluster".to_owned(), "pre-shared-secret".to_owned()],
                value: Some(value.to_owned()),
                origin: Origin::File,
                comment: None,
            }],
            ..ConfigurationStatus::default()
        }
    }

    fn configure(&self, step: Configuring) -> BoxFuture<'_, Result<Step, String>> {
        ready(match step {
            Configuring::Apply { .. } => Ok(Step {
                configured: Configured::default(),
                afterwards: None,
            }),
            Configuring::Confirm | Configuring::RollBack => {
                Err("no change waits to be confirmed".to_owned())
            }
        })
        .boxed()
    }

    fn log(&self, wanted: &LogWanted) -> Vec<LogLine> {
        vec![LogLine {
            at_ns: wanted.after_ns + 1,
            ..LogLine::default()
        }]
    }

    fn clear_counters(&self, tunnel: Option<&str>) -> Result<Vec<String>, String> {
        match tunnel {
            None | Some("tun00") => Ok(vec!["tun00".to_owned()]),
            Some(other) => Err(format!("there is no tunnel {other}")),
        }
    }

    fn clear_heartbeat_counters(&self) -> Result<Vec<String>, String> {
        Ok(vec!["aws over tun00".to_owned()])
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        match level {
            "debug" => Ok(()),
            _ => Err(format!("{level} is no level")),
        }
    }
}

pub fn fixed() -> SharedSource {
    Arc::new(Fixed::default())
}

/// A directory that goes away with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("control-{}-{number}", process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("run").join("control.sock")
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server on a thread of its own, for tests of what blocks; ends with the value.
pub struct Serving {
    _stop: oneshot::Sender<()>,
}

impl Serving {
    pub fn at(socket: PathBuf, limits: Limits) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let access = Access::default();
                let listener = bind(&socket, &access).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve_within(limits, listener, access, fixed()) => {}
                    _ = stopped => {}
                }
            });
        });
        bound.recv().unwrap();
        Self { _stop: stop }
    }
}
