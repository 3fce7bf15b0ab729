//! Programs that tests start: where ours is, and foreign ones with a time limit.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The `lockstep` program: `LOCKSTEP_BIN`, else the newest build in our own target directory.
///
/// # Panics
/// If there is none.
pub fn lockstep() -> PathBuf {
    if let Some(path) = std::env::var_os("LOCKSTEP_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test knows its own program");
    let target = own
        .ancestors()
        .nth(3)
        .expect("tests lie in <target>/<profile>/deps");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("lockstep"));
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    built
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(age)
        .expect("no lockstep program: cargo build --release --bin lockstep, or set LOCKSTEP_BIN")
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None`: by a signal, or killed at the limit.
    pub code: Option<i32>,
    /// Standard output and error, in that order.
    pub text: String,
    /// It had to be killed.
    pub late: bool,
}

impl Ended {
    /// The text, if it ended with success.
    ///
    /// # Panics
    /// If it did not.
    pub fn success(self) -> String {
        assert_eq!((self.code, self.late), (Some(0), false), "{}", self.text);
        self.text
    }
}

/// Runs a program to its end, at most so long.
///
/// # Panics
/// If it can't be started: tests need what CONTRIBUTING lists.
pub fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    limit: Duration,
) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, limit)
}

/// As [`run`], for a command that was prepared.
///
/// # Panics
/// As [`run`].
pub fn run_command(mut command: Command, limit: Duration) -> Ended {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{name} can't be started ({error}): apt-get install libiscsi-bin qemu-utils qemu-block-extra e2fsprogs")
    });
    let pid = rustix::process::Pid::from_child(&child);
    let waiter = std::thread::spawn(move || child.wait_with_output());
    let start = Instant::now();
    while !waiter.is_finished() && start.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(5));
    }
    let late = !waiter.is_finished();
    if late {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let output: Output = waiter
        .join()
        .expect("the waiter only waits")
        .expect("a child can be waited for");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ended {
        code: output.status.code(),
        text: text.into_owned(),
        late,
    }
}
