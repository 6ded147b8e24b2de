//! From an address and options to a store.

use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use crate::formats::Columns;
use crate::runtime::PerProcess;

/// How an object store is spoken with.
#[derive(Clone, Default)]
pub struct ObjectOptions {
    /// Names and values as the store knows them: `endpoint`, `region`, `access_key_id`, `secret_access_key`, `token`,
    /// `allow_http`, `timeout`, `connect_timeout`, `proxy_url`, `account_name`, `account_key`, `service_account_key` ...
    pub settings: Vec<(String, String)>,
    /// Whether environment variables (`AWS_...`, `GOOGLE_...`, `AZURE_...`) and the files that they name are read; settings
    /// go before them.
    pub from_env: bool,
    /// Whether the cloud's machine may be asked for credentials, at an address that only exists inside the cloud. Without
    /// credentials, requests are not signed, which is enough for public buckets.
    pub from_machine: bool,
    /// Which columns Parquet files keep ids and vectors in.
    pub columns: Columns,
    /// How often a request is tried; `None` for 4 times.
    pub attempts: Option<u32>,
    /// For how long a server may send nothing; `None` for 20 seconds.
    pub silence: Option<std::time::Duration>,
}

impl std::fmt::Debug for ObjectOptions {
    // Values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ObjectOptions")
            .field("settings", &names)
            .field("from_env", &self.from_env)
            .field("from_machine", &self.from_machine)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

/// A store, made anew in a forked child: connections of its parent are not for it.
pub(crate) struct Store {
    kind: Kind,
    /// Without a slash at the end.
    address: String,
    /// What tells its buckets from those of the same name with others.
    elsewhere: String,
    secrets: Vec<String>,
}

enum Kind {
    Given(Arc<dyn ObjectStore>),
    Made { recipe: Recipe, made: PerProcess<Arc<dyn ObjectStore>> },
}

struct Recipe {
    scheme: ObjectStoreScheme,
    url: Url,
    options: ObjectOptions,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

impl Store {
    pub(crate) fn given(store: Arc<dyn ObjectStore>, source: &str) -> Self {
        let address = source.trim_end_matches('/').to_owned();
        Self { kind: Kind::Given(store), address, elsewhere: String::new(), secrets: Vec::new() }
    }

    /// The store at an address, and the folder in it. Nothing is asked of it yet.
    pub(crate) fn at(address: &str, options: &ObjectOptions) -> Result<(Self, Path)> {
        let bad = |why: &dyn std::fmt::Display| {
            invalid(format!("url must be the address of a bucket or a folder, got {address:?}: {why}"))
                .suggest("it looks like s3://bucket/folder, gs://, az://, https:// or file:///folder")
        };
        let url = Url::parse(address).map_err(|error| bad(&error))?;
        let (scheme, folder) = ObjectStoreScheme::parse(&url).map_err(|error| bad(&error))?;
        if url.password().is_some() {
            return Err(
                invalid("url must not have a password in it").suggest("give it as one of the settings")
            );
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                invalid("url must have nothing behind its path").suggest("give it as one of the settings")
            );
        }
        if scheme == ObjectStoreScheme::Memory {
            return Err(bad(&"a store in memory is nobody else's").suggest("use LocalBackend"));
        }
        let secrets = options
            .settings
            .iter()
            .filter(|(name, value)| is_secret(name) && value.len() >= 4)
            .map(|(_, value)| value.clone())
            .collect();
        let recipe = Recipe { scheme, url, options: options.clone() };
        let (address, elsewhere) = (recipe.address(), recipe.elsewhere());
        let made = PerProcess::new();
        // What is wrong with the settings is said now.
        made.get(|| recipe.make())?;
        Ok((Self { kind: Kind::Made { recipe, made }, address, elsewhere, secrets }, folder))
    }

    /// The same, but where the address is that of a file, of its folder.
    pub(crate) fn parent(self) -> Self {
        let folder = self.address.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        Self { address: folder, ..self }
    }

