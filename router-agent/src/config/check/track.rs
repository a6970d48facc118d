//! `cluster group NAME track`.

use std::time::Duration;

use super::super::track::{Pace, Track};
use super::super::tree::{Branch, Instance};
use super::super::value::Value;
use super::{nodes_at, or_default, text};

/// What a group tracks: interfaces, then processes, then scripts. None if what is stated of one is wrong.
pub(super) fn check(group: &Branch) -> Option<Vec<Track>> {
    let Some(track) = group.branch("track") else {
        return Some(Vec::new());
    };
    let stated = track.values("interface").iter();
    let interfaces = stated.filter_map(|stated| match &stated.value {
        Value::Text(name) => Some(Some(Track::Interface(name.clone()))),
        _ => None,
    });
    let processes = track.instances("process").iter().map(process);
    let scripts = track.instances("script").iter().map(script);
    interfaces.chain(processes).chain(scripts).collect()
}

fn process(Instance { name, branch }: &Instance) -> Option<Track> {
    Some(Track::Process {
        name: name.clone(),
        pace: pace(branch, "process")?,
    })
}

fn script(Instance { name, branch }: &Instance) -> Option<Track> {
    let command = text(branch, "command")?.value;
    let mut words = command.split_ascii_whitespace();
    Some(Track::Script {
        name: name.clone(),
        program: words.next()?.into(),
        arguments: words.map(ToOwned::to_owned).collect(),
        timeout: milliseconds(branch, "script", "timeout")?,
        pace: pace(branch, "script")?,
    })
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
    let nodes = nodes_at(&["cluster", "group", "track", kind]);
    match or_default(Some(branch), nodes, name)? {
        Value::Number(number) => Some(number),
        _ => None,
    }
}
