//! The sessions between the nodes: which of an agent before this one go on, and in which places.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddrV4,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use router_common::{
    identity::NodeId,
    kdf::session_number,
    map::{MAX_SESSIONS, SessionConfig, SessionKey},
};

use super::{
    super::{
        board::{SessionFacts, TunnelFacts},
        keeper::{HeartbeatSocket, Keeper},
        secrets::stated,
    },
    first_ipv4,
};
use crate::{
    cluster::FormerLife,
    config::{Cluster, Config, Group, Role},
    dataplane::Dataplane,
    heartbeat::{Prober, open_socket},
};

/// A session that the programs know.
pub struct OpenSession {
    pub facts: SessionFacts,
    pub key: SessionKey,
    pub prober: Prober,
    pub former: FormerLife,
}

/// Whether every session that an agent before this one had is of a group that has the same place now.
pub fn keeps_groups(config: &Config, dataplane: &mut Dataplane) -> Result<bool> {
    let groups = config.groups().iter();
    let numbers: Vec<_> = groups.map(|group| session_number(&group.name)).collect();
    for (key, index) in dataplane.former_sessions()? {
        let group = dataplane.session_config(index)?.group;
        if numbers.get(group as usize) != Some(&key.session) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Closes the fences of groups of which no session goes on: their silence may be taken for ours.
pub fn close_where_silent(
    cluster: &Cluster,
    host_name: &str,
    tunnels: &[TunnelFacts],
    dataplane: &mut Dataplane,
) -> Result<()> {
    let former = former_sessions(dataplane)?;
    for (number, group) in (0..).zip(&cluster.groups) {
        let members = members(group, host_name);
        let mut is_silent = true;
        for path in &cluster.interfaces {
            let (_, tunnel) = tunnel_of(path, tunnels)?;
            if let Some(&index) = former.get(&session_key(tunnel, group)) {
                is_silent &= !goes_on(index, &members, dataplane)?;
            }
        }
        if is_silent {
            dataplane.close_fence(number)?;
        }
    }
    Ok(())
}

fn tunnel_of<'a>(path: &str, tunnels: &'a [TunnelFacts]) -> Result<(usize, &'a TunnelFacts)> {
    let mut tunnels = tunnels.iter().enumerate();
    tunnels
        .find(|(_, facts)| facts.tunnel.name == path)
        .ok_or_else(|| anyhow!("cluster interface {path} is no tunnel"))
}

fn session_key(tunnel: &TunnelFacts, group: &Group) -> SessionKey {
    SessionKey {
        tunnel_index: tunnel.index,
        session: session_number(&group.name),
    }
}

/// The sessions that an agent before this one had, with their places.
fn former_sessions(dataplane: &mut Dataplane) -> Result<HashMap<SessionKey, u32>> {
    let former = dataplane.former_sessions()?.into_iter();
    Ok(former.filter(|(_, index)| *index < MAX_SESSIONS).collect())
}

/// Whether the session in a place goes on: it was between the same nodes.
fn goes_on(index: u32, members: &Members, dataplane: &mut Dataplane) -> Result<bool> {
    let former = dataplane.session_config(index)?;
    let nodes = (NodeId(former.local_node), NodeId(former.peer_node));
    Ok(nodes == (members.node, members.peer))
}

pub fn open_sessions(
    cluster: &Cluster,
    host_name: &str,
    tunnels: &[TunnelFacts],
    dataplane: &mut Dataplane,
    keeper: &mut Keeper,
) -> Result<Vec<OpenSession>> {
    let former = former_sessions(dataplane)?;
    let mut free = {
        let used: BTreeSet<u32> = former.values().copied().collect();
        (0..MAX_SESSIONS).filter(move |index| !used.contains(index))
    };
    let (heard, said) = (dataplane.sessions()?, dataplane.local()?);
    let fences = dataplane.fences()?;
    let mut sessions = Vec::new();
    for path in &cluster.interfaces {
        let (position, tunnel) = tunnel_of(path, tunnels)?;
        let address = first_ipv4(&tunnel.tunnel)
            .ok_or_else(|| anyhow!("cluster interface {path} has no IPv4 address"))?;
        let socket = open_socket(path, address, cluster.heartbeat_port)
            .with_context(|| format!("cannot open the heartbeat socket on {path}"))?;
        let socket = Arc::new(socket);
        keeper.keep_socket(
            position,
            HeartbeatSocket {
                socket: Arc::clone(&socket),
                address,
            },
        );
        for (number, group) in cluster.groups.iter().enumerate() {
            let members = members(group, host_name);
            let key = session_key(tunnel, group);
            let known = former.get(&key).copied();
            let index = known.or_else(|| free.next()).context(
                "no session is free beside those of the agent before this one; stop it in order \
                     (`systemctl stop router-agent`) and start it again",
            )?;
            if known.is_none() || !goes_on(index, &members, dataplane)? {
                dataplane.clear_session(index)?;
            }
            let Members { node, peer, name } = members;
            let config = SessionConfig {
                keys: stated(cluster, &group.name, host_name, name),
                session: key.session,
                local_node: node.0,
                peer_node: peer.0,
                local_address: address.octets(),
                group: u32::try_from(number)?,
                padding: [0; 4],
            };
            dataplane.set_session(index, key, config)?;
            let discovery = SocketAddrV4::new(cluster.mcast_group, cluster.heartbeat_port);
            sessions.push(OpenSession {
                facts: SessionFacts {
                    group: number,
                    index,
                    path: path.clone(),
                },
                key,
                prober: Prober::new(
                    Arc::clone(&socket),
                    discovery,
                    key.session,
                    node,
                    heard.read(index).reply_sequence,
                ),
                former: FormerLife::of(&said.read(index), &fences.read(config.group)),
            });
        }
    }
    Ok(sessions)
}

/// This node and its peer in a group.
pub struct Members<'a> {
    pub node: NodeId,
    pub peer: NodeId,
    /// The peer's host name.
    name: &'a str,
}

pub fn members<'a>(group: &'a Group, host_name: &str) -> Members<'a> {
    const SECONDARY: NodeId = NodeId(2);
    match group.role_of(host_name) {
        Some(Role::Primary) => Members {
            node: NodeId::PRIMARY,
            peer: SECONDARY,
            name: &group.secondary,
        },
        // The check refuses a host that is neither.
        Some(Role::Secondary) | None => Members {
            node: SECONDARY,
            peer: NodeId::PRIMARY,
            name: &group.primary,
        },
    }
}
