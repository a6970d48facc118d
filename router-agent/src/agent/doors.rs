//! Where others ask the agent.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};

use crate::{
    config::Config,
    control::{
        permission::Access,
        server::{self, SharedSource},
    },
    metrics,
};

/// Open, though nobody answers yet.
pub struct Doors {
    control: (UnixListener, Access),
    metrics: Option<TcpListener>,
}

impl Doors {
    pub async fn open(config: &Config, socket: &Path) -> Result<Self> {
        let access = Access::of(&config.control);
        access
            .keep_looking()
            .context("cannot start the thread that looks for groups")?;
        let listener = server::bind(socket, &access)
            .with_context(|| format!("cannot listen for routerctl at {}", socket.display()))?;
        let metrics = match config.metrics {
            Some(address) => Some(metrics::server::bind(address).await.with_context(|| {
                format!("cannot serve metrics at {address}: see `service metrics listen`")
            })?),
            None => None,
        };
        Ok(Self {
            control: (listener, access),
            metrics,
        })
    }

    /// Answers until the tasks are aborted.
    pub fn serve(self, source: SharedSource) -> JoinSet<()> {
        let mut servers = JoinSet::new();
        let (listener, access) = self.control;
        servers.spawn(server::serve(listener, access, Arc::clone(&source)));
        if let Some(listener) = self.metrics {
            servers.spawn(metrics::server::serve(listener, source));
        }
        servers
    }
}

/// The control socket's file: who still finds it gets no answer.
pub struct RemovedAtTheEnd<'a>(pub &'a Path);

impl Drop for RemovedAtTheEnd<'_> {
    fn drop(&mut self) {
        // It may have been removed by others.
        let _ = fs::remove_file(self.0);
    }
}
