//! What a task is like, all of it from the seed and the task's number, so that host and worker agree
//! without a word.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::{Class, SubmitOptions};

use super::random::{Random, digest, fill};

/// Longest payload and longest reply.
pub(super) const LONGEST: usize = 1 << 20;
/// The engine's default number of starts.
pub(super) const ATTEMPTS: u32 = 2;
/// The engine's default deadline of IO-bound tasks.
pub(super) const IO_DEADLINE: Duration = Duration::from_millis(50);
/// The code of a task that ends early because it was asked to.
pub(super) const CODE_CANCELLED: i32 = 77;
/// The code of a task that fails as planned.
pub(super) const CODE_PLANNED: i32 = 88;

/// What the handler does before it replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Echo,
    /// Sleeps in short naps and looks whether it is cancelled.
    Sleep {
        us: u64,
    },
    /// Uses the processor.
    Spin {
        us: u64,
    },
    /// Reports its progress.
    Steps {
        count: u64,
    },
    /// Fails in its first starts.
    Fail {
        times: u32,
    },
    /// Kills its process in its first starts.
    Die {
        how: Death,
        times: u32,
    },
    /// Never ends by itself; looks whether it is cancelled unless it is deaf.
    Hang {
        deaf: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Reads where nothing is mapped.
    Segfault,
    Abort,
    Exit,
}

/// How it is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Copy,
    /// Waits for room.
    Patient,
    Batch,
    Loan,
}

/// What the host does to it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meddling {
    None,
    Cancel,
    CancelKill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) number: u64,
    pub(super) class: Class,
    pub(super) priority: i32,
    pub(super) deed: Deed,
    pub(super) route: Route,
    pub(super) meddling: Meddling,
    /// Some thread waits for its id.
    pub(super) awaited: bool,
    /// Leaves to the engine's defaults what it can.
    by_default: bool,
    pub(super) max_attempts: u32,
    pub(super) deadline: Option<Duration>,
    pub(super) retry_failed: bool,
    pub(super) retry_timed_out: bool,
    payload_len: usize,
    reply_len: usize,
    salt: u64,
}

impl Plan {
    pub(super) fn of(seed: u64, number: u64) -> Self {
        let mut random = Random::of(seed, number);
        let max_attempts = [1, 1, 1, 2, 3, 4][random.index(6)];
        let deed = deed(&mut random, max_attempts);
        let class = Class::ALL[random.index(2)];
        // A task that hangs has a deadline, or is cancelled by force.
        let (mut deadline, mut meddling) = (None, meddling(&mut random));
        match deed {
            Deed::Hang { .. } if random.chance(300) => meddling = Meddling::CancelKill,
            Deed::Hang { .. } => deadline = Some(random.between(2, 10)),
            _ if random.chance(30) => deadline = Some(random.between(1, 20)),
            _ => {}
        }
        let deadline = deadline.map(Duration::from_millis);
        let by_default = random.chance(200);
        Self {
            number,
            class,
            priority: [-3, -1, 0, 0, 0, 0, 1, 3][random.index(8)],
            deed,
            route: match random.below(10) {
                0..=3 => Route::Copy,
                4 => Route::Patient,
                5..=7 => Route::Batch,
                _ => Route::Loan,
            },
            meddling,
            awaited: random.chance(100),
            by_default,
            max_attempts: if by_default { ATTEMPTS } else { max_attempts },
            deadline: match class {
                Class::IoBound if by_default => deadline.or(Some(IO_DEADLINE)),
                _ => deadline,
            },
            retry_failed: random.chance(500),
            retry_timed_out: random.chance(500),
            payload_len: 8 + length(&mut random, 32),
            reply_len: length(&mut random, 152),
            salt: random.next(),
        }
    }

