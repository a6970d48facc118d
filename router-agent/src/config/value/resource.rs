//! What moves with a group.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::super::resources::{RouteDestination, ScriptCall, Service, ServiceAddress};
use super::{Bad, bad, is_interface_name, prefix, unfit};

/// Suffixes of systemd's units that can be started and stopped.
const UNIT_SUFFIXES: [&str; 7] = [
    ".service", ".target", ".socket", ".timer", ".mount", ".path", ".slice",
];

pub(super) fn service(word: &str) -> Result<Service, Bad> {
    let mut parts = word.split('/');
    let host = parts.next().unwrap_or_default();
    // `add::/srv` calls a script with a path, though `add::` is an IPv6 address, too.
    let is_call = host.ends_with("::")
        && parts.next().is_some_and(|length| {
            length.is_empty() || length.starts_with(|c: char| !c.is_ascii_digit())
        });
    let means_address = !is_call && host.parse::<IpAddr>().is_ok()
        || host.starts_with(|c: char| c.is_ascii_digit())
            && host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if means_address {
        service_address(word).map(Service::Address)
    } else if UNIT_SUFFIXES.iter().any(|suffix| word.ends_with(suffix)) {
        unit(word).map(Service::Unit)
    } else {
        script(word).map(Service::Script)
    }
}

fn service_address(word: &str) -> Result<ServiceAddress, Bad> {
    const FORM: &str =
        "write it as `10.0.0.254/24`, `10.0.0.254/24/eth1` or `10.0.0.254/24/eth1/10.0.0.255`";
    let mut parts = word.split('/');
    let host = parts.next().unwrap_or_default();
    let Some(length) = parts.next() else {
        return Err(bad("lacks the length of its network", FORM));
    };
    let address = prefix(&format!("{host}/{length}")).map_err(|error| bad(error.reason, FORM))?;
    let interface = match parts.next() {
        None => None,
        Some(name) if is_interface_name(name) => Some(name.to_owned()),
        Some(_) => return Err(bad("names no valid interface", FORM)),
    };
    let broadcast = match (parts.next(), address) {
        (None, _) => None,
        (Some(_), IpNet::V6(_)) => {
            return Err(bad(
                "states a broadcast address, which IPv6 does not have",
                "leave it out",
            ));
        }
        (Some(text), IpNet::V4(_)) => match text.parse() {
            Ok(broadcast) => Some(broadcast),
            Err(_) => return Err(bad("has no valid broadcast address", FORM)),
        },
    };
    if parts.next().is_some() {
        return Err(bad("has more parts than a service address", FORM));
    }
    Ok(ServiceAddress {
        address,
        interface,
        broadcast,
    })
}

/// systemd.unit(5): what a unit's name may consist of.
fn unit(word: &str) -> Result<String, Bad> {
    let fits = word.len() <= 255
        && !word.starts_with('.')
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    if fits {
        Ok(word.to_owned())
    } else {
        Err(bad(
            "is not the name of a systemd unit",
            "write it as `systemctl list-units` shows it: `bird.service`",
        ))
    }
}

/// The name is looked up in directories that only root can write; it must not lead out of them.
fn script(word: &str) -> Result<ScriptCall, Bad> {
    let mut parts = word.split("::");
    let name = parts.next().unwrap_or_default();
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !fits {
        return Err(bad(
            "is neither an address nor the name of a script or systemd unit",
            "write `10.0.0.254/24/eth1`, `NAME.service`, or `NAME` or `NAME::ARGUMENT` for a \
             script in /etc/ha.d/resource.d or /etc/init.d",
        ));
    }
    let arguments: Vec<_> = parts.map(ToOwned::to_owned).collect();
    if arguments.iter().any(|a| a.is_empty() || a.contains('\0')) {
        return Err(bad(
            "has an empty argument",
            "write each argument behind a `::` of its own",
        ));
    }
    Ok(ScriptCall {
        name: name.to_owned(),
        arguments,
    })
}

pub(super) fn network(word: &str) -> Result<IpNet, Bad> {
    let Ok(network) = word.parse::<IpNet>() else {
        return Err(bad(
            "is not a network",
            "write it as `10.1.0.0/16`, or `0.0.0.0/0` for all",
        ));
    };
    if network.trunc() != network {
        return Err(bad(
            "has host bits in it",
            format!("the network is {}", network.trunc()),
        ));
    }
    Ok(network)
}

