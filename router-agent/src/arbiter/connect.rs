//! From the configuration to a client: the files that it names are read here.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use zeroize::Zeroizing;

use super::etcd::Etcd;
use crate::config::{self, EtcdUser, Tls};

/// A larger file is neither a certificate nor a password. Bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{what} {} cannot be read: {error}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{what} {} may be read by everybody", path.display())]
    Open { what: &'static str, path: PathBuf },
    #[error("{what} {} has more than {LARGEST_FILE} bytes", path.display())]
    TooLong { what: &'static str, path: PathBuf },
    #[error("the password file {} is empty", .0.display())]
    NoPassword(PathBuf),
}

impl Unusable {
    pub fn remedy(&self) -> String {
        match self {
            Self::File { path, .. } => format!(
                "correct the path in the configuration; `ls -l {}` shows what is there",
                path.display()
            ),
            Self::Open { path, .. } => format!("chmod o= {}", path.display()),
            Self::TooLong { path, .. } => format!(
                "correct the path in the configuration, or leave in {} no more than etcd's clients need",
                path.display()
            ),
            Self::NoPassword(path) => format!("write the password into {}", path.display()),
        }
    }
}

/// Reads certificates and password; connects to nothing yet.
pub fn client(config: &config::Etcd) -> Result<Etcd, Unusable> {
    let mut options = ConnectOptions::new();
    if let Some(Tls { ca, identity }) = &config.tls {
        let ca = read("the file of `ca`", ca, Readers::Any)?;
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(&*ca));
        if let Some((certificate, key)) = identity {
            let certificate = read("the file of `cert`", certificate, Readers::Any)?;
            let key = read("the file of `key`", key, Readers::Few)?;
            tls = tls.identity(Identity::from_pem(&*certificate, &*key));
        }
        options = options.with_tls(tls);
    }
    if let Some(EtcdUser {
        name,
        password_file,
    }) = &config.user
    {
        let line = read("the password file", password_file, Readers::Few)?;
        let password = line.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Unusable::NoPassword(password_file.clone()));
        }
        options = options.with_user(name, password);
    }
    Ok(Etcd::new(&config.endpoints, options, config.timeout))
}

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    Any,
    /// Its owner and group.
    Few,
}

fn read(what: &'static str, path: &Path, readers: Readers) -> Result<Zeroizing<String>, Unusable> {
    const OTHERS_READ: u32 = 0o004;
    let unreadable = |error| Unusable::File {
        what,
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if readers == Readers::Few && mode & OTHERS_READ != 0 {
        return Err(Unusable::Open {
            what,
            path: path.to_owned(),
        });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Unusable::TooLong {
            what,
            path: path.to_owned(),
        });
    }
    let text = str::from_utf8(&bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process, time::Duration};

    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_not_cut() {
        let ca = env::temp_dir().join(format!("connect-{}-ca", process::id()));
        let config = config::Etcd {
            endpoints: vec!["https://192.0.2.1:2379".to_owned()],
            tls: Some(Tls {
                ca: ca.clone(),
                identity: None,
            }),
            user: None,
            prefix: "/router".to_owned(),
            term: Duration::from_secs(3),
            timeout: Duration::from_millis(500),
        };
        // A character of which half would be within.
        for (longer, is_refused) in [("", false), ("\u{e9}", true)] {
            let length = usize::try_from(LARGEST_FILE).unwrap() - longer.len() / 2;
            fs::write(&ca, "#".repeat(length) + longer).unwrap();
            let words = client(&config)
                .err()
                .map(|unusable| format!("{unusable}; {}", unusable.remedy()));
            let Some(words) = words else {
                assert!(!is_refused);
                continue;
            };
            let told = format!("`ca` {} has more than 1048576 bytes; correct", ca.display());
            assert!(is_refused && words.contains(&told), "{words}");
        }
        fs::remove_file(ca).unwrap();
    }
}
