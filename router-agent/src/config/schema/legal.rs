//! What a value may be, in words.

use super::super::track::Weight;
use super::{Status, Type, Word};

impl Type {
    /// A stand-in for a value, in a remedy.
    pub fn form(&self) -> String {
        match self {
            Self::Text(_) | Self::Secret => "'TEXT'".to_owned(),
            Self::Path => "FILE".to_owned(),
            Self::HostName => "HOST".to_owned(),
            Self::Name => "NAME".to_owned(),
            Self::TunnelName => "tunN".to_owned(),
            Self::InterfaceName | Self::OtherInterface => "INTERFACE".to_owned(),
            Self::Number { .. } | Self::NumberOr { .. } | Self::BitsOr { .. } | Self::Weight => {
                "NUMBER".to_owned()
            }
            Self::Bool => "true|false".to_owned(),
            Self::Choice(words) => usable(words).collect::<Vec<_>>().join("|"),
            Self::Choices(words) => usable(words).collect::<Vec<_>>().join(","),
            Self::Endpoint
            | Self::Address
            | Self::McastGroup
            | Self::Ipv4Group
            | Self::Ipv4Address => "ADDRESS".to_owned(),
            Self::Listen => "ADDRESS:PORT".to_owned(),
            Self::Prefix => "ADDRESS/LENGTH".to_owned(),
            Self::Service => "SERVICE".to_owned(),
            Self::Network => "NETWORK/LENGTH".to_owned(),
            Self::AwsId(prefix) => format!("{prefix}…"),
            Self::AwsInterface => "INTERFACE or eni-…".to_owned(),
            Self::AwsDestination => "NETWORK/LENGTH or pl-…".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::File => "/PATH/OF/FILE".to_owned(),
            Self::Command => "'/PATH/OF/FILE ARGUMENT'".to_owned(),
            Self::Server => "https://HOST:PORT".to_owned(),
            Self::KeyPrefix => "/PREFIX".to_owned(),
        }
    }

    pub const fn unit(&self) -> &'static str {
        match self {
            Self::Number { unit, .. } => unit,
            _ => "",
        }
    }

    /// The words that a value can be.
    pub fn words(&self) -> Vec<&'static str> {
        match self {
            Self::Bool => vec!["true", "false"],
            Self::Choice(words)
            | Self::Choices(words)
            | Self::NumberOr { words, .. }
            | Self::BitsOr { words, .. } => usable(words).collect(),
            _ => Vec::new(),
        }
    }

    /// All that a value may be.
    pub fn legal(&self) -> String {
        match self {
            Self::Text(longest) => format!("text of at most {longest} characters"),
            Self::Secret => "text".to_owned(),
            Self::Path => "absolute path".to_owned(),
            Self::HostName => "host name".to_owned(),
            Self::Name => "name of at most 64 letters, digits, `-`, `_`, `.`".to_owned(),
            Self::TunnelName => "`tun0` to `tun9999`".to_owned(),
            Self::InterfaceName => "name of an interface".to_owned(),
            Self::OtherInterface => "name of an interface that is not a tunnel".to_owned(),
            Self::Number { min, max, unit: "" } => format!("{min} to {max}"),
            Self::Number { min, max, unit } => format!("{min} to {max} {unit}"),
            Self::NumberOr { min, max, words } => or(format!("{min} to {max}"), words),
            Self::BitsOr { width, words } => {
                let max = (1_u32 << width) - 1;
                or(format!("0 to {max}, or 0x0 to {max:#x}"), words)
            }
            Self::Weight => format!("-{most} to {most}", most = Weight::MOST),
            Self::Bool => "`true`, `false`".to_owned(),
            Self::Choice(words) => listed(words),
            Self::Choices(words) => format!("of {}, divided by commas", listed(words)),
            Self::Endpoint => "IPv4 or IPv6 address, of one host".to_owned(),
            Self::Prefix => "address and length, as `169.254.0.1/24`".to_owned(),
            Self::Address => "IPv4 or IPv6 address".to_owned(),
            Self::Listen => "`ADDRESS:PORT`, or a port of 127.0.0.1".to_owned(),
            Self::McastGroup => "IPv4 address in 239.0.0.0/8".to_owned(),
            Self::Ipv4Group => "IPv4 address in 224.0.0.0/4".to_owned(),
            Self::File => "absolute path of a file".to_owned(),
            Self::Command => "absolute path of a file, and arguments, divided by blanks".to_owned(),
            Self::Server => "`http://HOST:PORT` or `https://HOST:PORT`".to_owned(),
            Self::KeyPrefix => "path of keys, as `/router`".to_owned(),
            Self::Service => "`ADDRESS/LENGTH[/INTERFACE[/BROADCAST]]`, \
                              a systemd unit, or `SCRIPT[::ARGUMENT…]`"
                .to_owned(),
            Self::Network => "network without host bits, as `10.1.0.0/16`".to_owned(),
            Self::Ipv4Address => "IPv4 address of one host".to_owned(),
            Self::AwsId(prefix) => format!("identifier at AWS, `{prefix}…`"),
            Self::AwsInterface => "name of an interface, or `eni-…`".to_owned(),
            Self::AwsDestination => "network as `10.1.0.0/16`, or prefix list `pl-…`".to_owned(),
            Self::Url => "`http://…` or `https://…`".to_owned(),
        }
    }
}

fn usable(words: &'static [Word]) -> impl Iterator<Item = &'static str> {
    let usable = words.iter().filter(|word| word.status == Status::Supported);
    usable.map(|word| word.word)
}

fn listed(words: &'static [Word]) -> String {
    let words: Vec<_> = usable(words).map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn or(mut numbers: String, words: &'static [Word]) -> String {
    for word in usable(words) {
        numbers.push_str(", or `");
        numbers.push_str(word);
        numbers.push('`');
    }
    numbers
}