pub(super) fn ipv4_address(word: &str) -> Result<Ipv4Addr, Bad> {
    const WANTED: &str = "state the IPv4 address of one host, without a length";
    let Ok(address) = word.parse::<Ipv4Addr>() else {
        return Err(bad("is not an IPv4 address", WANTED));
    };
    match unfit(IpAddr::V4(address)) {
        Some(what) => Err(bad(format!("is {what}"), WANTED)),
        None => Ok(address),
    }
}

pub(super) fn aws_id(word: &str, prefix: &str) -> Result<String, Bad> {
    let fits = word
        .strip_prefix(prefix)
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    if fits {
        Ok(word.to_owned())
    } else {
        Err(bad(
            "is not such an identifier of AWS",
            format!("it begins with `{prefix}`, as the console shows it"),
        ))
    }
}

pub(super) fn aws_interface(word: &str) -> Result<String, Bad> {
    if is_interface_name(word) && !word.starts_with("eni-") {
        return Ok(word.to_owned());
    }
    aws_id(word, "eni-")
}

pub(super) fn aws_destination(word: &str) -> Result<RouteDestination, Bad> {
    if word.starts_with("pl-") {
        return aws_id(word, "pl-").map(RouteDestination::PrefixList);
    }
    network(word).map(RouteDestination::Network)
}

pub(super) fn url(word: &str) -> Result<String, Bad> {
    let rest = word
        .strip_prefix("https://")
        .or_else(|| word.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(word.trim_end_matches('/').to_owned())
        }
        _ => Err(bad(
            "is not the address of an API",
            "write it as `https://ec2.eu-west-1.amazonaws.com`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_display_as_written() {
        for text in [
            "10.0.0.254/24",
            "10.0.0.254/24/eth1",
            "10.0.0.254/24/eth1/10.0.0.255",
            "2001:db8::1/64/eth1",
            "bird.service",
            "getty@tty1.service",
            "httpd",
            "Filesystem::/dev/sdb1::/srv::ext4",
            // Not the IPv6 addresses `add::` and `a::`.
            "add::/srv",
            "a::/",
        ] {
            assert_eq!(service(text).unwrap().to_string(), text);
        }
        assert!(matches!(service("add::/64"), Ok(Service::Address(_))));
    }

    #[test]
    fn a_script_has_a_plain_name_and_arguments_as_they_are() {
        let Service::Script(ScriptCall { name, arguments }) = service("x::$(reboot)::a b").unwrap()
        else {
            panic!("it is a script");
        };
        assert_eq!(
            (name.as_str(), arguments),
            ("x", vec!["$(reboot)".into(), "a b".into()])
        );
    }

    #[test]
    fn what_is_no_service() {
        for text in [
            "10.0.0.254",
            "10.0.0/24",
            "10.0.0.1/33",
            "10.0.0.1/24/",
            "10.0.0.1/24/eth1/x",
            "10.0.0.1/24/e/1.2.3.4/",
            "",
            "/etc/init.d/x",
            "../x",
            "a b",
            "x::",
            "x::::y",
            "a/b.service",
            ".service",
        ] {
            assert!(service(text).is_err(), "{text}");
        }
    }

    #[test]
    fn identifiers_and_destinations() {
        assert!(aws_id("rtb-0a1b", "rtb-").is_ok());
        for wrong in ["rtb-", "rtb", "eni-0a", "rtb-0a&Action=x"] {
            assert!(aws_id(wrong, "rtb-").is_err(), "{wrong}");
        }
        for right in ["eni-63356849c0236b4e5", "eth1", "enp39s0"] {
            assert!(aws_interface(right).is_ok(), "{right}");
        }
        for wrong in ["eni-", "eni-1/2", "a name"] {
            assert!(aws_interface(wrong).is_err(), "{wrong}");
        }
        for right in ["pl-68a54001", "0.0.0.0/0", "::/0", "10.1.0.0/16"] {
            assert_eq!(aws_destination(right).unwrap().to_string(), right);
        }
        for wrong in ["10.1.0.1/16", "pl-", "10.1.0.0"] {
            assert!(aws_destination(wrong).is_err(), "{wrong}");
        }
    }
}
