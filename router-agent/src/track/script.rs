//! What a script of the operator's finds.

use std::{path::PathBuf, time::Duration};

use super::{Found, Look};
use crate::takeover::command::{Call, Ended};

/// Characters of its output that are kept as the reason.
const LONGEST_REASON: usize = 200;

#[derive(Debug)]
pub struct Script(Call);

impl Script {
    pub fn new(
        program: PathBuf,
        arguments: Vec<String>,
        timeout: Duration,
        group_name: &str,
    ) -> Self {
        Self(Call {
            program,
            arguments,
            environment: vec![("ROUTER_GROUP", group_name.to_owned())],
            limit: timeout,
        })
    }
}

impl Look for Script {
    async fn look(&mut self) -> Found {
        let Self(call) = self;
        match call.run().await {
            Ok(Ended { status, .. }) if status.success() => Ok(()),
            Ok(ended) => Err(shortened(&ended.to_string())),
            Err(error) => Err(shortened(&error.to_string())),
        }
    }
}

fn shortened(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).collect()
}
