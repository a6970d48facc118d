//! By whose word requests are signed, and when new credentials are fetched.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, SharedCredentialsProvider},
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    error::CloudError,
    session::{LOOK_LIMIT, chain},
};

/// Credentials are renewed this long before they expire. AWS has new ones five minutes before.
const RENEW_AHEAD: Duration = Duration::from_mins(4);

pub struct Keyring {
    provider: SharedCredentialsProvider,
    at_hand: Mutex<Option<Credentials>>,
    /// Held by who fetches new ones.
    renewal: Arc<tokio::sync::Mutex<()>>,
}

impl Keyring {
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            at_hand: Mutex::default(),
            renewal: Arc::default(),
        }
    }

    /// Those at hand until they expire: while they are good nobody waits for new ones, and a provider
    /// that fails takes nothing away. `now` is by the clock of who gives them.
    pub async fn get(self: &Arc<Self>, now: SystemTime) -> Result<Credentials, CloudError> {
        let Some(at_hand) = self.good_at(now) else {
            return in_time(async {
                let _renewing = self.renewal.lock().await;
                // Who had the lock before may have fetched some.
                match self.good_at(now) {
                    Some(new) => Ok(new),
                    None => self.renew().await,
                }
            })
            .await;
        };
        if self.good_at(now + RENEW_AHEAD).is_none()
            && let Ok(renewing) = Arc::clone(&self.renewal).try_lock_owned()
        {
            let keyring = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = in_time(keyring.renew()).await {
                    warn!("the credentials at hand are used until they expire: {error}");
                }
                drop(renewing);
            });
        }
        Ok(at_hand)
    }

    /// The API takes those at hand no longer, whatever they say of themselves.
    pub fn discard(&self) {
        self.at_hand().take();
    }

    async fn renew(&self) -> Result<Credentials, CloudError> {
        let asked = self.provider.provide_credentials().await;
        let new = asked.map_err(|error| CloudError::NoCredentials(chain(&error)))?;
        *self.at_hand() = Some(new.clone());
        Ok(new)
    }

    fn good_at(&self, instant: SystemTime) -> Option<Credentials> {
        let at_hand = self.at_hand();
        let is_good = |of: &&Credentials| of.expiry().is_none_or(|expiry| expiry > instant);
        at_hand.as_ref().filter(is_good).cloned()
    }

    fn at_hand(&self) -> MutexGuard<'_, Option<Credentials>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time(
    fetched: impl Future<Output = Result<Credentials, CloudError>>,
) -> Result<Credentials, CloudError> {
    let too_late = |_| CloudError::NoCredentials("nobody gave any in time".to_owned());
    timeout(LOOK_LIMIT, fetched).await.map_err(too_late)?
}

#[cfg(test)]
pub mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use aws_credential_types::provider::{
        ProvideCredentials, error::CredentialsError, future::ProvideCredentials as Provided,
    };
    use tokio::task::yield_now;

    use super::*;

    /// How a provider answers after the first time.
    #[derive(Clone, Copy, Debug)]
    pub enum Later {
        Fails,
        Hangs,
        Answers,
    }

    /// Gives some that expire in so many seconds; counts how often it is asked.
    #[derive(Debug)]
    pub struct Provider {
        pub expire_in_s: u64,
        pub later: Later,
        pub asked: Arc<AtomicUsize>,
    }

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> Provided<'a>
        where
            Self: 'a,
        {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let give = |name: &str, expire_in_s| {
                let expiry = SystemTime::now() + Duration::from_secs(expire_in_s);
                Ok(Credentials::new(name, "s", None, Some(expiry), "test"))
            };
            match (asked, self.later) {
                (0, _) => Provided::ready(give("first", self.expire_in_s)),
                (_, Later::Fails) => Provided::ready(Err(CredentialsError::not_loaded("gone"))),
                (_, Later::Hangs) => Provided::new(pending()),
                (_, Later::Answers) => Provided::ready(give("second", 3600)),
            }
        }
    }

    /// A keyring that has the first ones at hand, and how often its provider was asked.
    async fn keyring(expire_in_s: u64, later: Later) -> (Arc<Keyring>, Arc<AtomicUsize>) {
        let asked = Arc::default();
        let provider = Provider {
            expire_in_s,
            later,
            asked: Arc::clone(&asked),
        };
        let keyring = Arc::new(Keyring::new(SharedCredentialsProvider::new(provider)));
        assert_eq!(
            keyring
                .get(SystemTime::now())
                .await
                .unwrap()
                .access_key_id(),
            "first"
        );
        (keyring, asked)
    }

    async fn name(keyring: &Arc<Keyring>) -> String {
        keyring
            .get(SystemTime::now())
            .await
            .unwrap()
            .access_key_id()
            .to_owned()
    }

    #[tokio::test]
    async fn those_at_hand_are_used_until_they_expire_whatever_becomes_of_new_ones() {
        for later in [Later::Fails, Later::Hangs] {
            let (keyring, asked) = keyring(120, later).await;
            for _ in 0..3 {
                assert_eq!(name(&keyring).await, "first", "{later:?}");
                // The one that fetches new ones has its turn.
                yield_now().await;
            }
            // One that hangs is waited for before another is begun.
            let expected = match later {
                Later::Hangs => 2,
                Later::Fails | Later::Answers => 4,
            };
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{later:?}");
        }
    }

    #[tokio::test]
    async fn new_ones_are_fetched_before_the_old_expire_and_only_then() {
        let (old, asked) = keyring(120, Later::Answers).await;
        assert_eq!(name(&old).await, "first");
        yield_now().await;
        assert_eq!(name(&old).await, "second");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let (young, asked) = keyring(3600, Later::Answers).await;
        assert_eq!(name(&young).await, "first");
        yield_now().await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn expired_ones_are_not_used_and_many_who_want_new_ones_ask_once() {
        let (expired, _) = keyring(0, Later::Fails).await;
        let error = expired.get(SystemTime::now()).await.unwrap_err();
        assert!(
            matches!(&error, CloudError::NoCredentials(reason) if reason.contains("gone")),
            "{error}"
        );
        let (expired, asked) = keyring(0, Later::Answers).await;
        let (one, other) = tokio::join!(name(&expired), name(&expired));
        assert_eq!((&*one, &*other), ("second", "second"));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
