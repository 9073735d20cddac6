//! Which worker gets which seat: settled when the engine starts, so that a replacement sits where its
//! predecessor sat. Also the words for it, and for what cannot be done.
#![forbid(unsafe_code)]

mod floor;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use self::floor::{Floor, order};
use crate::config::{ClassConfig, Config};
use crate::engine::notes::Notes;
use crate::placement::{self, Affinity, IoPriority, Scheduler};
use crate::sys::cpuset::Cpus;
use crate::sys::hugepages::{HugePages, SETTINGS};
use crate::sys::placement::{Seat, Step};
use crate::sys::topology::{self, Cpu, SYSFS};
use crate::task::Class;

/// A subject of the engine's notes, and what there is to say about it.
pub(crate) type Note = (&'static str, String);

/// The seats of an engine.
#[derive(Debug, Default)]
pub(crate) struct Seating {
    /// By worker slot.
    seats: Vec<Seat>,
    /// By class: what is done, in words.
    texts: [String; 2],
    /// What the arenas should lie in.
    pub(crate) huge_pages: Option<Arc<HugePages>>,
}

/// The subject of notes about huge pages.
pub(crate) const HUGE_PAGES: &str = "huge pages";

impl Seating {
    /// On the processors that the calling thread may use. What cannot be done is noted.
    pub(crate) fn on_this_machine(config: &Config, notes: &mut Notes) -> Self {
        let binds = |c: &ClassConfig| c.placement.affinity != Affinity::None;
        let mut cpus = Vec::new();
        if config.classes.iter().any(binds) {
            // If it cannot be told (there are more processors than fit in a set), there are none.
            let allowed = Cpus::allowed(None).unwrap_or_default();
            cpus = topology::read(Path::new(SYSFS), &allowed);
        }
        let (mut seating, troubles) = Self::plan(config, &cpus);
        for (subject, text) in troubles {
            notes.set(subject, text);
        }
        for class in Class::ALL {
            log::debug!("workers of class {}: {}", class.name(), seating.text(class));
        }
        if config.huge_pages == placement::HugePages::Advise {
            match HugePages::find(Path::new(SETTINGS)) {
                Ok(pages) => seating.huge_pages = Some(Arc::new(pages)),
                Err(why) => notes.set(HUGE_PAGES, format!("no huge pages: {why}")),
            }
        }
        seating
    }

    /// `cpus` are those that may be used.
    fn plan(config: &Config, cpus: &[Cpu]) -> (Self, Vec<Note>) {
        let mut notes = Vec::new();
        let bindings = Class::ALL.map(|class| {
            let affinity = &config.class(class).placement.affinity;
            let (binding, trouble) = match Binding::of(affinity, cpus) {
                _ if config.class(class).max == 0 => (Binding::None, None),
                Ok(found) => found,
                Err(why) => (
                    Binding::None,
                    Some(format!("are not bound to processors: {why}")),
                ),
            };
            notes.extend(trouble.map(|text| note(class, Step::Affinity, &text)));
            binding
        });
        let texts =
            Class::ALL.map(|class| describe(config.class(class), &bindings[class.index()], cpus));
        (
            Self {
                seats: seats(config, &bindings, cpus),
                texts,
                huge_pages: None,
            },
            notes,
        )
    }

    /// The seat of the worker in this slot.
    pub(crate) fn seat(&self, worker: u32) -> Seat {
        self.seats.get(worker as usize).copied().unwrap_or_default()
    }

    /// How the workers of a class are placed, in words; `none` if they are not.
    pub(crate) fn text(&self, class: Class) -> &str {
        &self.texts[class.index()]
    }

    /// What the kernel has lately refused about huge pages.
    pub(crate) fn refused_pages(&self) -> Option<String> {
        self.huge_pages.as_ref()?.refusal()
    }

    /// The note about a step that a worker could not take.
    pub(crate) fn refusal(&self, worker: u32, class: Class, step: Step, errno: i32) -> Note {
        note(class, step, &step.refusal(&self.seat(worker), errno))
    }
}

/// The seat of every worker slot.
fn seats(config: &Config, bindings: &[Binding; 2], cpus: &[Cpu]) -> Vec<Seat> {
    let [first, second] = &config.classes;
    // With the same list for both, the second class goes on where the first one ends.
    let go_on = if bindings[0] == bindings[1] {
        first.max * first.threads
    } else {
        0
    };
    let mut floor = Floor::new(cpus);
    let mut seats = vec![Seat::default(); config.max_workers() as usize];
    for (class, worker) in order([first, second].map(|c| (c.min, c.max))) {
        let (c, before) = if class == 0 {
            (first, (0, 0))
        } else {
            (second, (first.max, go_on))
        };
        let mut seat = Seat {
            nice: c.placement.nice,
            scheduler: c.placement.scheduler,
            io_priority: c.placement.io_priority,
            ..Seat::default()
        };
        match &bindings[class] {
            Binding::None => {}
            Binding::Spread => seat.cpus = floor.take(c.threads as usize),
            Binding::List(list) => {
                let start = (before.1 + worker * c.threads) as usize % list.len();
                let row = list.iter().cycle().skip(start).take(c.threads as usize);
                seat.cpus = row.copied().collect();
            }
            Binding::Node(node, members) => (seat.node, seat.cpus) = (Some(*node), *members),
        }
        seats[(before.0 + worker) as usize] = seat;
    }
    seats
}

/// What an affinity means on this machine.
#[derive(Debug, PartialEq, Eq)]
enum Binding {
    None,
    Spread,
    List(Vec<u32>),
    Node(u32, Cpus),
}

impl Binding {
    /// With something to say about it; or why it cannot be had.
    fn of(affinity: &Affinity, cpus: &[Cpu]) -> Result<(Self, Option<String>), String> {
        let all: Cpus = cpus.iter().map(|cpu| cpu.number).collect();
        match affinity {
            Affinity::None => Ok((Self::None, None)),
            _ if cpus.is_empty() => {
                Err("which may be used is not known (sched_getaffinity)".into())
            }
            Affinity::Spread => Ok((Self::Spread, None)),
            Affinity::List(list) => {
                let usable = |cpu: &u32| all.contains(*cpu);
                let (good, bad): (Vec<u32>, Vec<u32>) = list.iter().partition(|cpu| usable(cpu));
                let what = format!("{} do not exist or may not be used; {all} may", words(&bad));
                match (good.is_empty(), bad.is_empty()) {
                    (true, _) => Err(what),
                    (false, true) => Ok((Self::List(good), None)),
                    (false, false) => {
                        let text =
                            format!("are bound to the rest of their list of processors: {what}");
                        Ok((Self::List(good), Some(text)))
                    }
                }
            }
            Affinity::Node(node) => {
                let members = cpus.iter().filter(|cpu| cpu.node == *node);
                let members: Cpus = members.map(|cpu| cpu.number).collect();
                if members.is_empty() {
                    let nodes: Cpus = cpus.iter().map(|cpu| cpu.node).collect();
                    return Err(format!(
                        "node {node} has none that may be used; nodes {nodes} have"
                    ));
                }
                Ok((Self::Node(*node, members), None))
            }
        }
    }
}

// ---- words ----

fn note(class: Class, step: Step, what: &str) -> Note {
    let subjects = match step {
        Step::Affinity => ["affinity of class cpu", "affinity of class io"],
        Step::Memory => ["memory of class cpu", "memory of class io"],
        Step::Nice => ["niceness of class cpu", "niceness of class io"],
        Step::Scheduler => ["scheduling of class cpu", "scheduling of class io"],
        Step::IoPriority => ["I/O priority of class cpu", "I/O priority of class io"],
    };
    let text = format!("workers of class {} {what}", class.name());
    (subjects[class.index()], text)
}

/// The numbers of a list in their order, but not more than can be read.
fn words(list: &[u32]) -> String {
    const MOST: usize = 16;
    let mut words: Vec<String> = list.iter().take(MOST).map(u32::to_string).collect();
    if list.len() > MOST {
        words.push(format!("... ({} in all)", list.len()));
    }
    words.join(",")
}

fn describe(class: &ClassConfig, binding: &Binding, cpus: &[Cpu]) -> String {
    let mut parts = Vec::new();
    match binding {
        Binding::None => {}
        Binding::Spread => {
            let count = |of: fn(&Cpu) -> u32| cpus.iter().map(of).collect::<BTreeSet<_>>().len();
            parts.push(format!(
                "spread, {} of {} processors each (sockets: {}, nodes: {}, L3 caches: {}, cores: {})",
                (class.threads as usize).min(cpus.len()),
                cpus.len(),
                count(|cpu| cpu.package),
                count(|cpu| cpu.node),
                count(|cpu| cpu.l3),
                count(|cpu| cpu.core)
            ));
        }
        Binding::List(list) => parts.push(format!("processors {} in turn", words(list))),
        Binding::Node(node, members) => parts.push(format!("node {node}, processors {members}")),
    }
    let place = &class.placement;
    if place.nice != 0 {
        parts.push(format!("nice {:+}", place.nice));
    }
    match place.scheduler {
        Scheduler::Inherit => {}
        Scheduler::Normal => parts.push("SCHED_OTHER".into()),
        Scheduler::Batch => parts.push("SCHED_BATCH".into()),
        Scheduler::Idle => parts.push("SCHED_IDLE".into()),
    }
    match place.io_priority {
        IoPriority::Inherit => {}
        IoPriority::BestEffort(level) => parts.push(format!("I/O best effort {level}")),
        IoPriority::Idle => parts.push("I/O idle".into()),
    }
    if parts.is_empty() {
        return "none".into();
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::topology::fake::Machine;

    /// One class of `cpu` workers and one of `io` workers, each from its minimum to its maximum, with so
    /// many threads.
    fn config(cpu: (u32, u32, u32), io: (u32, u32, u32), affinity: &Affinity) -> Config {
        let mut config = Config::default();
        for (class, (min, max, threads)) in config.classes.iter_mut().zip([cpu, io]) {
            (class.min, class.max, class.threads) = (min, max, threads);
            class.placement.affinity = affinity.clone();
        }
        config
    }

    /// Where the workers sit, in the order of their slots.
    fn seated(config: &Config, machine: &Machine, allowed: &str) -> Vec<String> {
        let (seating, notes) = Seating::plan(config, &machine.read(allowed));
        assert_eq!(notes, []);
        let slots = 0..config.max_workers();
        slots.map(|w| seating.seat(w).cpus.to_string()).collect()
    }

    fn spread(workers: u32, threads: u32) -> Config {
        config((workers, workers, threads), (0, 0, 1), &Affinity::Spread)
    }

    #[test]
    fn cores_come_before_their_second_threads_and_then_it_begins_again() {
        let machine = Machine::new(1, 1, 4, 2); // 0 and 4 share a core, ...
        let seats = seated(&spread(10, 1), &machine, "0-7");
        assert_eq!(seats, ["0", "1", "2", "3", "4", "5", "6", "7", "0", "1"]);
    }

    #[test]
    fn nodes_and_caches_take_turns() {
        let two_nodes = Machine::new(2, 1, 2, 2); // cores 0 1 | 2 3
        let seats = seated(&spread(8, 1), &two_nodes, "0-7");
        assert_eq!(seats, ["0", "2", "1", "3", "4", "6", "5", "7"]);
        let four_caches = Machine::new(2, 2, 2, 1); // 0 1, 2 3 | 4 5, 6 7
        let seats = seated(&spread(8, 1), &four_caches, "0-7");
        assert_eq!(seats, ["0", "4", "2", "6", "1", "5", "3", "7"]);
    }

    #[test]
    fn the_threads_of_a_worker_share_a_cache_if_one_is_large_enough() {
        let machine = Machine::new(2, 2, 4, 2); // 16 cores; caches of 4
        let seats = seated(&spread(4, 4), &machine, "0-31");
        assert_eq!(seats, ["0-3", "8-11", "4-7", "12-15"]);
        // Eight threads: with the second threads of the cores; sixteen: a node; more than there are: all.
        assert_eq!(
            seated(&spread(2, 8), &machine, "0-31"),
            ["0-3,16-19", "8-11,24-27"]
        );
        assert_eq!(
            seated(&spread(2, 16), &machine, "0-31"),
            ["0-7,16-23", "8-15,24-31"]
        );
        assert_eq!(seated(&spread(1, 64), &machine, "0-31"), ["0-31"]);
        // Three threads do not leave the fourth core empty while there is another cache.
        assert_eq!(
            seated(&spread(4, 3), &machine, "0-31"),
            ["0-2", "8-10", "4-6", "12-14"]
        );
    }

    #[test]
    fn only_what_may_be_used_is_given_out() {
        let machine = Machine::new(2, 1, 2, 2);
        assert_eq!(
            seated(&spread(4, 1), &machine, "1,5,7"),
            ["1", "7", "5", "1"]
        );
        assert_eq!(seated(&spread(1, 4), &machine, "1,5,7"), ["1,5,7"]);
    }

    #[test]
    fn without_any_topology_every_processor_is_as_good() {
        let machine = Machine::bare();
        assert_eq!(seated(&spread(4, 1), &machine, "0-2"), ["0", "1", "2", "0"]);
    }

    #[test]
    fn both_classes_share_the_floor_and_those_to_come_sit_last() {
        let machine = Machine::new(1, 1, 8, 1);
        let both = config((2, 4, 1), (1, 2, 1), &Affinity::Spread);
        let seats = seated(&both, &machine, "0-7");
        // cpu 0 1 | 2 3 come later; io 0 | 1 comes later
        assert_eq!(seats, ["0", "2", "3", "5", "1", "4"]);
    }

    #[test]
    fn a_list_is_given_out_in_turn_as_many_as_a_worker_has_threads() {
        let machine = Machine::new(1, 1, 8, 1);
        let list = Affinity::List(vec![6, 2, 4]);
        let seats = seated(&config((4, 4, 1), (0, 0, 1), &list), &machine, "0-7");
        assert_eq!(seats, ["6", "2", "4", "6"]);
        let seats = seated(&config((2, 2, 2), (0, 0, 1), &list), &machine, "0-7");
        assert_eq!(seats, ["2,6", "4,6"]);
        let seats = seated(&config((1, 1, 100), (0, 0, 1), &list), &machine, "0-7");
        assert_eq!(seats, ["2,4,6"]);
    }

    #[test]
    fn one_list_for_both_classes_is_one_row_and_two_lists_are_two() {
        let machine = Machine::new(1, 1, 8, 1);
        let mut both = config((2, 2, 1), (2, 2, 1), &Affinity::List(vec![0, 1, 2]));
        assert_eq!(seated(&both, &machine, "0-7"), ["0", "1", "2", "0"]);
        both.classes[1].placement.affinity = Affinity::List(vec![5, 6]);
        assert_eq!(seated(&both, &machine, "0-7"), ["0", "1", "5", "6"]);
    }

    #[test]
    fn what_of_a_list_cannot_be_used_is_named_and_left_out() {
        let cpus = Machine::new(1, 1, 4, 1).read("0-2");
        let list = |list: &[u32]| config((3, 3, 1), (0, 0, 1), &Affinity::List(list.to_vec()));
        let (seating, notes) = Seating::plan(&list(&[1, 3, 2, 900]), &cpus);
        let seats = [0, 1, 2].map(|w| seating.seat(w).cpus.to_string());
        assert_eq!(seats, ["1", "2", "1"]);
        let [(subject, text)] = &notes[..] else {
            panic!("{notes:?}")
        };
        assert!(
            subject.contains("affinity") && text.contains(" 3,900 "),
            "{subject}: {text}"
        );
        assert_eq!(seating.text(Class::CpuBound), "processors 1,2 in turn");

        let (seating, notes) = Seating::plan(&list(&[3, 900]), &cpus);
        assert_eq!(
            (seating.seat(0), seating.text(Class::CpuBound)),
            (Seat::default(), "none")
        );
        assert!(
            notes[0].1.contains("3,900") && notes[0].1.contains("0-2 may"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_node_has_all_its_processors_and_its_memory_or_a_note() {
        let cpus = Machine::new(2, 1, 2, 2).read("0-7");
        let on = |node| config((1, 1, 1), (1, 1, 16), &Affinity::Node(node));
        let (seating, notes) = Seating::plan(&on(1), &cpus);
        assert_eq!(notes, []);
        for worker in [0, 1] {
            let seat = seating.seat(worker);
            assert_eq!(
                (seat.cpus.to_string().as_str(), seat.node),
                ("2-3,6-7", Some(1))
            );
        }
        let (seating, notes) = Seating::plan(&on(2), &cpus);
        assert_eq!((seating.seat(0), notes.len()), (Seat::default(), 2));
        assert!(
            notes[0].1.contains("node 2") && notes[0].1.contains("nodes 0-1"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_class_without_workers_and_an_unknown_machine_are_no_trouble() {
        let mut config = config((1, 1, 1), (0, 0, 1), &Affinity::Spread);
        let (seating, notes) = Seating::plan(&config, &[]);
        assert_eq!(
            (seating.seat(0), notes.len()),
            (Seat::default(), 1),
            "{notes:?}"
        );
        config.classes[0].placement.affinity = Affinity::None;
        assert_eq!(Seating::plan(&config, &[]).1, []);
        assert_eq!(
            seating.seat(77),
            Seat::default(),
            "a slot that there is not"
        );
    }

    #[test]
    fn what_is_done_is_said_in_words() {
        let cpus = Machine::new(2, 2, 2, 2).read("0-15");
        let mut config = spread(4, 2);
        config.classes[0].placement.nice = 5;
        config.classes[0].placement.scheduler = Scheduler::Batch;
        config.classes[0].placement.io_priority = IoPriority::BestEffort(7);
        let (seating, _) = Seating::plan(&config, &cpus);
        assert_eq!(
            seating.text(Class::CpuBound),
            "spread, 2 of 16 processors each (sockets: 2, nodes: 2, L3 caches: 4, cores: 8), nice +5, \
             SCHED_BATCH, I/O best effort 7"
        );
        assert_eq!(seating.text(Class::IoBound), "none");
        let long: Vec<u32> = (0..40).collect();
        assert!(words(&long).ends_with("15,... (40 in all)"));
    }
}
