//! From a word to a value of its type.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use router_common::map::MAX_TUNNELS;

use super::model::{HeaderByte, Secret};
use super::resources::{RouteDestination, Service};
use super::schema::{Status, Type, Word, nearest};
use super::secret::Secrets;
use super::source::HIDDEN;
use super::track::Weight;

mod location;
mod number;
mod resource;

use location::{command, file, key_prefix, server};
use number::{bits_or, number, number_or, weight};

/// A value in its proper type. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Text(String),
    Secret(Secret),
    Number(u32),
    Weight(Weight),
    Bool(bool),
    Word(&'static str),
    Words(Vec<&'static str>),
    Ipv4(Ipv4Addr),
    Ip(IpAddr),
    Listen(SocketAddr),
    Net(IpNet),
    Service(Service),
    RouteDestination(RouteDestination),
}

impl Value {
    /// As a configuration states it, without quotation marks.
    pub fn written(&self, secrets: Secrets) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Secret(secret) => match secrets {
                Secrets::Masked => HIDDEN.to_owned(),
                Secrets::Shown => secret.expose().to_owned(),
            },
            Self::Number(number) => number.to_string(),
            Self::Weight(weight) => weight.to_string(),
            Self::Bool(is) => is.to_string(),
            Self::Word(word) => (*word).to_owned(),
            Self::Words(words) => words.join(","),
            Self::Ipv4(address) => address.to_string(),
            Self::Ip(address) => address.to_string(),
            Self::Net(net) => net.to_string(),
            Self::Listen(address) => address.to_string(),
            Self::Service(service) => service.to_string(),
            Self::RouteDestination(destination) => destination.to_string(),
        }
    }
}

/// Why a word is not a value: completes the sentence "`WORD` …" or "the value …".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub reason: String,
    pub help: String,
}

fn bad(reason: impl Into<String>, help: impl Into<String>) -> Bad {
    Bad {
        reason: reason.into(),
        help: help.into(),
    }
}

const NOT_YET: &str = "is not carried out by this version";

pub(super) fn parse(of: &Type, word: &str) -> Result<Value, Bad> {
    match of {
        Type::Text(longest) => text(word, *longest),
        Type::Secret => {
            if word == HIDDEN {
                return Err(bad(
                    "stands for a secret that is not shown",
                    "state the secret itself; `routerctl show configuration --secrets` shows it to root",
                ));
            }
            if word.is_empty() {
                return Err(bad(
                    "cannot be a secret",
                    "state a secret, the same on both nodes",
                ));
            }
            Ok(Value::Secret(Secret::new(word)))
        }
        Type::Path => path(word),
        Type::HostName => host_name(word),
        Type::Name => name(word),
        Type::TunnelName => tunnel_name(word),
        Type::InterfaceName => interface_name(word),
        Type::OtherInterface => other_interface(word),
        Type::Number { min, max, unit } => number(word, *min, *max, unit).map(Value::Number),
        Type::NumberOr { min, max, words } => number_or(word, *min, *max, words),
        Type::BitsOr { width, words } => bits_or(word, *width, words),
        Type::Weight => weight(word).map(Value::Weight),
        Type::Bool => match word {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(bad("is neither true nor false", "write `true` or `false`")),
        },
        Type::Choice(words) => choice(word, words).map(Value::Word),
        Type::Choices(words) => word
            .split(',')
            .map(|word| choice(word, words))
            .collect::<Result<_, _>>()
            .map(Value::Words),
        Type::Endpoint => endpoint(word),
        Type::Prefix => prefix(word).map(Value::Net),
        Type::Address => address(word),
        Type::Listen => listen(word),
        Type::McastGroup => match word.parse::<Ipv4Addr>() {
            Ok(group) if group.octets()[0] == 239 => Ok(Value::Ipv4(group)),
            _ => Err(bad(
                "is not an IPv4 multicast group in 239.0.0.0/8",
                "leave the node out: heartbeats are unicast inside the tunnel",
            )),
        },
        Type::Ipv4Group => match word.parse::<Ipv4Addr>() {
            Ok(group) if group.is_multicast() => Ok(Value::Ipv4(group)),
            _ => Err(bad(
                "is not an IPv4 multicast group",
                "write one of 224.0.0.0/4, the same on both nodes",
            )),
        },
        Type::File => file(word),
        Type::Command => command(word),
        Type::Server => server(word),
        Type::KeyPrefix => key_prefix(word),
        Type::Service => resource::service(word).map(Value::Service),
        Type::Network => resource::network(word).map(Value::Net),
        Type::Ipv4Address => resource::ipv4_address(word).map(Value::Ipv4),
        Type::AwsId(prefix) => resource::aws_id(word, prefix).map(Value::Text),
        Type::AwsInterface => resource::aws_interface(word).map(Value::Text),
        Type::AwsDestination => resource::aws_destination(word).map(Value::RouteDestination),
        Type::Url => resource::url(word).map(Value::Text),
    }
}

