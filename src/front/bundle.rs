//! Profiles on disk: reads a base profile, and writes the resulting profile into a bundle's
//! config.json.
//!
//! config.json is replaced atomically (temporary file, fsync, rename): a crash never leaves a
//! partial file. All other keys keep their values and their order.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::{library, preload};
use crate::error::{Context, Error};
use crate::linux::sys;
use crate::syscalls::Scope;
use crate::syscalls::profile::{self, Format, Request, Runtime, USUAL_CAPABILITIES};
use crate::wire::fast::FastPath;
use crate::wire::permissions::Permissions;

/// The usual container profile, from Debian's golang-github-containers-common and its counterparts
/// in other distributions.
const DEFAULT_PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The profile that the rules are added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Base {
    /// A profile that allows everything
    Allow,
    /// The usual container profile, /usr/share/containers/seccomp.json
    Default,
}

impl Base {
    fn load(self) -> Result<Map<String, Value>, Error> {
        match self {
            Self::Allow => Ok(profile::allow_all()),
            Self::Default => read_object(Path::new(DEFAULT_PROFILE)).map_err(|error| match error {
                Error::File { path, source } if source.kind() == io::ErrorKind::NotFound => {
                    Error::File {
                        path,
                        source: io::Error::new(
                            source.kind(),
                            "the usual container profile is not installed: on Debian it comes with \
                             golang-github-containers-common; or use --base allow",
                        ),
                    }
                }
                error => error,
            }),
        }
    }

    fn path(self) -> PathBuf {
        match self {
            Self::Allow => PathBuf::from("--base allow"),
            Self::Default => PathBuf::from(DEFAULT_PROFILE),
        }
    }
}

/// The options for a profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProfileOptions<'a> {
    pub(crate) base: Option<Base>,
    pub(crate) runtime: Runtime,
    pub(crate) listener_path: Option<&'a str>,
    /// Calls unknown to libseccomp are denied already, by [`profile::denial`].
    pub(crate) is_denied: bool,
    pub(crate) scope: Scope,
}

impl<'a> ProfileOptions<'a> {
    fn request(self, format: Format, capabilities: &'a [&'a str]) -> Request<'a> {
        Request {
            format,
            runtime: self.runtime,
            listener_path: self.listener_path,
            capabilities,
            wait_killable: sys::seccomp_knows_wait_killable(),
            is_denied: self.is_denied,
            scope: self.scope,
        }
    }
}

/// The profile as a file of its own.
pub(crate) fn standalone(
    options: ProfileOptions,
    format: Format,
) -> Result<Map<String, Value>, Error> {
    let base = options.base.unwrap_or(Base::Allow);
    profile::weave(&base.load()?, &options.request(format, &USUAL_CAPABILITIES)).map_err(|reason| {
        Error::Json {
            path: base.path(),
            reason,
        }
    })
}

/// Adds the rules to `bundle`/config.json. Unless a base is given, the profile in it is extended.
/// Returns `false` if the profile allows calls that cannot be handled because libseccomp does not
/// know their names; and whether the container has the fast path.
///
/// `asked`: the permissions to check, which config.json then says.
pub(crate) fn install(
    bundle: &Path,
    mut options: ProfileOptions,
    asked: Option<Permissions>,
) -> Result<(bool, FastPath), Error> {
    // If it is a symbolic link, the link stays and its target is replaced.
    let path = bundle.join("config.json");
    let path = fs::canonicalize(&path).map_err(|source| Error::at(path, source))?;
    let mut config = read_object(&path)?;
    options.scope.permissions = permissions(&path, &config, asked)?;
    if let Some(asked) = asked {
        asked.annotate(&mut config);
    }
    weave_into(&mut config, &path, options)?;
    let rootfs = bundle.join(rootfs(&config));
    // The runtime directory may be empty when the container starts; the bundle is there.
    let fast = preload::add_to(&mut config, &rootfs, || library::place_in(bundle));
    replace(&path, &config)?;
    library::tidy(bundle, fast);
    let profile = config
        .get("linux")
        .and_then(|linux| linux.get("seccomp")?.as_object());
    let is_open = profile.is_some_and(profile::is_open);
    let is_whole = !is_open || profile::denial(options.scope.is_fast).is_none();
    Ok((is_whole, fast))
}

/// The permissions to check: those that were asked for, or those of the annotation in the
/// config.json that was read from `path`.
pub(super) fn permissions(
    path: &Path,
    config: &Map<String, Value>,
    asked: Option<Permissions>,
) -> Result<Permissions, Error> {
    let said = Permissions::of_config(config).map_err(|reason| Error::Json {
        path: path.to_owned(),
        reason,
    })?;
    Ok(asked.or(said).unwrap_or_default())
}

/// Adds the rules to a config.json that was read from `path`.
pub(crate) fn weave_into(
    config: &mut Map<String, Value>,
    path: &Path,
    options: ProfileOptions,
) -> Result<(), Error> {
    let wrong = |reason: String| Error::Json {
        path: path.to_owned(),
        reason,
    };
    let capabilities = capabilities(config);
    let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    let linux = config
        .entry("linux")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(|| wrong("its \"linux\" is not an object".to_owned()))?;
    let base = match (options.base, linux.get("seccomp")) {
        (None, Some(Value::Object(present))) => present.clone(),
        (None, Some(Value::Null) | None) => Base::Allow.load()?,
        (None, Some(_)) => return Err(wrong("its \"linux.seccomp\" is not an object".to_owned())),
        (Some(base), _) => base.load()?,
    };
    let woven =
        profile::weave(&base, &options.request(Format::Oci, &capabilities)).map_err(wrong)?;
    linux.insert("seccomp".into(), Value::Object(woven));
    Ok(())
}

/// The path of the root file system; if it is relative, then to the bundle.
pub(super) fn rootfs(config: &Map<String, Value>) -> &str {
    let path = config
        .get("root")
        .and_then(|root| root.get("path")?.as_str());
    path.unwrap_or("rootfs")
}

/// The names in process.capabilities.bounding.
fn capabilities(config: &Map<String, Value>) -> Vec<String> {
    let bounding = config
        .get("process")
        .and_then(|process| process.get("capabilities")?.get("bounding")?.as_array());
    bounding
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, Error> {
    let bytes = fs::read(path).at(path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Json {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Replaces the file atomically, keeping its mode and, if possible, its owner.
pub(crate) fn replace(path: &Path, config: &Map<String, Value>) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let before = fs::metadata(path)?;
        let mut file = NamedTempFile::new_in(directory)?;
        let made = file.as_file().metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            // Root keeps the owner of another user's file. A user who may write to the directory
            // of another user's file cannot keep the owner, and may replace the file anyway.
            match fchown(file.as_file(), Some(before.uid()), Some(before.gid())) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        serde_json::to_writer_pretty(&mut file, config)?;
        file.write_all(b"\n")?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(before.mode()))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory)?.sync_all()
    };
    write().at(path)
}
