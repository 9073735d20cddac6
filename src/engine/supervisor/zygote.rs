//! The supervisor's zygote: what becomes of the engine when it dies, and a new one where that is
//! possible.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::{BACKOFF, HEALTHY, MAX_BACKOFF, Source, Supervisor, TICK};
use crate::config::Config;
use crate::engine::core::{Core, Phase};
use crate::engine::crash::Verdict;
use crate::engine::shared::{Locked, Shared};
use crate::error::{Error, Result};
use crate::sys::event::EpollSet;
use crate::sys::fork::FileIdentity;
use crate::sys::process::Exit;
use crate::sys::socket::Socket;
use crate::task::Class;
use crate::worker::zygote::{self, Role, ZygoteLink};

/// After so many zygotes that did not live, there is no further try.
const TRIES: u32 = 5;
/// What its notes are about.
const ABOUT: &str = "zygote";

/// The zygote, or the intention to start another.
pub(super) struct Helper {
    link: Option<ZygoteLink>,
    /// In a degraded engine: one that starts no workers, but removes the name if the host dies.
    janitor: Option<ZygoteLink>,
    since: Instant,
    /// It has started a worker.
    served: bool,
    /// What it said, or what is known, of why it starts none.
    trouble: Option<String>,
    /// Zygotes in a row that died young.
    failures: u32,
    /// Starts in a row that the system refused.
    refusals: u32,
    not_before: Instant,
    /// What the inherited descriptors were at the start: their numbers may mean others now.
    inherited: Vec<Option<FileIdentity>>,
}

impl Helper {
    /// Takes a new engine's zygote on.
    pub(super) fn adopt(link: ZygoteLink, shared: &Shared, sources: &EpollSet) -> Result<Self> {
        let mut helper = Self {
            link: None,
            janitor: None,
            since: Instant::now(),
            served: false,
            trouble: None,
            failures: 0,
            refusals: 0,
            not_before: Instant::now(),
            inherited: inherited(&shared.config),
        };
        helper.install(link, sources)?;
        Ok(helper)
    }

    /// Listens to a zygote from now on.
    fn install(&mut self, link: ZygoteLink, sources: &EpollSet) -> Result<()> {
        sources.add(&link.socket, Source::Zygote.key())?;
        sources.add(&link.process, Source::ZygoteDeath.key())?;
        self.link = Some(link);
        self.since = Instant::now();
        (self.served, self.trouble) = (false, None);
        Ok(())
    }

    pub(super) fn note_served(&mut self) {
        self.served = true;
    }

    pub(super) fn note_trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        self.link.as_ref().map(|link| &link.socket)
    }

    /// Lets it go on if somebody has stopped it.
    pub(super) fn resume(&self) {
        if let Some(link) = &self.link {
            link.process.resume();
        }
    }

    /// When another is started, at the earliest, if one is missing.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    pub(super) fn kill(&self) {
        if let Some(link) = &self.link {
            link.process.kill();
        }
    }

    /// Whether another zygote can take the place of a dead one: it needs nothing of the host's
    /// memory (programs only), and the descriptors that it hands down are still the same. One that
    /// is a program may fail for reasons that pass: as with worker programs, tries go on.
    fn can_be_replaced(&self, config: &Config) -> bool {
        let tries = self.failures < TRIES || config.has_zygote_program();
        config.is_program() && tries && inherited(config) == self.inherited
    }
}

fn inherited(config: &Config) -> Vec<Option<FileIdentity>> {
    let identify = |&fd: &i32| FileIdentity::of(fd);
    config.inherit.iter().map(identify).collect()
}