fn listen(word: &str) -> Result<Value, Bad> {
    let parsed = match word.parse() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => word.parse::<SocketAddr>(),
    };
    match parsed {
        Ok(address) if address.port() != 0 => Ok(Value::Listen(address)),
        Ok(_) | Err(_) => Err(bad(
            "is no address and port to listen at",
            "write `127.0.0.1:9430`, `[::1]:9430`, or the port alone",
        )),
    }
}

fn text(word: &str, longest: usize) -> Result<Value, Bad> {
    let length = word.chars().count();
    if length > longest {
        return Err(bad(
            format!("has {length} characters, of {longest} at most"),
            "shorten it",
        ));
    }
    if word.chars().any(char::is_control) {
        return Err(bad(
            "has a control character in it",
            "take the character out",
        ));
    }
    Ok(Value::Text(word.to_owned()))
}

fn path(word: &str) -> Result<Value, Bad> {
    // PATH_MAX less the terminator.
    if !Path::new(word).is_absolute() || word.len() > 4_095 {
        return Err(bad(
            "is not an absolute path",
            "write the whole path, from `/` on",
        ));
    }
    text(word, word.len())
}

fn host_name(word: &str) -> Result<Value, Bad> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // 64 bytes is the kernel's limit.
    if word.len() <= 64 && word.split('.').all(label) {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not a host name",
            "write the name that `hostname` prints there: letters, digits and hyphens, in labels divided by dots, 64 characters at most",
        ))
    }
}

fn name(word: &str) -> Result<Value, Bad> {
    let fits = (1..=64).contains(&word.len())
        && word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not a name",
            "use letters, digits, `-`, `_` and `.`, a letter or digit first, 64 at most",
        ))
    }
}

/// There is room for all names of tunnels in the maps of the programs in the kernel.
const _: () = assert!(10 + 100 + 1_000 + 10_000 <= MAX_TUNNELS);

/// Whether it is `tun` and one to four digits. Vyatta has three at most, too few for 10,000 tunnels.
pub(super) fn is_tunnel_name(word: &str) -> bool {
    word.strip_prefix("tun")
        .is_some_and(|n| (1..=4).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
}

fn tunnel_name(word: &str) -> Result<Value, Bad> {
    if is_tunnel_name(word) {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not a tunnel name",
            "name the tunnel `tun0` to `tun9999`",
        ))
    }
}

fn is_interface_name(word: &str) -> bool {
    // The kernel's rule, IFNAMSIZ less the terminator.
    (1..=15).contains(&word.len())
        && word != "."
        && word != ".."
        && word
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

fn interface_name(word: &str) -> Result<Value, Bad> {
    if is_interface_name(word) {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not an interface name",
            "an interface name has 15 characters at most and no blank, `/` or `:`",
        ))
    }
}

fn other_interface(word: &str) -> Result<Value, Bad> {
    if is_tunnel_name(word) {
        return Err(bad(
            "is the name of a tunnel",
            "name an interface that is not a tunnel of this router",
        ));
    }
    interface_name(word)
}

