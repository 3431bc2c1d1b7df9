//! Profiles on disk: a base is read from a file, and the woven profile goes into a bundle's
//! config.json.
//!
//! config.json is replaced in one step (a temporary file beside it, fsync, rename), so that a crash
//! never leaves half of it, and every other key stays as it was and where it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::error::{Context, Error};
use crate::linux::sys;
use crate::syscalls::profile::{self, Format, Request, Runtime, USUAL_CAPABILITIES};

/// The usual container profile, as Debian's golang-github-containers-common and the other
/// distributions ship it.
const DEFAULT_PROFILE: &str = "/usr/share/containers/seccomp.json";

/// What a profile is woven into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Base {
    /// Everything is allowed
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

/// How a profile is asked for on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) base: Option<Base>,
    pub(crate) runtime: Runtime,
    pub(crate) listener_path: Option<&'a str>,
    /// Calls that have no names are denied already, by [`profile::denial`].
    pub(crate) is_denied: bool,
}

impl<'a> Wish<'a> {
    fn request(self, format: Format, capabilities: &'a [&'a str]) -> Request<'a> {
        Request {
            format,
            runtime: self.runtime,
            listener_path: self.listener_path,
            capabilities,
            wait_killable: sys::seccomp_knows_wait_killable(),
            is_denied: self.is_denied,
        }
    }
}

/// The profile as a whole file.
pub(crate) fn standalone(wish: Wish, format: Format) -> Result<Map<String, Value>, Error> {
    let base = wish.base.unwrap_or(Base::Allow);
    profile::weave(&base.load()?, &wish.request(format, &USUAL_CAPABILITIES)).map_err(|reason| {
        Error::Json {
            path: base.path(),
            reason,
        }
    })
}

/// Puts the profile into `bundle`/config.json. Without a wish for a base, a profile that is there
/// is extended. The result is `false` if it lets calls through that cannot be answered, since they
/// have no names.
pub(crate) fn install(bundle: &Path, wish: Wish) -> Result<bool, Error> {
    // A symbolic link stays one: its target is replaced.
    let path = bundle.join("config.json");
    let path = fs::canonicalize(&path).map_err(|source| Error::at(path, source))?;
    let mut config = read_object(&path)?;
    weave_into(&mut config, &path, wish)?;
    replace(&path, &config)?;
    let profile = config
        .get("linux")
        .and_then(|linux| linux.get("seccomp")?.as_object());
    let is_open = profile.is_some_and(profile::is_open);
    Ok(!is_open || profile::denial().is_none())
}

/// Puts the profile into a config.json that was read from `path`.
pub(crate) fn weave_into(
    config: &mut Map<String, Value>,
    path: &Path,
    wish: Wish,
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
        .ok_or_else(|| wrong("its \"linux\" is no object".to_owned()))?;
    let base = match (wish.base, linux.get("seccomp")) {
        (None, Some(Value::Object(present))) => present.clone(),
        (None, Some(Value::Null) | None) => Base::Allow.load()?,
        (None, Some(_)) => return Err(wrong("its \"linux.seccomp\" is no object".to_owned())),
        (Some(base), _) => base.load()?,
    };
    let woven = profile::weave(&base, &wish.request(Format::Oci, &capabilities)).map_err(wrong)?;
    linux.insert("seccomp".into(), Value::Object(woven));
    Ok(())
}

/// process.capabilities.bounding
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

/// Replaces the file at once, with its mode kept.
pub(crate) fn replace(path: &Path, config: &Map<String, Value>) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let before = fs::metadata(path)?;
        let mut file = NamedTempFile::new_in(directory)?;
        let made = file.as_file().metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            // As root on somebody else's bundle: it stays somebody else's. As somebody else on
            // root's: who may put a file into the directory may put one of her own there.
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
