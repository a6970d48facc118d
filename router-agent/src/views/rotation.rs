//! `rotate-secret`: how far each session is, and what is to be done next.

use super::Table;
use crate::control::protocol::SessionRotation;

/// In the operator's words.
pub(super) fn progress(progress: &str) -> &str {
    match progress {
        "none" => "one secret is accepted",
        "peer-lacks-it" => {
            "two secrets are accepted; the peer does not ask for the new one: run `routerctl rotate-secret` on it, with the same secret"
        }
        "peer-has-it" => {
            "two secrets are accepted; the peer has the new one and is about to use it"
        }
        "both-use-it" => {
            "two secrets are accepted, and both nodes use the new one: `routerctl configure apply` it on both, then run `routerctl rotate-secret --finish` on both"
        }
        other => other,
    }
}

/// A line for each session.
pub fn rotation(sessions: &[SessionRotation]) -> String {
    if sessions.is_empty() {
        return "No heartbeat session is configured.\n".to_owned();
    }
    let mut table = Table::without_header();
    for session in sessions {
        let SessionRotation {
            group,
            path,
            peer,
            progress: word,
        } = session;
        table.row([
            format!("{group} over {path} with {peer}:"),
            progress(word).to_owned(),
        ]);
    }
    let reminder = "\
The agent forgets what it was told here when it stops: the configuration file must say it too, as
`cluster pre-shared-secret`; until the change is finished on both nodes, with the old one as
`cluster previous-pre-shared-secret`.
";
    format!("{}{reminder}", table.render(0))
}
