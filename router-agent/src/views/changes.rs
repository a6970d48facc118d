//! `configure apply`: what changes.

use super::paint::Tone;
use crate::{
    config::{Change, Sign},
    control::protocol::Configured,
};

/// A line for each statement that goes or comes; and where they were to be confirmed, what is left to be done.
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
    let (tone, remark) = match (confirm_within_s, ticket) {
        (Some(seconds), Some(_)) => (
            Tone::Attention,
            format!(
                "the configuration before comes back after {seconds} s, unless `routerctl configure \
                 confirm` keeps this one"
            ),
        ),
        (Some(_), None) => (
            Tone::Plain,
            "the router does what it did before: this is kept, and there is nothing to confirm"
                .to_owned(),
        ),
        (None, _) => return text,
    };
    text += &tone.paint(remark).to_string();
    text.push('\n');
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
        let kept = lines(&configured, Some(60));
        assert!(kept[1].contains("nothing to confirm"), "{kept:?}");
        configured.changes.clear();
        assert_eq!(lines(&configured, None), ["nothing changes"]);
    }
}