    /// Begins with the number.
    pub(super) fn write_payload(&self, bytes: &mut [u8]) {
        let (head, body) = bytes.split_at_mut(8.min(bytes.len()));
        head.copy_from_slice(&self.number.to_le_bytes()[..head.len()]);
        fill(self.salt, body);
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.payload_len];
        self.write_payload(&mut bytes);
        bytes
    }

    pub(super) fn payload_len(&self) -> usize {
        self.payload_len
    }

    pub(super) fn reply_len(&self) -> usize {
        self.reply_len
    }

    /// The reply to a payload: other bytes if any byte of the payload is another, or its place.
    pub(super) fn write_reply(&self, payload: &[u8], reply: &mut [u8]) {
        fill(digest(payload), reply);
    }

    /// The reply that must come.
    pub(super) fn reply(&self) -> Vec<u8> {
        let mut reply = vec![0; self.reply_len];
        self.write_reply(&self.payload(), &mut reply);
        reply
    }

    /// The text of a planned failure.
    pub(super) fn failure(&self, attempt: u32) -> String {
        format!("task {} fails in attempt {attempt}", self.number)
    }

    pub(super) fn label(&self) -> [u8; 16] {
        let mut label = [0; 16];
        label[..8].copy_from_slice(&self.number.to_le_bytes());
        label[8..].copy_from_slice(&self.salt.to_le_bytes());
        label
    }

    pub(super) fn options(&self) -> SubmitOptions {
        let options = SubmitOptions::new()
            .class(self.class)
            .priority(self.priority)
            .user_data(self.number)
            .label(self.label())
            .max_attempts(if self.by_default {
                0
            } else {
                self.max_attempts
            })
            .retry_failed(self.retry_failed)
            .retry_timed_out(self.retry_timed_out);
        match self.deadline {
            Some(IO_DEADLINE) if self.by_default => options,
            Some(deadline) => options.deadline(deadline),
            None if self.by_default => options,
            None => options.deadline(Duration::MAX),
        }
    }
}

fn meddling(random: &mut Random) -> Meddling {
    match random.below(1000) {
        0..=39 => Meddling::Cancel,
        40..=43 => Meddling::CancelKill,
        _ => Meddling::None,
    }
}

fn deed(random: &mut Random, max_attempts: u32) -> Deed {
    // The last start goes well, or none does.
    let times = match random.chance(700) {
        true => u32::try_from(random.between(1, u64::from(max_attempts))).unwrap_or(1),
        false => u32::MAX,
    };
    match random.below(10_000) {
        0..=1499 => Deed::Sleep {
            us: random.between(1, 2_000),
        },
        1500..=2499 => Deed::Spin {
            us: random.between(1, 300),
        },
        2500..=2799 => Deed::Steps {
            count: random.between(1, 50),
        },
        2800..=3099 => Deed::Fail { times },
        3100..=3159 => Deed::Die {
            how: [Death::Segfault, Death::Abort, Death::Exit][random.index(3)],
            times,
        },
        3160..=3175 => Deed::Hang {
            deaf: random.chance(500),
        },
        _ => Deed::Echo,
    }
}

/// Mostly short, of every size class up to [`LONGEST`].
fn length(random: &mut Random, inline: u64) -> usize {
    let longest = match random.below(1000) {
        0 => LONGEST as u64 - 8,
        1..=10 => 64 << 10,
        11..=110 => 4 << 10,
        111..=300 => 256,
        _ => inline,
    };
    usize::try_from(random.between(0, longest)).unwrap_or_default() // below `LONGEST`
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_plan() {
        for number in 0..1000 {
            let plan = Plan::of(9, number);
            assert_eq!(plan, Plan::of(9, number));
            let payload = plan.payload();
            assert!(payload.len() <= LONGEST && plan.reply_len() <= LONGEST);
            assert_eq!(payload[..8], number.to_le_bytes());
            assert_eq!(plan.reply().len(), plan.reply_len());
        }
    }

    #[test]
    fn every_kind_of_task_comes_up() {
        let plans: Vec<Plan> = (0..20_000).map(|number| Plan::of(1, number)).collect();
        let some = |what: fn(&Plan) -> bool| assert!(plans.iter().any(what));
        some(|p| p.payload_len == 8);
        some(|p| p.payload_len > 64 << 10);
        some(|p| p.reply_len == 0);
        some(|p| p.reply_len > 64 << 10);
        some(|p| matches!(p.deed, Deed::Hang { deaf: true }));
        some(|p| matches!(p.deed, Deed::Die { times: 1, .. } if p.max_attempts > 1));
        some(|p| {
            matches!(
                p.deed,
                Deed::Die {
                    times: u32::MAX,
                    ..
                }
            )
        });
        some(|p| p.max_attempts == 1 && p.meddling == Meddling::CancelKill);
    }
}
