//! `show version`.

use super::Table;
use crate::control::protocol::AgentVersion;

/// This program's version and, if it answered, the agent's.
pub fn version(own: &AgentVersion, agent: Option<&AgentVersion>) -> String {
    let mut table = Table::new(&["", "Version", "Control protocol", "Map layout"]);
    for (name, version) in [("routerctl", Some(own)), ("router-agent", agent)] {
        match version {
            Some(AgentVersion {
                agent,
                protocol,
                map_layout,
            }) => table.row([name, agent, &protocol.to_string(), &map_layout.to_string()]),
            None => table.row([name, "not known"]),
        }
    }
    table.render(0)
}
