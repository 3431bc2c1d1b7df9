//! [`Terminal`]: an interactive shell at a real pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};

use super::place::Place;
use super::program::tool;
use super::run::{end, until};

#[derive(Debug)]
pub(crate) struct Terminal {
    shell: Child,
    keyboard: File,
    /// What has appeared so far.
    screen: Arc<Mutex<Vec<u8>>>,
    /// Up to here it has been looked at.
    seen: usize,
    slave: OwnedFd,
}

impl Terminal {
    /// bash, run by the unprivileged user, with `$S` for the built binary.
    pub(crate) fn open(place: &Place) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 300,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let slave = || Stdio::from(pty.slave.try_clone().expect("a second descriptor"));
        let shell = place
            .as_user(tool("setsid"))
            // The tests may have been started in the background, where keys do nothing.
            .args(["--ctty", "--wait", "env", "--default-signal"])
            .args(["bash", "--norc", "--noprofile", "-i"])
            .env("S", place.binary())
            .env("PS1", "> ")
            .env("TERM", "dumb")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid");
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a second descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // EIO when the last user of the terminal has gone.
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                let mut screen = writer.lock().unwrap_or_else(PoisonError::into_inner);
                screen.extend_from_slice(&chunk[..length]);
            }
        });
        let mut terminal = Self {
            shell,
            keyboard,
            screen,
            seen: 0,
            slave: pty.slave,
        };
        terminal.see("> ");
        terminal
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("writing to a terminal");
    }

    /// Types a line. What is typed is echoed, so it must not contain what is waited for.
    pub(crate) fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\n"));
    }

    /// Waits until `text` appears behind what was seen before.
    #[track_caller]
    pub(crate) fn see(&mut self, text: &str) {
        let screen = Arc::clone(&self.screen);
        let seen = self.seen;
        let found = std::panic::catch_unwind(|| {
            until(text, || {
                let screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
                let new = &screen[seen..];
                let at = new
                    .windows(text.len())
                    .position(|part| part == text.as_bytes());
                at.map(|at| seen + at + text.len())
            })
        });
        match found {
            Ok(seen) => self.seen = seen,
            Err(_) => panic!("{text:?} never appeared on the terminal:\n{}", self.text()),
        }
    }

    /// Everything that has appeared.
    pub(crate) fn text(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// As when somebody drags the window's corner.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let slave = self.slave.try_clone().expect("a second descriptor");
        let mut stty = Command::new(tool("stty"));
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        super::run::run_with_input(&mut stty, slave.into()).ok();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}