    /// Where it lies, for everybody the same.
    pub(crate) fn source(&self) -> String {
        format!("{}{}", self.address, self.elsewhere)
    }

    /// Where a file in it lies.
    pub(crate) fn source_of(&self, file: &str) -> String {
        format!("{}/{file}{}", self.address, self.elsewhere)
    }

    pub(crate) fn get(&self) -> Result<Arc<dyn ObjectStore>> {
        match &self.kind {
            Kind::Given(store) => Ok(store.clone()),
            Kind::Made { recipe, made } => Ok(Arc::clone(&*made.get(|| recipe.make())?)),
        }
    }

    /// A message without what is secret.
    pub(crate) fn hide(&self, message: &str) -> String {
        self.secrets.iter().fold(message.to_owned(), |message, secret| message.replace(secret, "..."))
    }

    /// Whether one can ask what is there.
    pub(crate) fn lists(&self) -> bool {
        !matches!(&self.kind, Kind::Made { recipe, .. } if recipe.scheme == ObjectStoreScheme::Http)
    }

    /// What to do when access is denied.
    pub(crate) fn advice(&self) -> &'static str {
        match &self.kind {
            Kind::Made { recipe, .. } if recipe.options.from_env || recipe.options.from_machine => {
                "look at the credentials of the environment"
            }
            _ => "give credentials as settings, or let them be read with from_env",
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "token", "key", "sas", "password", "credential"].iter().any(|part| name.contains(part))
}

impl Recipe {
    fn setting(&self, wanted: &[&str]) -> Option<&str> {
        let named =
            |(name, _): &&(String, String)| wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
        self.options.settings.iter().rev().find(named).map(|(_, value)| value.as_str())
    }

    fn address(&self) -> String {
        let address = self.url.as_str().trim_end_matches('/');
        match address.strip_prefix("s3a://") {
            Some(rest) => format!("s3://{rest}"),
            None => address.to_owned(),
        }
    }

    fn elsewhere(&self) -> String {
        let account = self.setting(&["account_name", "azure_storage_account_name"]);
        let endpoint =
            self.setting(&["endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url", "base_url"]);
        match (endpoint, account.filter(|_| self.url.username().is_empty())) {
            (Some(endpoint), _) => format!("?endpoint={}", endpoint.trim_end_matches('/')),
            (None, Some(account)) => format!("?account={account}"),
            (None, None) => String::new(),
        }
    }

    fn make(&self) -> Result<Arc<dyn ObjectStore>> {
        match self.scheme {
            ObjectStoreScheme::Local => {
                self.no_settings()?;
                Ok(Arc::new(object_store::local::LocalFileSystem::new()))
            }
            #[cfg(feature = "aws")]
            ObjectStoreScheme::AmazonS3 => self.s3(),
            #[cfg(feature = "gcp")]
            ObjectStoreScheme::GoogleCloudStorage => self.gcs(),
            #[cfg(feature = "azure")]
            ObjectStoreScheme::MicrosoftAzure => self.azure(),
            #[cfg(feature = "http")]
            ObjectStoreScheme::Http => self.http(),
            _ => Err(invalid(format!(
                "url: {}:// takes the object stores of limnion-clouds, which are not installed",
                self.url.scheme()
            ))
            .suggest("pip install \"limnion[clouds]\"")),
        }
    }

    fn no_settings(&self) -> Result<()> {
        match self.options.settings.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(format!("a folder has no settings, got {name:?}"))),
        }
    }
}

#[cfg(feature = "client")]
mod clouds {
    use super::*;
    use object_store::RetryConfig;

    /// A builder with its settings, each of which has to be known.
    macro_rules! with_settings {
        ($recipe:expr, $builder:expr, $Key:ty) => {{
            let mut builder = $builder;
            for (name, value) in &$recipe.options.settings {
                let key: $Key = name.to_ascii_lowercase().parse().map_err(|_| unknown(name, $recipe))?;
                builder = builder.with_config(key, value);
            }
            builder
        }};
    }

