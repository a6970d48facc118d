//! What nobody tells is looked for now and then, and what failed is tried again.

use anyhow::Result;
use tracing::warn;

use super::{Keeper, LOOK_INTERVAL, interfaces::in_turn};
use crate::{agent::ethernets, clock, dataplane::Dataplane, net::LinkMonitor};

/// The reverse path filters of so many tunnels are read at one look, in turn.
const FILTERS_AT_A_LOOK: usize = 256;

impl Keeper {
    /// Looks for what nobody tells, and tries again what failed.
    pub(super) async fn look(&mut self, dataplane: &mut Dataplane) {
        if self.monitor.is_none() {
            match LinkMonitor::open() {
                Ok(monitor) => {
                    self.monitor = Some(monitor);
                    let findings = self.list_anew().await;
                    self.take_in(findings);
                }
                Err(error) => warn!("{error:#}"),
            }
        }
        let now = clock::now();
        // What a fence keeps back passes without it.
        self.fences.look(dataplane, now);
        // It was logged.
        let _ = self.fence(dataplane);
        let mut told = self.attachments.expire(now);
        self.attachments.refresh(&self.watch);
        for (index, name, programs) in self.attachments.interfaces() {
            let Ok(Some(link)) = self.netlink.link(&name).await else {
                continue;
            };
            if link.index == index && !dataplane.is_on(programs, &link).unwrap_or(true) {
                warn!(
                    interface = name,
                    "somebody has detached our programs; they are attached again"
                );
                self.attachments.lose(index, now);
                told = true;
            }
        }
        self.look_at_the_clock();
        self.refresh_ways().await;
        self.look_at_filters();
        self.next_look = clock::now().after(LOOK_INTERVAL);
        let was_whole = self.attachments.are_whole();
        // It was logged, and is in the notes.
        let _ = self.attach(dataplane);
        self.look_at_egress(dataplane, now).await;
        if let Err(error) = self.tell_parts(dataplane) {
            warn!("the programs cannot be told of interfaces: {error:#}; it will be tried again");
        }
        if let Err(error) = self.confirm_neighbours().await {
            warn!("{error:#}: packets that pass by the stack may go to where their next hop was");
        }
        if told || !was_whole {
            self.dirty.extend(0..self.tunnels.len());
        }
        self.dirty.extend(self.troubles.keys());
    }

    /// What passes the stack by must pass the filter that the stack would have applied.
    fn look_at_filters(&mut self) {
        if self.lans.is_empty() {
            return;
        }
        let count = self.tunnels.len();
        for position in in_turn(&mut self.next_filter, count, FILTERS_AT_A_LOOK) {
            let state = &mut self.tunnels[position];
            // By the name that it has now. Of one that is gone nothing is known.
            let index = state.device().map(|device| device.user_ifindex);
            let Some(device) = index.and_then(|index| self.watch.interface(index)) else {
                continue;
            };
            let strict = ethernets::has_strict_reverse_path(&device.name);
            if state.has_strict_reverse_path() != strict {
                state.set_strict_reverse_path(strict);
                self.dirty.insert(position);
            }
        }
    }

    fn look_at_the_clock(&self) {
        let before = self.presents.clock();
        let now = before.looked_at_again();
        if now != before {
            warn!(
                from = before.source,
                to = now.source,
                "the clock source has changed"
            );
            self.presents.set_clock(now);
        }
    }

    /// Sees to it that what passes by the stack has next hops that are confirmed as often as the stack's.
    async fn confirm_neighbours(&self) -> Result<()> {
        let interfaces = self.register.indices();
        if interfaces.is_empty() {
            return Ok(());
        }
        self.netlink.confirm_neighbours(&interfaces).await
    }
}
