//! The arbiter as an operator sees it.

use std::time::Duration;

use super::{
    board::{Facts, whole_ms},
    report::View,
    words::record,
};
use crate::{
    arbiter::{self, Exchange, Health, Times},
    cluster::ArbiterFinding,
    config::Cluster,
    control::protocol::{ArbiterStatus, ArbiterTimes},
};

impl Facts {
    pub(super) fn arbiter_status(
        &self,
        group: usize,
        view: Option<View>,
        health: &Health,
    ) -> Option<ArbiterStatus> {
        let cluster = self.cluster()?;
        let etcd = cluster.arbiter.as_ref()?;
        let group = &cluster.groups[group];
        let last = health.last.as_ref();
        let failure = last.and_then(|last| last.failure.as_ref());
        Some(ArbiterStatus {
            state: health.word().to_owned(),
            endpoint: last.map_or_else(
                || etcd.endpoints.join(" "),
                |Exchange { endpoint, .. }| endpoint.clone(),
            ),
            key: arbiter::key(etcd, group),
            record: view
                .and_then(|view| view.record)
                .map(|it| record(&it, group)),
            unsound: view.and_then(|view| unsound(view.arbiter)),
            detail: failure.map(|failure| failure.detail.clone()),
            remedy: health.remedy().map(ToOwned::to_owned),
            answered_ns: health.answered.as_ns(),
            answers: health.answers,
            failures: health.failures,
            times: health
                .times()
                .map(|Times { last, min, max, .. }| ArbiterTimes {
                    last_us: whole_us(last),
                    min_us: whole_us(min),
                    avg_us: health.average().map_or(0, whole_us),
                    max_us: whole_us(max),
                }),
            wanted_us: whole_us(cluster.wanted_answer()),
            term_ms: whole_ms(etcd.term),
            timeout_ms: whole_ms(etcd.timeout),
        })
    }

    /// Whether the death of the other node would stop forwarding for a moment.
    pub(super) fn arbiter_note(&self, health: &Health) -> Option<String> {
        let cluster = self.cluster().filter(|cluster| cluster.arbiter.is_some())?;
        let average = health.average()?;
        let wanted = cluster.wanted_answer();
        (average > wanted).then(|| slow_answers(cluster, average))
    }
}

/// Why what the arbiter holds is not acted on.
fn unsound(finding: ArbiterFinding) -> Option<String> {
    match finding {
        ArbiterFinding::NeverHeard | ArbiterFinding::Well | ArbiterFinding::Failing(_) => None,
        ArbiterFinding::Behind { .. } | ArbiterFinding::Foreign { .. } => Some(finding.to_string()),
    }
}

fn slow_answers(cluster: &Cluster, average: Duration) -> String {
    format!(
        "etcd answers in {:.1} ms as a rule, and would have to within {:.1} ms: if the standby dies, \
         forwarding stops for a moment; a longer `cluster dead-interval` than {} ms prevents that",
        average.as_secs_f64() * 1e3,
        cluster.wanted_answer().as_secs_f64() * 1e3,
        cluster.dead_interval.as_millis(),
    )
}

fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
