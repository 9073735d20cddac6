//! Spreading: which processors are given to whom, given how they share cores, caches and memory.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use crate::sys::cpuset::Cpus;
use crate::sys::topology::Cpu;

/// In which order the workers of both classes are seated: those that are there from the start before
/// those that may be added, and the classes by turns. `counts` are the least and the most of each.
pub(super) fn order(counts: [(u32, u32); 2]) -> Vec<(usize, u32)> {
    let mut order = Vec::new();
    let mut by_turns = |ranges: [Range<u32>; 2]| {
        for round in 0..ranges[0].len().max(ranges[1].len()) {
            for (class, workers) in ranges.iter().enumerate() {
                order.extend(workers.clone().nth(round).map(|worker| (class, worker)));
            }
        }
    };
    by_turns(counts.map(|(min, _)| 0..min));
    by_turns(counts.map(|(min, max)| min..max));
    order
}

/// The processors, and how many threads were seated on each.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    cpus: &'a [Cpu],
    /// By index in `cpus`, as everything below.
    load: Vec<u32>,
    /// Those with an L3 cache in common, and those of a node.
    rooms: [Vec<Vec<usize>>; 2],
}

impl<'a> Floor<'a> {
    pub(super) fn new(cpus: &'a [Cpu]) -> Self {
        let mut caches: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        let mut nodes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, cpu) in cpus.iter().enumerate() {
            caches.entry((cpu.node, cpu.l3)).or_default().push(index);
            nodes.entry(cpu.node).or_default().push(index);
        }
        // From node to node by turns.
        let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
        let mut rooms: Vec<_> = caches
            .into_iter()
            .map(|((node, _), members)| {
                let of_node = seen.entry(node).or_default();
                *of_node += 1;
                ((*of_node, node), members)
            })
            .collect();
        rooms.sort_by_key(|(turn, _)| *turn);
        Self {
            cpus,
            load: vec![0; cpus.len()],
            rooms: [
                rooms.into_iter().map(|(_, members)| members).collect(),
                nodes.into_values().collect(),
            ],
        }
    }

    /// Seats `threads` threads on as many processors, or on all.
    pub(super) fn take(&mut self, threads: usize) -> Cpus {
        let whole: Vec<usize> = (0..self.cpus.len()).collect();
        let rooms = self
            .rooms
            .iter()
            .find_map(|rooms| self.best_of(rooms, threads));
        let taken = rooms.unwrap_or_else(|| self.emptiest(&whole, threads));
        for &index in &taken {
            self.load[index] += 1;
        }
        taken.iter().map(|&index| self.cpus[index].number).collect()
    }

    /// The best places of the best room that has so many: where fewest sit already, on cores of their
    /// own if that can be, and in a room with fewer neighbours.
    fn best_of(&self, rooms: &[Vec<usize>], count: usize) -> Option<Vec<usize>> {
        let fitting = rooms.iter().filter(|room| room.len() >= count);
        let offers = fitting.map(|room| {
            let places = self.emptiest(room, count);
            let sum = |of: &dyn Fn(usize) -> u32, list: &[usize]| -> u64 {
                list.iter().map(|&index| u64::from(of(index))).sum()
            };
            let load = |index: usize| self.load[index];
            let smt = |index: usize| self.cpus[index].smt;
            let crowd = sum(&load, room) * 1024 / room.len() as u64;
            ((sum(&load, &places), sum(&smt, &places), crowd), places)
        });
        // The first of equals: rooms are in the order in which they should be filled.
        let best = offers.min_by_key(|(cost, _)| *cost)?;
        Some(best.1)
    }

    fn emptiest(&self, room: &[usize], count: usize) -> Vec<usize> {
        let mut places = room.to_vec();
        places.sort_by_key(|&index| (self.load[index], self.cpus[index].smt, index));
        places.truncate(count);
        places
    }
}
