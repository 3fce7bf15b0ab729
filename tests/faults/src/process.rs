//! A daemon in its network namespace, and its log.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// An orderly stop takes no longer, on a busy machine too.
const STOP: Duration = Duration::from_secs(60);
const MISSING: &str = "`ip` is missing: apt-get install iproute2";
/// A daemon that was started takes signals within this, on a busy machine too.
const YOUNG: Duration = Duration::from_secs(3);

/// How to start something, and while it runs its process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    space: String,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    paused: bool,
    started: Option<Instant>,
}

impl Process {
    /// `lockstep` with these arguments; starts nothing.
    #[must_use]
    pub const fn new(space: String, arguments: Vec<String>, log: PathBuf) -> Self {
        Self {
            space,
            arguments,
            log,
            child: None,
            paused: false,
            started: None,
        }
    }

    /// Starts it. It ends with the thread that calls this.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.log.display());
        }
        let mut log = File::options().create(true).append(true).open(&self.log)?;
        std::io::Write::write_all(&mut log, b"--- started ---\n")?;
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.command(&arguments)?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context(MISSING)?);
        self.started = Some(Instant::now());
        Ok(())
    }

    /// `lockstep` with other arguments on the same machine, to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context(MISSING)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]);
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        command.arg(program()?).args(arguments);
        command.stdin(Stdio::null()).env("NO_COLOR", "1");
        Ok(command)
    }

    /// Whether it was started so lately that it may not listen to signals yet.
    #[must_use]
    pub fn is_young(&self) -> bool {
        self.started
            .is_some_and(|started| started.elapsed() < YOUNG)
    }

    /// Whether it was started and not stopped since.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id while it is on.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, if it did so by itself.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// SIGKILL, and waits for nothing.
    pub fn kill_soon(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.kill_soon();
        if let Some(mut child) = self.child.take() {
            let _ended = child.wait();
        }
        self.paused = false;
    }

    /// SIGSTOP, or SIGCONT.
    pub fn pause(&mut self, paused: bool) {
        self.signal(if paused { Signal::STOP } else { Signal::CONT });
        self.paused = paused && self.is_on();
    }

    /// Whether it is paused.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end, or not with code 0.
    pub fn stop(&mut self) -> Result<()> {
        self.ask_to_stop();
        self.wait_stopped()
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end after [`Self::ask_to_stop`].
    ///
    /// # Errors
    /// It does not end, or not with code 0.
    pub fn wait_stopped(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.is_on() {
            if let Some(status) = self.ended()? {
                if !status.success() {
                    bail!(
                        "an orderly stop ended with {status}; log: {}",
                        self.log.display()
                    );
                }
                return Ok(());
            }
            if begun.elapsed() > STOP {
                bail!(
                    "SIGTERM was ignored for {STOP:?}; log: {}",
                    self.log.display()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It may have ended by itself: whoever asks next finds out.
            let _sent = kill_process(Pid::from_child(child), signal);
        }
    }

    /// What it said so far, over all runs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |_| String::new(),
            |it| String::from_utf8_lossy(&it).into_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The `lockstep` program: `LOCKSTEP_BIN`, else the one beside this program.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LOCKSTEP_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|it| it.join("lockstep"));
    match beside
        .into_iter()
        .find(|path: &PathBuf| Path::is_file(path))
    {
        Some(path) => Ok(path),
        None => bail!(
            "no lockstep program: cargo build --release --bin lockstep, and run the release build of this one, or set LOCKSTEP_BIN"
        ),
    }
}