impl Supervisor {
    /// The zygote is gone. The workers that it has started go on.
    pub(super) fn lose_zygote(&mut self, core: &mut Core) {
        let Some(link) = self.zygote.link.take() else {
            return;
        };
        self.sources.remove(&link.socket);
        self.sources.remove(&link.process);
        let trouble = self.zygote.trouble.take();
        if trouble.is_some() || !link.process.wait_end(TICK) {
            link.process.kill(); // it has closed its socket only, or is of no use
            link.process.wait_end(TICK);
        }
        let exit = link.process.reap();
        drop(link); // nobody shall wait for it long
        let fruitless = self.shared.config.has_zygote_program() && !self.zygote.served;
        if fruitless || self.zygote.since.elapsed() < HEALTHY {
            self.zygote.failures = self.zygote.failures.saturating_add(1);
        } else {
            self.zygote.failures = 0;
        }
        self.zygote.not_before = Instant::now() + self.zygote_delay();
        let why = match trouble {
            Some(trouble) => Error::invalid(format!("the zygote program fails: {trouble}")),
            None => Error::Internal(format!(
                "the zygote ended before it had started a worker: {exit}"
            )),
        };
        if self.zygote.can_be_replaced(&self.shared.config) {
            log::warn!("the zygote died ({exit}): starting another");
        } else {
            self.degrade(core, &format!("the zygote died ({exit})"));
        }
        if fruitless {
            self.note_bad_zygote(core, &why);
        }
        if core.starting {
            core.start_failure.get_or_insert(why);
        }
        for worker in 0..core.lanes.len() {
            let Some(lane) = &mut core.lanes[worker] else {
                continue;
            };
            lane.orphaned = true;
            if lane.process.is_none() {
                // Asked for, and will not come.
                self.detach(core, worker);
                core.bury(worker, &Verdict::unreported(Exit::Unknown));
            }
        }
        core.pump_all(); // what waits for a worker that cannot come ends
        core.kept += 1; // whoever waits for the start looks again
    }

    /// A zygote that has started no worker counts as a failed start, of every class that has workers.
    fn note_bad_zygote(&mut self, core: &mut Core, why: &Error) {
        for class in Class::ALL {
            if self.shared.config.class(class).max > 0 {
                self.note_bad_start(core, class, why.to_string(), false);
            }
        }
    }

    fn zygote_delay(&self) -> Duration {
        match self.zygote.failures.max(self.zygote.refusals) {
            0 => Duration::ZERO,
            n => (BACKOFF * 2_u32.pow(n.min(10))).min(MAX_BACKOFF),
        }
    }

    fn degrade(&mut self, core: &mut Core, why: &str) {
        core.degraded = true;
        (core.notes).set(ABOUT, format!("{why}: no worker can be started any more"));
        if self.shared.control.os_name().is_some() {
            let nothing = Role::Program(Vec::new());
            self.zygote.janitor = self
                .start_zygote(&nothing, &[])
                .inspect_err(|e| log::warn!("nobody will remove the name if the host dies: {e}"))
                .ok();
        }
    }

    /// Forks a zygote of this engine that knows its name.
    fn start_zygote(&self, role: &Role, inherit: &[i32]) -> Result<ZygoteLink> {
        let link = zygote::start(role, inherit, &self.shared.config.sandbox)?;
        if let Some(name) = self.shared.control.os_name() {
            link.entrust(name)?;
        }
        Ok(link)
    }

    /// Starts another zygote in the place of a dead one. Lets the lock go meanwhile: forking a large
    /// host takes a while.
    pub(super) fn revive_zygote<'a>(
        &mut self,
        shared: &'a Shared,
        mut core: Locked<'a>,
    ) -> Locked<'a> {
        let gone = self.zygote.link.is_none() && !core.degraded;
        if !gone || core.phase >= Phase::Cancelling || Instant::now() < self.zygote.not_before {
            return core;
        }
        if !self.zygote.can_be_replaced(&self.shared.config) {
            self.degrade(&mut core, "no other zygote can be started");
            core.pump_all();
            return core;
        }
        drop(core);
        let config = &self.shared.config;
        let no_role = || Error::Internal("no role".into());
        let started = (config.role.as_ref().ok_or_else(no_role))
            .and_then(|role| self.start_zygote(role, &config.inherit));
        core = shared.lock();
        let installed = started.and_then(|link| self.zygote.install(link, &self.sources));
        match installed {
            Ok(()) => {
                core.notes.clear(ABOUT);
                self.zygote.refusals = 0;
            }
            Err(e) => {
                (core.notes).set(ABOUT, format!("the zygote cannot be started again: {e}"));
                self.zygote.refusals += 1;
                self.zygote.not_before = Instant::now() + self.zygote_delay();
                self.note_bad_zygote(&mut core, &e);
            }
        }
        core
    }
}
