//! The fences of several network namespaces whose agents use one BPF file system, one after the other.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    thread,
};

use aya::programs::{
    ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
};
use router_agent::dataplane::{DEFAULT_BPFFS, Dataplane, Former};
use router_tests::lab::with_a_bpffs_of_its_own;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const PINS: &str = "/sys/fs/bpf/router/fences";

/// Does `work` on a thread that ends with its namespaces and pins.
fn alone(work: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        with_a_bpffs_of_its_own();
        work();
    });
    thread.join().unwrap();
}

/// Brings the thread into a new network namespace that has interfaces of these indices and names.
fn enter_new(interfaces: &[(u32, &str)]) -> File {
    // SAFETY: of a network namespace nothing is shared with other threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    for (index, name) in interfaces {
        let index = index.to_string();
        ip(&["add", name, "index", &index, "type", "bridge"]);
    }
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").arg("link").args(words).status().unwrap();
    assert!(status.success(), "ip link {words:?}");
}

/// An agent that protects these interfaces of the thread's network namespace, and no others. Its fences
/// outlive it.
fn protect(interfaces: &[(u32, &str)]) {
    let former = Former::find(Path::new(DEFAULT_BPFFS)).unwrap();
    let mut dataplane = Dataplane::load(former).unwrap();
    for (index, name) in interfaces {
        dataplane.protect(name, *index, 0).unwrap();
    }
    let kept: Vec<_> = interfaces
        .iter()
        .map(|(index, name)| (*index, (*name).to_owned()))
        .collect();
    dataplane.end_other_fences(&kept).unwrap();
    for (_, name) in interfaces {
        assert!(dataplane.protects(name).unwrap(), "{name} is not fenced");
    }
}

/// The programs of an interface, in and out, by the kernel's numbers.
fn programs(interface: &str) -> [Vec<u32>; 2] {
    [TcAttachType::Ingress, TcAttachType::Egress].map(|direction| {
        let (_, programs) = SchedClassifier::query_tcx(interface, direction).unwrap();
        programs.iter().map(ProgramInfo::id).collect()
    })
}

fn pins() -> Vec<String> {
    let names = fs::read_dir(PINS).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Of the links that are pinned under these names, by the kernel's numbers.
fn links(names: &[String]) -> Vec<u32> {
    let link = |name| PinnedLink::from_pin(Path::new(PINS).join(name)).unwrap();
    let id = |name| FdLink::from(link(name)).info().unwrap().id();
    names.iter().map(id).collect()
}

#[test]
fn each_network_namespace_has_its_own() {
    alone(|| {
        let first = enter_new(&[(7, "eth1"), (8, "eth2")]);
        protect(&[(7, "eth1"), (8, "eth2")]);
        let before = ["eth1", "eth2"].map(programs);
        assert!(before.as_flattened().iter().all(|ids| ids.len() == 1));
        let second = enter_new(&[(7, "lan0")]);
        protect(&[(7, "lan0")]);
        let of_second = programs("lan0");
        enter(&first);
        assert_eq!(["eth1", "eth2"].map(programs), before);
        // The agent goes on where it was, with another configuration.
        protect(&[(7, "eth1")]);
        assert!(programs("eth1").iter().all(|ids| ids.len() == 1));
        assert_eq!(programs("eth2"), [[0; 0]; 2]);
        assert_eq!(pins().len(), 4);
        enter(&second);
        assert_eq!(programs("lan0"), of_second);
        // What protects nothing any more is of no use wherever it was.
        ip(&["delete", "lan0"]);
        enter(&first);
        protect(&[(7, "eth1")]);
        assert_eq!(pins().len(), 2);
    });
}

/// As versions pinned them that did not name the network namespace.
#[test]
fn those_of_earlier_versions_are_taken_over_where_they_are() {
    alone(|| {
        let first = enter_new(&[(7, "eth1"), (8, "eth2")]);
        protect(&[(7, "eth1"), (8, "eth2")]);
        for name in pins() {
            let [program, _, index] = name.split('-').collect::<Vec<_>>()[..] else {
                panic!("{name}");
            };
            let pin = Path::new(PINS);
            fs::rename(pin.join(&name), pin.join(format!("{program}-{index}"))).unwrap();
        }
        let earlier = ["fence_in-7", "fence_out-7"].map(str::to_owned);
        let of_eth1 = links(&earlier);
        let before = ["eth1", "eth2"].map(programs);
        let _second = enter_new(&[(7, "lan0")]);
        protect(&[(7, "lan0")]);
        enter(&first);
        assert_eq!(["eth1", "eth2"].map(programs), before);
        protect(&[(7, "eth1")]);
        assert!(programs("eth1").iter().all(|ids| ids.len() == 1));
        assert_eq!(programs("eth2"), [[0; 0]; 2]);
        let pins = pins();
        assert_eq!(pins.len(), 4, "{pins:?}");
        assert!(earlier.iter().all(|name| !pins.contains(name)), "{pins:?}");
        // There was no moment without them.
        let links = links(&pins);
        assert!(of_eth1.iter().all(|link| links.contains(link)), "{pins:?}");
    });
}
