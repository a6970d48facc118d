//! Where something is: files, servers, places in a store.

use super::{Bad, Value, bad};

const LONGEST: usize = 1024;

/// A file of this host.
pub(super) fn file(word: &str) -> Result<Value, Bad> {
    let is_path = word.len() <= LONGEST && word.starts_with('/') && !word.ends_with('/');
    if is_path && !word.chars().any(char::is_control) {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not the path of a file",
            "write the whole path, from `/` on",
        ))
    }
}

/// A file of this host with arguments. There is no shell to take quotation marks for what they are.
pub(super) fn command(word: &str) -> Result<Value, Bad> {
    let is_command = word.len() <= LONGEST && word.starts_with('/');
    if !is_command || word.chars().any(char::is_control) {
        return Err(bad(
            "is not the path of a file with arguments",
            "write the whole path, from `/` on, then the arguments, divided by blanks",
        ));
    }
    if word.contains(['\'', '"', '\\', '$', '`', ';', '|', '&', '<', '>']) {
        return Err(bad(
            "is written for a shell, and none reads it",
            "write a script that does it, and state that",
        ));
    }
    Ok(Value::Text(word.to_owned()))
}

/// `http` or `https`, a host and a port.
pub(super) fn server(word: &str) -> Result<Value, Bad> {
    const FORM: &str = "write it as `https://HOST:PORT`, or `http://HOST:PORT` without encryption; etcd's port is 2379 as a rule";
    let after_scheme = word
        .strip_prefix("https://")
        .or_else(|| word.strip_prefix("http://"))
        .ok_or_else(|| bad("does not begin with `http://` or `https://`", FORM))?;
    let (host, port) = after_scheme
        .rsplit_once(':')
        .ok_or_else(|| bad("states no port", FORM))?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(bad("has no valid port", FORM));
    }
    if is_host(host) {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad("names no valid host", FORM))
    }
}

/// A name of labels, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// The beginning of keys in a store.
pub(super) fn key_prefix(word: &str) -> Result<Value, Bad> {
    let fits = word.len() <= LONGEST
        && word.starts_with('/')
        && !word.ends_with('/')
        && word.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(Value::Text(word.to_owned()))
    } else {
        Err(bad(
            "is not the beginning of keys",
            "write it as `/router`: a `/` first and none last, without blanks",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_urls_with_a_port_and_nothing_behind_it() {
        for right in [
            "http://10.0.0.1:2379",
            "https://etcd-1.example.net:2379",
            "https://[fd00::1]:2379",
        ] {
            assert!(server(right).is_ok(), "{right}");
        }
        for wrong in [
            "10.0.0.1:2379",
            "ftp://10.0.0.1:2379",
            "http://10.0.0.1",
            "http://10.0.0.1:0",
            "http://10.0.0.1:2379/v3",
            "http://:2379",
            "http://a..b:2379",
            "http://[fd00::1:2379",
            "http://user@host:2379",
        ] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_and_prefixes_are_absolute() {
        assert!(file("/etc/router/ca.pem").is_ok());
        assert!(key_prefix("/router/a").is_ok());
        for wrong in ["", "ca.pem", "/", "/etc/"] {
            assert!(file(wrong).is_err(), "{wrong}");
            assert!(key_prefix(wrong).is_err(), "{wrong}");
        }
        assert!(key_prefix("/a b").is_err());
    }
}
