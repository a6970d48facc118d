//! `cluster arbiter`.

use std::path::PathBuf;
use std::time::Duration;

use super::super::diagnostic::{Problem, Report};
use super::super::model::{Etcd, EtcdUser, Tls};
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::Value;
use super::{nodes_at, or_default, text};

/// Between two writes of an owner that lives on the record there must be time for two tries.
const TRIES_IN_A_TERM: u32 = 3;

/// None if the cluster has no arbiter; `Some(None)` if what is said of it is wrong.
#[expect(
    clippy::option_option,
    reason = "absent, there and wrong, there and right"
)]
pub(super) fn check(cluster: &Branch, report: &mut Report) -> Option<Option<Etcd>> {
    let etcd = cluster.branch("arbiter")?.branch("etcd")?;
    of_groups(cluster, report);
    Some(check_etcd(etcd, report))
}

fn check_etcd(etcd: &Branch, report: &mut Report) -> Option<Etcd> {
    let endpoints = endpoints(etcd, report);
    let tls = tls(etcd, endpoints.first(), report);
    let user = user(etcd, report);
    let (term, timeout) = times(etcd, report)?;
    let Some(Value::Text(prefix)) = or_default(Some(etcd), nodes(), "prefix") else {
        return None;
    };
    let endpoints: Vec<_> = endpoints.into_iter().map(|stated| stated.value).collect();
    Some(Etcd {
        tls: tls?,
        user: user?,
        prefix,
        term,
        timeout,
        endpoints: if endpoints.is_empty() {
            return None;
        } else {
            endpoints
        },
    })
}

fn nodes() -> &'static [super::Node] {
    nodes_at(&["cluster", "arbiter", "etcd"])
}

/// A network that can be listened to would show who may write.
fn endpoints(etcd: &Branch, report: &mut Report) -> Vec<Stated<String>> {
    let endpoints: Vec<_> = etcd
        .values("endpoint")
        .iter()
        .filter_map(|stated| match &stated.value {
            Value::Text(url) => Some(Stated {
                value: url.clone(),
                place: stated.place,
            }),
            _ => None,
        })
        .collect();
    if let Some(first) = endpoints.first() {
        for other in &endpoints {
            if is_encrypted(&other.value) != is_encrypted(&first.value) {
                report.add(
                    Problem::error(
                        other.place,
                        "the endpoints are partly `http` and partly `https`",
                    )
                    .help("write all of them with `https://`, or all with `http://`")
                    .also(first.place, "the first one"),
                );
                break;
            }
        }
    }
    endpoints
}

fn is_encrypted(url: &str) -> bool {
    url.starts_with("https://")
}

/// `Some(None)`: no encryption, and none is wanted.
#[expect(
    clippy::option_option,
    reason = "wrong, right and absent, right and there"
)]
fn tls(
    etcd: &Branch,
    endpoint: Option<&Stated<String>>,
    report: &mut Report,
) -> Option<Option<Tls>> {
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| text(etcd, name));
    let endpoint = endpoint?;
    if !is_encrypted(&endpoint.value) {
        let Some(stated) = [ca, cert, key].into_iter().flatten().next() else {
            return Some(None);
        };
        report.add(
            Problem::error(
                stated.place,
                "a certificate is stated, but the endpoints are not encrypted",
            )
            .help("write the endpoints with `https://`, or remove the line")
            .also(endpoint.place, "an endpoint"),
        );
        return None;
    }
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((PathBuf::from(cert.value), PathBuf::from(key.value))),
        (None, None) => None,
        (Some(one), None) => return lacks(etcd, &one, "key", report),
        (None, Some(one)) => return lacks(etcd, &one, "cert", report),
    };
    let Some(ca) = ca else {
        return lacks(etcd, endpoint, "ca", report);
    };
    Some(Some(Tls {
        ca: PathBuf::from(ca.value),
        identity,
    }))
}

#[expect(
    clippy::option_option,
    reason = "wrong, right and absent, right and there"
)]
fn user(etcd: &Branch, report: &mut Report) -> Option<Option<EtcdUser>> {
    match (text(etcd, "username"), text(etcd, "password-file")) {
        (Some(name), Some(file)) => Some(Some(EtcdUser {
            name: name.value,
            password_file: PathBuf::from(file.value),
        })),
        (None, None) => Some(None),
        (Some(one), None) => lacks(etcd, &one, "password-file", report),
        (None, Some(one)) => lacks(etcd, &one, "username", report),
    }
}

/// What is stated is of no use without `missing`, unless that is there and merely broken.
fn lacks<T>(
    etcd: &Branch,
    stated: &Stated<String>,
    missing: &str,
    report: &mut Report,
) -> Option<T> {
    if !etcd.is_broken(missing) {
        let example = if missing == "username" {
            "NAME"
        } else {
            "FILE"
        };
        report.add(
            Problem::error(
                stated.place,
                format!("this needs `cluster arbiter etcd {missing}` as well"),
            )
            .help(format!(
                "add `set cluster arbiter etcd {missing} {example}`"
            )),
        );
    }
    None
}

/// Term and timeout.
fn times(etcd: &Branch, report: &mut Report) -> Option<(Duration, Duration)> {
    let of = |name: &str| match or_default(Some(etcd), nodes(), name) {
        Some(Value::Number(ms)) if !etcd.is_broken(name) => Some(ms),
        _ => None,
    };
    let (term_ms, timeout_ms) = (of("term")?, of("timeout")?);
    if timeout_ms > term_ms / TRIES_IN_A_TERM {
        // At least one of the two is stated: the defaults fit each other.
        let place = ["timeout", "term"]
            .into_iter()
            .find_map(|name| etcd.value(name))?
            .place;
        report.add(
            Problem::error(
                place,
                format!("`timeout` ({timeout_ms} ms) is more than a third of `term` ({term_ms} ms): an answer that fails to come could not be made up for in time"),
            )
            .help(format!(
                "write `set cluster arbiter etcd timeout {}` or less, or a longer term",
                term_ms / TRIES_IN_A_TERM
            )),
        );
        return None;
    }
    let ms = |ms: u32| Duration::from_millis(ms.into());
    Some((ms(term_ms), ms(timeout_ms)))
}

/// With somebody to ask, there is nothing to prefer; and without a fence nobody is stopped.
fn of_groups(cluster: &Branch, report: &mut Report) {
    for Instance { name, branch } in cluster.instances("group") {
        if let Some(stated) = branch.value("prefer") {
            report.add(
                Problem::warning(
                    stated.place,
                    format!(
                        "group `{name}` asks the arbiter while the nodes do not hear each other: what it prefers says nothing",
                    ),
                )
                .help("remove the line"),
            );
        }
        if branch.branch("protect").is_none() {
            report.add(
                Problem::warning(
                    branch.place,
                    format!("group `{name}` asks the arbiter and protects no interface"),
                )
                .help(format!(
                    "add `set cluster group {name} protect interface ethN` for each interface whose traffic only the active node may forward; without one, nothing is stopped"
                )),
            );
        }
    }
}
