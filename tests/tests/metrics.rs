//! A real scrape has what docs/metrics.md says, and all that the dashboard asks for.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use anyhow::{Result, ensure};
use router_tests::{
    article::{ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    poll,
};
use serde_json::Value;

const PRIMARY: Router = ROUTERS[0];
const PORT: u16 = 9430;

/// With all that a metric can be about: services, monitors, weights, grants.
fn config(router: Router) -> String {
    router.article_with_services()
        + &format!(
            "set cluster group aws monitor 127.0.0.1
set cluster group aws track interface eth1 weight 5
set cluster group aws prefer consistency
set service metrics listen {PORT}
"
        )
}

fn scrape(cluster: &Cluster) -> Result<String> {
    cluster.node(PRIMARY).run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: router\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(answer)
    })?
}

fn in_the_project(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// `name{labels} value` to the name and the names of its labels.
fn series(line: &str) -> Option<(String, BTreeSet<String>)> {
    let (series, _value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels
        .split("\",")
        .filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
    Some((name.to_owned(), labels.collect()))
}

/// The series of the table's rows: name, and the names of its labels.
fn documented() -> BTreeSet<(String, BTreeSet<String>)> {
    let text = in_the_project("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `router_"));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // Other tables have other columns.
        let (name, kind, labels) = match &cells[..] {
            &[_, name, kind, labels, _, _] => (name.trim_matches('`'), kind, labels),
            _ => ("", "", ""),
        };
        // Each with the label that it has of its own.
        let parts: &[(&str, Option<&str>)] = match kind {
            "counter" | "gauge" => &[("", None)],
            "histogram" => &[("_sum", None), ("_count", None), ("_bucket", Some("le"))],
            _ => &[],
        };
        parts.iter().map(move |(suffix, own)| {
            let labels = labels.split(", ").filter(|label| *label != "–");
            let labels = labels.chain(*own).map(ToOwned::to_owned);
            (format!("{name}{suffix}"), labels.collect())
        })
    })
    .collect()
}

#[test]
fn a_scrape_is_as_documented_and_feeds_the_dashboard() {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let documented = documented();
    let scraped = poll::until(PATIENCE, || {
        let text = scrape(&cluster)?;
        let scraped: BTreeSet<_> = text
            .lines()
            .filter(|line| line.starts_with("router_"))
            .filter_map(series)
            .collect();
        // Some values come with the first replies.
        ensure!(
            scraped == documented,
            "documented, not scraped: {:?}; scraped, not documented: {:?}",
            documented.difference(&scraped).collect::<Vec<_>>(),
            scraped.difference(&documented).collect::<Vec<_>>()
        );
        ensure!(
            text.contains("router_group_state{group=\"aws\",state=\"active\"} 1.0"),
            "{text}"
        );
        ensure!(
            text.contains("router_fence_open{group=\"aws\"} 1.0"),
            "{text}"
        );
        Ok(scraped)
    })
    .unwrap();

    let dashboard: Value =
        serde_json::from_str(&in_the_project("contrib/grafana/router.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap());
            let legend = target["legendFormat"].as_str().unwrap();
            let name = names(target["expr"].as_str().unwrap()).pop().unwrap();
            let (_, labels) = scraped.iter().find(|(known, _)| *known == name).unwrap();
            for label in legend.split("{{").skip(1) {
                let label = label.split("}}").next().unwrap();
                assert!(
                    label == "instance" || labels.contains(label),
                    "{name} {label}"
                );
            }
        }
    }
    let known: BTreeSet<&str> = scraped.iter().map(|(name, _)| &**name).collect();
    assert!(expressions.len() > 10);
    for expression in expressions {
        for name in names(expression) {
            assert!(known.contains(&*name), "the dashboard asks for {name}");
        }
    }
}

/// The metrics that an expression names.
fn names(expression: &str) -> Vec<String> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("router_"))
        .map(ToOwned::to_owned)
        .collect()
}
