//! `configure apply`: what changes.

use super::paint::Tone;
use crate::{
    config::{Change, Sign},
    control::protocol::Configured,
};

/// A line for each statement that goes or comes, and what is left to be done if an agent begins with them
/// that waits to be told to keep them.
pub fn applied(configured: &Configured, confirm_within_s: Option<u32>) -> String {
    let Configured {
        changes,
        warnings: _,
        ticket,
    } = configured;
    let mut text: String = changes.iter().map(line).collect();
    if changes.is_empty() {
        text += "nothing changes\n";
    }
    if let (Some(seconds), Some(_)) = (confirm_within_s, ticket) {
        let remedy = format!(
            "the configuration before comes back after {seconds} s, unless `routerctl configure confirm` \
             keeps this one"
        );
        text += &Tone::Attention.paint(remedy).to_string();
        text.push('\n');
    }
    text
}

fn line(change: &Change) -> String {
    let tone = match change.sign {
        Sign::Removed => Tone::Bad,
        Sign::Added => Tone::Good,
    };
    format!("{}\n", tone.paint(change.to_string()))
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn what_is_to_be_confirmed_says_so() {
        let mut configured = Configured {
            changes: vec![Change {
                sign: Sign::Added,
                path: vec!["cluster".to_owned()],
                value: None,
            }],
            warnings: String::new(),
            ticket: Some(1),
        };
        let lines = |configured: &Configured, seconds| {
            let text = strip_str(&applied(configured, seconds)).to_string();
            text.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(&configured, None).len(), 1);
        let unconfirmed = lines(&configured, Some(60));
        assert!(unconfirmed[1].contains("after 60 s"), "{unconfirmed:?}");
        configured.ticket = None;
        assert_eq!(lines(&configured, Some(60)).len(), 1, "nothing was done");
        configured.changes.clear();
        assert_eq!(lines(&configured, None), ["nothing changes"]);
    }
}