fn choice(word: &str, words: &'static [Word]) -> Result<&'static str, Bad> {
    let usable = || {
        words
            .iter()
            .filter(|w| w.status == Status::Supported)
            .map(|w| w.word)
    };
    let list = || {
        let quoted: Vec<_> = usable().map(|w| format!("`{w}`")).collect();
        match quoted.as_slice() {
            [others @ .., last] if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            few => few.concat(),
        }
    };
    match words.iter().find(|known| known.word == word) {
        Some(known) => match known.status {
            Status::Supported => Ok(known.word),
            Status::Later => Err(bad(NOT_YET, format!("this version accepts {}", list()))),
            Status::Foreign => Err(bad(
                "is known to Vyatta but not to this router",
                format!("this router accepts {}", list()),
            )),
        },
        None => Err(bad(
            "is not one of the words possible here",
            match nearest(word, usable()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write {}", list()),
            },
        )),
    }
}

fn endpoint(word: &str) -> Result<Value, Bad> {
    const WANTED: &str = "state the address of the interface that faces the other router";
    let address = match word.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) if word.parse::<IpNet>().is_ok() => {
            return Err(bad(
                "has a length, but one address is wanted",
                "leave out the `/` and what follows",
            ));
        }
        Err(_) => return Err(bad("is not an IP address", WANTED)),
    };
    let never_an_end = |what| {
        bad(
            format!("is {what}, which cannot be the end of a tunnel"),
            WANTED,
        )
    };
    if let Some(what) = unfit(address) {
        return Err(never_an_end(what));
    }
    if let IpAddr::V6(v6) = address {
        if v6.is_unicast_link_local() {
            // It would take the name of the link to know which one is meant.
            return Err(never_an_end("an IPv6 link-local address"));
        }
        if let Some(v4) = v6.to_ipv4_mapped() {
            return Err(bad(
                "is an IPv4 address in the form of an IPv6 one",
                format!("write it as `{v4}`"),
            ));
        }
    }
    Ok(Value::Ip(address))
}

/// What keeps an address from being that of one host.
fn unfit(address: IpAddr) -> Option<&'static str> {
    let this_network = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0);
    if address.is_unspecified() || this_network {
        Some("an unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast address")
    } else {
        None
    }
}

fn prefix(word: &str) -> Result<IpNet, Bad> {
    let Ok(net) = word.parse::<IpNet>() else {
        return Err(match word.parse::<IpAddr>() {
            Ok(address) => bad(
                "lacks the length of its network",
                format!(
                    "add it, for example `{address}/{}`",
                    if address.is_ipv4() { 24 } else { 64 }
                ),
            ),
            Err(_) => match word.split_once('/') {
                Some((address, _)) if address.parse::<IpAddr>().is_ok() => bad(
                    "has no valid network length",
                    "the length is 0 to 32 for IPv4, 0 to 128 for IPv6",
                ),
                _ => bad(
                    "is not an address with a length",
                    "write it as `169.254.0.1/24`",
                ),
            },
        });
    };
    if let Some(what) = unfit(net.addr()) {
        return Err(bad(
            format!("is {what}, which no interface can have"),
            "state the address of one host, with the length of its network",
        ));
    }
    if let IpNet::V4(v4) = net
        && v4.prefix_len() < 31
    {
        let what = if v4.addr() == v4.network() {
            "address of the network itself"
        } else if v4.addr() == v4.broadcast() {
            "broadcast address of its network"
        } else {
            return Ok(net);
        };
        return Err(bad(
            format!("is the {what}"),
            format!("state the address of one host in {}", v4.trunc()),
        ));
    }
    Ok(net)
}

fn address(word: &str) -> Result<Value, Bad> {
    const WANTED: &str = "state an address that answers pings, such as the next router's";
    match word.parse::<IpAddr>() {
        Ok(address) => match unfit(address) {
            Some(what) if !address.is_loopback() => {
                Err(bad(format!("is {what}, which does not answer"), WANTED))
            }
            _ => Ok(Value::Ip(address)),
        },
        Err(_) => Err(bad("is not an IP address", WANTED)),
    }
}

/// A byte of the outer header. For `ttl`, as for `ip tunnel`, 0 means the inner header's.
pub(super) fn header_byte(value: &Value, zero_inherits: bool) -> Option<HeaderByte> {
    match value {
        Value::Number(0) if zero_inherits => Some(HeaderByte::Inherit),
        Value::Number(byte) => u8::try_from(*byte).ok().map(HeaderByte::Fixed),
        Value::Word("inherit") => Some(HeaderByte::Inherit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_names() {
        for good in ["tun0", "tun00", "tun999", "tun9999"] {
            assert!(is_tunnel_name(good), "{good}");
        }
        for bad in ["tun", "tun10000", "tunx", "eth0", "tun-1", "tun٣"] {
            assert!(!is_tunnel_name(bad), "{bad}");
        }
    }

    #[test]
    fn networks_are_not_hosts() {
        for wrong in [
            "169.254.0.0/24",
            "169.254.0.255/24",
            "0.0.0.0/0",
            "224.0.0.1/24",
            "::/64",
            "127.0.0.1/8",
        ] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        for right in [
            "169.254.0.0/31",
            "169.254.0.1/32",
            "fe80::1/64",
            "169.254.0.1/24",
        ] {
            assert!(prefix(right).is_ok(), "{right}");
        }
    }
}
