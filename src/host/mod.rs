//! What a user asks of this host: can it do the job (`check`), who runs on it (`look`), make it the
//! habit (`install`).

pub(crate) mod check;
pub(crate) mod install;
pub(crate) mod look;