    fn unknown(name: &str, recipe: &Recipe) -> Error {
        invalid(format!("settings of {}:// know no {name:?}", recipe.url.scheme()))
            .suggest("for example endpoint, region, allow_http, timeout")
    }

    fn unusable(error: &object_store::Error) -> Error {
        let why = match error {
            object_store::Error::Generic { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        invalid(format!("settings cannot be used: {why}"))
    }

    /// Whoever asks tries again, not the client.
    fn once() -> RetryConfig {
        // The cryptography of this process, unless it has chosen one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        RetryConfig { max_retries: 0, ..RetryConfig::default() }
    }

    impl Recipe {
        #[cfg(feature = "aws")]
        pub(super) fn s3(&self) -> Result<Arc<dyn ObjectStore>> {
            use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
            let begun =
                if self.options.from_env { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
            let mut builder = with_settings!(self, begun.with_url(self.url.as_str()), Key);
            let has = |key: Key| builder.get_config_value(&key).is_some();
            let signs = self.options.from_machine
                || has(Key::AccessKeyId)
                || has(Key::SecretAccessKey)
                || has(Key::WebIdentityTokenFile)
                || has(Key::ContainerCredentialsRelativeUri)
                || has(Key::ContainerCredentialsFullUri)
                || has(Key::MetadataEndpoint);
            if !signs {
                builder = builder.with_skip_signature(true);
            }
            let made = builder.with_retry(once()).build();
            Ok(Arc::new(made.map_err(|error| unusable(&error))?))
        }

        #[cfg(feature = "gcp")]
        pub(super) fn gcs(&self) -> Result<Arc<dyn ObjectStore>> {
            use object_store::StaticCredentialProvider;
            use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey as Key};
            let begun = match self.options.from_env {
                true => GoogleCloudStorageBuilder::from_env(),
                false => GoogleCloudStorageBuilder::new(),
            };
            let mut builder = with_settings!(self, begun.with_url(self.url.as_str()), Key);
            let has = |key: Key| builder.get_config_value(&key).is_some();
            let home = || {
                let home = std::env::var_os(if cfg!(windows) { "APPDATA" } else { "HOME" });
                let file = match cfg!(windows) {
                    true => "gcloud/application_default_credentials.json",
                    false => ".config/gcloud/application_default_credentials.json",
                };
                home.is_some_and(|home| std::path::Path::new(&home).join(file).exists())
            };
            let signs = self.options.from_machine
                || has(Key::ServiceAccount)
                || has(Key::ServiceAccountKey)
                || has(Key::ApplicationCredentials)
                || self.options.from_env && home();
            if !signs {
                // Given credentials keep the builder from looking for some.
                let nobody = GcpCredential { bearer: String::new() };
                builder = builder
                    .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)))
                    .with_skip_signature(true);
            }
            let made = builder.with_retry(once()).build();
            Ok(Arc::new(made.map_err(|error| unusable(&error))?))
        }

        #[cfg(feature = "azure")]
        pub(super) fn azure(&self) -> Result<Arc<dyn ObjectStore>> {
            use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
            let begun = match self.options.from_env {
                true => MicrosoftAzureBuilder::from_env(),
                false => MicrosoftAzureBuilder::new(),
            };
            // az://container@account is what we call it.
            let begun = match (self.url.username(), self.url.host_str()) {
                (container, Some(account)) if !container.is_empty() && !account.contains('.') => {
                    begun.with_container_name(container).with_account(account)
                }
                _ => begun.with_url(self.url.as_str()),
            };
            let mut builder = with_settings!(self, begun, Key);
            let has = |key: Key| builder.get_config_value(&key).is_some();
            let set = |key: Key| builder.get_config_value(&key).is_some_and(|value| value == "true");
            let signs = self.options.from_machine
                || has(Key::AccessKey)
                || has(Key::SasKey)
                || has(Key::Token)
                || has(Key::ClientSecret)
                || has(Key::FederatedTokenFile)
                || has(Key::MsiEndpoint)
                || has(Key::FabricTokenServiceUrl)
                || set(Key::UseAzureCli)
                || set(Key::UseEmulator);
            if !signs {
                builder = builder.with_skip_signature(true);
            }
            let made = builder.with_retry(once()).build();
            Ok(Arc::new(made.map_err(|error| unusable(&error))?))
        }

