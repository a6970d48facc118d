//! `cluster group NAME track`.

use std::time::Duration;

use super::super::schema::Node;
use super::super::track::{Pace, Track, Tracked, Weight};
use super::super::tree::{Branch, Instance};
use super::super::value::Value;
use super::{nodes_at, or_default, text};

/// What a group tracks: interfaces, then processes, then scripts. None if what is stated of one is wrong.
pub(super) fn check(group: &Branch) -> Option<Vec<Tracked>> {
    let Some(track) = group.branch("track") else {
        return Some(Vec::new());
    };
    let interfaces = track.instances("interface").iter().map(interface);
    let processes = track.instances("process").iter().map(process);
    let scripts = track.instances("script").iter().map(script);
    interfaces.chain(processes).chain(scripts).collect()
}

fn interface(Instance { name, branch }: &Instance) -> Option<Tracked> {
    Some(Tracked {
        track: Track::Interface(name.clone()),
        weight: weight(branch, "interface")?,
    })
}

fn process(Instance { name, branch }: &Instance) -> Option<Tracked> {
    let track = Track::Process {
        name: name.clone(),
        pace: pace(branch, "process")?,
    };
    Some(Tracked {
        track,
        weight: weight(branch, "process")?,
    })
}

fn script(Instance { name, branch }: &Instance) -> Option<Tracked> {
    let command = text(branch, "command")?.value;
    let mut words = command.split_ascii_whitespace();
    let track = Track::Script {
        name: name.clone(),
        program: words.next()?.into(),
        arguments: words.map(ToOwned::to_owned).collect(),
        timeout: milliseconds(branch, "script", "timeout")?,
        pace: pace(branch, "script")?,
    };
    Some(Tracked {
        track,
        weight: weight(branch, "script")?,
    })
}

fn weight(branch: &Branch, kind: &'static str) -> Option<Weight> {
    match or_default(Some(branch), nodes_of(kind), "weight")? {
        Value::Weight(weight) => Some(weight),
        _ => None,
    }
}

fn pace(branch: &Branch, kind: &'static str) -> Option<Pace> {
    Some(Pace {
        interval: milliseconds(branch, kind, "interval")?,
        rise: number(branch, kind, "rise")?,
        fall: number(branch, kind, "fall")?,
    })
}

fn milliseconds(branch: &Branch, kind: &'static str, name: &str) -> Option<Duration> {
    number(branch, kind, name).map(|ms| Duration::from_millis(ms.into()))
}

fn number(branch: &Branch, kind: &'static str, name: &str) -> Option<u32> {
    match or_default(Some(branch), nodes_of(kind), name)? {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

fn nodes_of(kind: &'static str) -> &'static [Node] {
    nodes_at(&["cluster", "group", "track", kind])
}
