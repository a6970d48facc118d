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
    let mut text = Zeroizing::new(String::new());
    file.take(LARGEST_FILE)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}
