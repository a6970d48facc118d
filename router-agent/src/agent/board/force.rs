//! What an operator's move comes to: which group is meant, and what is asked of its core.

use crate::{
    cluster::Forced,
    control::protocol::{self, Force},
};

/// The group's place among `names`, and the move; or why it is not understood.
pub(super) fn meant(force: &Force, names: &[&str]) -> Result<(usize, Forced), String> {
    let number = match (&force.group, names) {
        (_, []) => return Err("no group is configured".to_owned()),
        (Some(name), _) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("there is no group {name}; there are: {}", names.join(", ")))?,
        (None, [_]) => 0,
        (None, _) => return Err(format!("name one of the groups: {}", names.join(", "))),
    };
    let forced = match (force.to, force.i_know) {
        (protocol::Forced::Active, anyway) => Forced::Active { anyway },
        (protocol::Forced::Standby, false) => Forced::Standby,
        // Nothing that refuses it can be overridden: what is not done must not look as if it was.
        (protocol::Forced::Standby, true) => {
            return Err(
                "`--i-know` goes with `force cluster active` only: a node hands over to a peer that can take \
                 over, and to no other; leave the flag out, or stop the agent to leave without a successor"
                    .to_owned(),
            );
        }
    };
    Ok((number, forced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn force(group: Option<&str>, to: protocol::Forced, i_know: bool) -> Force {
        Force {
            group: group.map(ToOwned::to_owned),
            to,
            i_know,
        }
    }

    #[test]
    fn a_flag_that_would_change_nothing_is_refused() {
        use protocol::Forced::{Active, Standby};
        let meant = |to, i_know| meant(&force(None, to, i_know), &["aws"]);
        assert_eq!(
            meant(Active, false),
            Ok((0, Forced::Active { anyway: false }))
        );
        assert_eq!(
            meant(Active, true),
            Ok((0, Forced::Active { anyway: true }))
        );
        assert_eq!(meant(Standby, false), Ok((0, Forced::Standby)));
        let refusal = meant(Standby, true).unwrap_err();
        assert!(refusal.contains("leave the flag out"), "{refusal}");
    }

    #[test]
    fn a_group_is_named_where_there_are_several() {
        let meant = |group, names: &[&str]| {
            meant(&force(group, protocol::Forced::Standby, false), names).map(|(number, _)| number)
        };
        assert_eq!(meant(None, &["aws"]), Ok(0));
        assert_eq!(meant(Some("lan"), &["aws", "lan"]), Ok(1));
        for (group, names, why) in [
            (None, &[][..], "no group is configured"),
            (Some("aws"), &[], "no group is configured"),
            (None, &["aws", "lan"], "name one of the groups: aws, lan"),
            (
                Some("wan"),
                &["aws"],
                "there is no group wan; there are: aws",
            ),
        ] {
            assert_eq!(meant(group, names).unwrap_err(), why);
        }
    }
}