        #[cfg(feature = "http")]
        pub(super) fn http(&self) -> Result<Arc<dyn ObjectStore>> {
            use object_store::ClientConfigKey as Key;
            use object_store::http::HttpBuilder;
            let host = &self.url[..url::Position::BeforePath];
            // Who writes http:// has allowed it.
            let plain = (self.url.scheme() == "http").to_string();
            let begun = HttpBuilder::new().with_url(host).with_config(Key::AllowHttp, plain);
            let made = with_settings!(self, begun, Key).with_retry(once()).build();
            Ok(Arc::new(made.map_err(|error| unusable(&error))?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, settings: &[(&str, &str)]) -> Result<(Store, Path)> {
        let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Store::at(address, &ObjectOptions { settings, ..ObjectOptions::default() })
    }

    #[test]
    #[cfg(all(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
    fn addresses_of_all_kinds_are_understood() {
        for (address, folder) in [
            ("s3://bucket/a/b", "a/b"),
            ("s3://bucket", ""),
            ("gs://bucket/a/", "a"),
            ("az://container@account/a", "a"),
            ("https://example.com/a", "a"),
            ("http://127.0.0.1:1/a", "a"),
            ("file:///tmp/a", "tmp/a"),
        ] {
            let (_, path) = at(address, &[]).unwrap_or_else(|error| panic!("{address}: {error}"));
            assert_eq!(path.as_ref(), folder, "{address}");
        }
    }

    #[test]
    #[cfg(all(feature = "aws", feature = "azure"))]
    fn what_cannot_be_used_is_said_when_it_is_given() {
        for (address, settings, message) in [
            ("nothing", &[][..], "url must be the address"),
            ("ftp://host/a", &[], "url must be the address"),
            ("memory:///", &[], "nobody else's"),
            ("s3://bucket/a?x=1", &[], "nothing behind its path"),
            ("https://me:word@host/a", &[], "must not have a password"),
            ("s3://bucket", &[("endpiont", "x")], "know no \"endpiont\""),
            ("s3://bucket", &[("access_key_id", "x")], "settings cannot be used"),
            ("az://container", &[], "settings cannot be used"),
            ("file:///tmp", &[("region", "x")], "has no settings"),
        ] {
            let error = at(address, settings).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(message), "{address}: {error}");
            assert!(!error.to_string().contains("word@"), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "aws")]
    fn the_same_bucket_at_another_endpoint_is_another_source_and_secrets_stay_secret() {
        let (here, _) = at("s3://bucket/a/", &[]).unwrap();
        let settings = [
            ("endpoint", "http://host:9000/"),
            ("access_key_id", "knownid"),
            ("secret_access_key", "s3cr3t"),
        ];
        let (there, _) = at("s3a://bucket/a", &settings).unwrap();
        assert_eq!(here.source_of("x.npy"), "s3://bucket/a/x.npy");
        assert_eq!(there.source_of("x.npy"), "s3://bucket/a/x.npy?endpoint=http://host:9000");
        assert_eq!(there.hide("with s3cr3t"), "with ...");
        let options = ObjectOptions {
            settings: vec![("token".to_owned(), "s3cr3t".to_owned())],
            ..ObjectOptions::default()
        };
        assert!(!format!("{options:?}").contains("s3cr3t"));
    }
}
